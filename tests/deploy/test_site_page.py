"""The page for a data manager, flip/site/README.md: its commands, in its order, at a hospital."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from flip.__main__ import main
from flip.deploy.site_file import COMMANDS, LONGER
from flip.runs.rerun import run_files
from tests.site.test_gate import RULES
from tests.site.test_release import Holding
from tests.test_layout import ROOT

PAGE = (ROOT / "flip" / "site" / "README.md").read_text()
SHOWN = [shlex.split(line, comments=True) for line in re.findall(r"^    flip (site .*)$", PAGE, re.MULTILINE)]


def test_the_page_shows_every_command():
    assert {words[1] for words in SHOWN} == {*COMMANDS, *LONGER}


class Manager:
    """A person who goes through the page at a hospital that has answered some tasks."""

    def __init__(self, folder: Path) -> None:
        (folder / "site").mkdir()
        (folder / "site" / "kit.yaml").write_text("{backend: flower, party: site, site: cleveland}")
        self.hospital, self.key, self.run = Holding(folder / "site"), folder / "ada.pem", folder / "RUN"
        self.run.mkdir()
        (self.run / "manifest.json").write_text(run_files(self.hospital.study)["manifest.json"])
        self.hospital.file.unlink()  # the page begins with it

    def fill_in(self, public: str = "") -> None:
        """Write the file that `init` has made, as its owner fills it in; with a key also who approves and releases."""
        rules = {"keys": {"ada": public}, "needed": 1}
        asks = {"approval": rules, "release": {**rules, "stages": ["results"]}} if public else {"approval": "none"}
        self.hospital.policy(RULES | asks)
        self.hospital.open()

    def words(self, words: list[str]) -> list[str]:
        """A command of the page, with the names that it leaves open filled in."""
        folder = words[1] in ("review", "approve") or "--head" in words
        names = {"RUN": str(self.run) if folder else "run", "OUT": "out", "~/ada.pem": str(self.key), "ID": "17"}
        names["kings"] = "cleveland"  # as its kit has it
        if words[1] == "revoke":
            [names[words[2]]] = map(str, Path("approvals").glob("*.json"))
        return [names.get(word, word) for word in words]

    def before(self, words: list[str]) -> None:
        """What has happened at the hospital before a command makes sense."""
        if words[1] == "peer":  # the kit has come, and the secret is where its file has it
            for name, folder in (("cleveland.csr", "peers"), ("secret", "site")):
                Path(folder).mkdir(exist_ok=True)
                shutil.copy(f"own/{name}", folder)
        if words[1] == "audit" and not (self.run / "rounds.jsonl").exists():
            reply = self.hospital.silo.answer(self.hospital.asked("statistics"))
            assert reply.fault is None  # the sweep's approval holds
            line = {"site": "site", "journal": reply.journal}
            (self.run / "rounds.jsonl").write_text(json.dumps(line) + "\n")
        if words[1] == "release" and "--refuse" in words:
            self.hospital.silo.answer(self.hospital.moved(0.5, step="evaluate", stage="test", split="test"))
        elif words[1] == "release":
            self.hospital.fault("results")


def test_each_command_of_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path)
    monkeypatch.chdir(tmp_path / "site")
    for words in SHOWN:
        manager.before(words)
        capsys.readouterr()
        if "--help" in words:
            with pytest.raises(SystemExit, match="0"):
                main(words)
            continue
        assert main(manager.words(words)) == 0, words
        said = capsys.readouterr().out
        if words[1] == "init":
            manager.fill_in()
        if words[1] == "peer":
            (tmp_path / "site" / "roster.yaml").write_text(f"site: {said}other: {'ab' * 32}\n")
        if words[1] == "key":
            manager.fill_in(re.findall(r"ada: (\S{44})\}", said)[0])
    outcomes = [each["outcome"] for each in manager.hospital.entries()]
    assert outcomes == ["answered", "held", "held", "released", "held", "kept"]
    assert (tmp_path / "site" / "out" / "index.html").is_file()
    assert yaml.safe_load(manager.hospital.file.read_text())["policy"]["release"]["stages"] == ["results"]
