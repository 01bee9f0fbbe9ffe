"""`flip site key`, `review`, `approve`, `revoke`: what a person at a site reads, signs, and takes back."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flip.__main__ import main
from flip.messages import Fault
from flip.runs.rerun import run_files
from tests.site.test_gate import RULES, Hospital

TERMS = ["--reason", "trial 7", "--ethics", "IRB 12/34", "--expires", "2099-01-31"]
QUERY = "SELECT person_id\nFROM visit_occurrence\nWHERE 'x' = '\x1b[2J'"


class Desk:
    """Two persons with a key each, at a site that has its kit and the folder of a run."""

    def __init__(self, folder: Path, said: Callable[[], str]) -> None:
        self.hospital = Hospital(folder)
        self.folder, self.site, self.run, self.said = folder, str(folder / "site.yaml"), folder / "run", said
        (folder / "kit.yaml").write_text("{backend: flower, party: site, site: cleveland}")
        self.run.mkdir()
        (self.run / "manifest.json").write_text(run_files(self.hospital.study)["manifest.json"])
        self.keys = {name: folder.parent / f"{folder.name}-{name}.pem" for name in ("ada", "bob")}
        self.public = {name: self.made(name) for name in self.keys}
        self.policy(needed=1)

    def made(self, name: str) -> str:
        assert main(["site", "key", name, "--key", str(self.keys[name])]) == 0
        return str(re.findall(rf"{name}: (\S{{44}})\}}", self.said())[0])

    def policy(self, *, needed: int) -> None:
        self.hospital.policy(RULES | {"approval": {"keys": self.public, "needed": needed}})

    def approve(self, name: str, *words: str, study: Path | None = None, key: Path | None = None) -> int:
        signed = ["--name", name, "--key", str(key or self.keys[name])]
        return main(["site", "approve", str(study or self.run), self.site, *signed, *words])

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "approvals").glob("*.json"))

    def fault(self) -> Fault | None:
        return self.hospital.silo.answer(self.hospital.task("statistics")).fault


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    (tmp_path / "site").mkdir()
    return Desk(tmp_path / "site", lambda: "".join(capsys.readouterr()))


def test_a_person_signs_for_a_run_and_it_goes_until_that_is_revoked(desk):
    assert desk.fault() is Fault.REFUSED_APPROVAL
    assert desk.approve("ada", *TERMS) == 0
    [path] = desk.files
    assert desk.fault() is None
    assert main(["site", "revoke", str(path)]) == 0
    assert desk.fault() is Fault.REFUSED_APPROVAL
    assert desk.approve("ada", study=path) == 2  # a second signature does not bring it back
    assert "is revoked; nothing was signed" in desk.said()


def test_a_copy_elsewhere_revokes_nothing_and_says_so(desk):
    desk.approve("ada", *TERMS)
    copy = desk.folder.parent / "copy.json"
    copy.write_bytes(desk.files[0].read_bytes())
    assert main(["site", "revoke", str(copy)]) == 2
    assert "is a copy, by which nothing is revoked" in desk.said()
    assert desk.fault() is None


def test_a_second_person_signs_the_same_envelope(desk):
    desk.policy(needed=2)
    assert desk.approve("ada", *TERMS) == 0
    [path] = desk.files
    assert "It is not enough yet; another person signs" in desk.said()
    assert desk.fault() is Fault.REFUSED_APPROVAL
    assert desk.approve("ada", study=path) == 0
    assert desk.fault() is Fault.REFUSED_APPROVAL
    assert desk.approve("bob", "--runs", "99", study=path) == 2
    assert "--runs: " in desk.said()
    assert desk.approve("bob", study=path) == 0
    assert desk.files == [path]
    assert desk.fault() is None


def test_two_persons_who_each_sign_for_the_run_have_signed_the_same_envelope(desk):
    desk.policy(needed=2)
    assert (desk.approve("ada", *TERMS), desk.fault()) == (0, Fault.REFUSED_APPROVAL)
    assert (desk.approve("bob", *TERMS), desk.fault()) == (0, None)
    assert len(desk.files) == 1
    assert desk.said().count("It is not enough yet") == 1


def test_a_review_says_in_words_what_would_run_and_what_would_leave(desk):
    assert main(["site", "review", str(desk.run), desk.site]) == 0
    said = desk.said()
    for words in (
        "Study heart_disease",
        'numeric: ["age", "sex", "trestbps"',
        "models.tabular.LinearClassifier",
        "which is that of the code installed here",
        "Privacy: no mechanism; what leaves has no noise",
        "3 rounds of 5 steps each, by flip.strategies.fedavg.FedAvg",
        "weights: trained weights",
        "which are text of the records: stays, by policy.releases",
        "Online trackers: not in a manifest",
    ):
        assert words in said


def test_every_value_of_a_manifest_is_read_and_no_text_of_it_moves_the_cursor(desk):
    manifest = json.loads(desk.hospital.study.manifest_text)
    manifest["dataset"]["query"] = {"cohort": QUERY, "long": "y" * 9000 + "end"}
    manifest["dataset"]["parts"] = [{"column": "hidden"}]
    manifest["code"] = "0" * 64
    file = desk.folder / "manifest.json"
    file.write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))
    assert main(["site", "review", str(file)]) == 0
    said = desk.said()
    assert "| SELECT person_id\n" in said and "\\x1b[2J" in said and "\x1b" not in said
    assert "yend\n" in said and "column: hidden" in said
    assert "which is NOT that of the code installed here" in said


def test_an_approval_is_reviewed_with_its_terms(desk):
    free = [
        "--free",
        "seed: any",
        "--free",
        "model.optimizer.lr: [1e-4, 1e-1]",
        "--free",
        "strategy: [fedavg, scaffold]",
    ]
    assert desk.approve("ada", *TERMS, *free, "--runs", "12") == 0
    assert main(["site", "review", str(desk.files[0])]) == 0
    said = desk.said()
    for words in ("12 runs, until 2099-01-31", "IRB 12/34", "seed: any", "lr: from 0.0001 to 0.1", "Scaffold"):
        assert words in said


def test_a_key_is_its_owners_alone_and_may_have_a_passphrase(desk, monkeypatch):
    assert {stat.S_IMODE(path.stat().st_mode) for path in desk.keys.values()} == {0o600}
    assert main(["site", "key", "ada", "--key", str(desk.keys["ada"])]) == 2  # left as it is
    monkeypatch.setattr("getpass.getpass", lambda prompt: "open")
    locked = desk.keys["ada"].with_name("locked.pem")
    assert main(["site", "key", "ada", "--key", str(locked), "--passphrase"]) == 0
    desk.public["ada"] = re.findall(r"ada: (\S{44})\}", desk.said())[0]
    desk.policy(needed=1)
    assert "ENCRYPTED" in locked.read_text()
    assert desk.approve("ada", *TERMS, key=locked) == 0
    monkeypatch.setattr("getpass.getpass", lambda prompt: "shut")
    assert desk.approve("ada", *TERMS, key=locked) == 2


def in_the_sites_folder(desk: Desk) -> int:
    inside = desk.folder / "home" / "ada.pem"
    inside.parent.mkdir(exist_ok=True)
    inside.write_bytes(desk.keys["ada"].read_bytes())
    return desk.approve("ada", *TERMS, key=inside)


def readable(desk: Desk) -> int:
    desk.keys["ada"].chmod(0o644)
    return desk.approve("ada", *TERMS)


def unlisted(desk: Desk) -> int:
    return desk.approve("ada", *TERMS, key=desk.keys["bob"])


def without_rule(desk: Desk) -> int:
    desk.hospital.policy(RULES)
    return desk.approve("ada", *TERMS)


def without_kit(desk: Desk) -> int:
    (desk.folder / "kit.yaml").unlink()
    return desk.approve("ada", *TERMS)


def changed(desk: Desk) -> int:
    file = desk.run / "manifest.json"
    file.write_text(file.read_text().replace(":", ": ", 1))
    return desk.approve("ada", *TERMS)


WRONG = {
    "a key where the site's process reads": (in_the_sites_folder, "lies in the site's own folder"),
    "a key that others read": (readable, "chmod 600 it"),
    "a key that is not listed under the name": (unlisted, "policy.approval.keys does not have this key"),
    "a site that asks for none": (without_rule, "policy.approval is none"),
    "a site of no name": (without_kit, "--site: has no value"),
    "a manifest that was touched": (changed, "is not as a run wrote it"),
    "no terms": (lambda each: each.approve("ada"), "--ethics: has no value"),
    "an end that is past": (lambda each: each.approve("ada", *TERMS, "--expires", "2020-01-01"), "is past"),
    "an end that is no day": (lambda each: each.approve("ada", *TERMS, "--expires", "soon"), "must be a day"),
    "no run": (lambda each: each.approve("ada", *TERMS, "--runs", "0"), "--runs 0"),
    "a key that cannot be free": (lambda each: each.approve("ada", *TERMS, "--free", "code: any"), "cannot be free"),
    "a file that is none": (lambda each: each.approve("ada", *TERMS, study=each.folder / "no.json"), "cannot be read"),
    "no approval": (lambda each: main(["site", "revoke", each.site]), "is no approval"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_has_an_answer_and_nothing_is_signed(desk, name):
    attempt, said = WRONG[name]
    assert attempt(desk) == 2
    assert said in desk.said()
    assert desk.files == []


def test_a_check_says_who_approves(desk):
    for needed, words in ((1, "run only once one of ada, bob signed for it"), (2, "run only once two of ada, bob")):
        desk.policy(needed=needed)
        assert main(["site", "check", desk.site]) == 0
        assert words in desk.said()
    values = yaml.safe_load(Path(desk.site).read_text())
    for approval, words in ({"approval": "none"}, "without anybody here having seen it"), ({}, "not run at all"):
        rules = {key: each for key, each in values["policy"].items() if key != "approval"} | approval
        Path(desk.site).write_text(yaml.safe_dump(values | {"policy": rules}))
        assert main(["site", "check", desk.site]) == 0
        assert words in desk.said()
