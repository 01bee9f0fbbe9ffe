"""Each command, key and option that pages, YAML comments and docstrings show is one that the engine knows."""

import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from flip.__main__ import COMMANDS
from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.cli.launch import parser
from flip.config.checks.effects import without_effect
from flip.config.resolve import settle
from flip.config.schema import Config
from flip.deploy.command import BACKENDS, parse
from flip.errors import UserError
from tests.test_layout import ROOT
from tests.test_pages import GROUPS, PAGES, WRITTEN, found_in, short

WORD = r"(?:'[^'\n]*'|[-~]?[\w.@/]+=[^\s`]*|~[\w.]+|-m|--(?:config-dir|config-name|cfg) [\w./]+|--resolve)"
COMMAND = rf"(?<![\w.])flip((?: +{WORD})+)"
OTHERS = {"resume", "resume_from"}  # they need a run that is there


@cache
def shown() -> dict[str, str]:
    """Every command that starts a study, wherever it is written down, with the file that shows it first."""
    found: dict[str, str] = {}
    for path, match in found_in(COMMAND, WRITTEN):
        words = match[1].strip().rstrip('.,;:)"')
        if not re.search(r"[{}]|=mine\b|=[A-Z]{2,}\b|\.\.\.", words):  # text of the code, and names to be filled in
            found.setdefault(words, short(path))
    return found


def in_turn(words: list[str]) -> list[list[str]]:
    """A sweep's words as single runs: each value of each word once, and no more runs than the longest has values."""
    choices = []
    for word in words:
        key, _, value = word.partition("=")
        plain = value and not re.search(r"[\[{('\"]", value)
        choices.append([f"{key}={each}" for each in value.split(",")] if plain else [word])
    return [[word or first[0] for word, first in zip(turn, choices, strict=True)] for turn in zip_longest(*choices)]


def written_out() -> Iterator[tuple[str, str]]:
    """The YAML files that the pages write out, indented or fenced, by the name in their comment."""
    for text in PAGES.values():
        for block in [*re.findall(r"(?:(?: {4}.*)?\n)+", text), *re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]:
            plain = textwrap.dedent(block).strip() + "\n"
            if named := re.match(r"(?:# @package \w+\n)?# (my_conf/\S+\.yaml)\n", plain):
                yield named[1], plain


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these files, and with a hospital's own."""
    folder = tmp_path_factory.mktemp("reader")
    for name, text in written_out():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "site.yaml").write_text("root: .\npolicy: {minimum_persons: 50, minimum_cell: 5}\n")
    return folder


def unknown(words: str, known: set[str]) -> list[str]:
    """The words of a command whose option or key there is not."""
    given = parser().parse_args(shlex.split(words))
    composer = Composer(config_dir=Path(given.config_dir) if given.config_dir else None)
    wrong = []
    for word in given.overrides:
        key, _, value = word.lstrip("~").partition("=")
        if composer.is_group(key) and not word.startswith("~"):
            wrong += [each for each in value.strip("[]").split(",") if each not in composer.options(key)]
        elif key not in known | OTHERS and not key.startswith(("sites.", "hydra.")):
            wrong.append(key)
    return wrong


def refused(words: str) -> list[str]:
    """What the engine says against a command's study, with each value of a sweep."""
    given = parser().parse_args(shlex.split(words))
    overrides = [word for word in given.overrides if word.partition("=")[0] not in OTHERS]
    problems = []
    for turn in in_turn(overrides) if given.multirun else [overrides]:
        try:
            cfg = composed(Composer(turn, given.config_name, Path(given.config_dir) if given.config_dir else None))
            settle(cfg, backend=str(cfg.hydra.runtime.choices.get("federation")))
        except UserError as error:
            problems += error.problems
    return problems


def idle(words: str) -> list[str]:
    """What a command types for nothing; a sweep's values in turn."""
    given = parser().parse_args(shlex.split(words))
    found = []
    for turn in in_turn(given.overrides) if given.multirun else [given.overrides]:
        composer = Composer(turn, given.config_name, Path(given.config_dir) if given.config_dir else None)
        cfg = composed(composer)
        study = settle(cfg, backend=str(cfg.hydra.runtime.choices.get("federation")))
        found += without_effect(replace(study, given=composer.given))
    return found


def test_no_command_types_what_its_run_ignores(readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readers_folder)
    sparing = [words for words in shown() if re.search(r"(?<![.\w])(strategy|trainer|baselines)[.=]", words)]
    assert len(sparing) > 20
    found = {words: idle(words) for words in sparing}
    assert [f"{shown()[words]}: {words}: {said}" for words, said in found.items() if said] == []


def test_the_commands_are_found() -> None:
    assert len(shown()) > 60
    assert {"experiment=sarcopenia federation=flower", "-m experiment=sarcopenia seed=1,2,3"} <= set(shown())


def test_each_option_and_key_of_a_command_is_there(readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readers_folder)
    known = known_keys()
    found = {words: unknown(words, known) for words in shown()}
    assert [f"{shown()[words]}: {words}: {wrong}" for words, wrong in found.items() if wrong] == []


def test_each_study_of_the_readme_is_accepted(readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readers_folder)
    studies = [words for words, place in shown().items() if place == "README.md" and "experiment=" in words]
    found = {words: refused(words) for words in studies}
    assert len(studies) >= 5
    assert [f"{words}: {problems}" for words, problems in found.items() if problems] == []


def test_each_other_command_that_is_shown_is_understood() -> None:
    known = set(COMMANDS)
    problems, seen = [], set()
    for path, match in found_in(r"(?<![\w./-])flip ((?:deploy|start|report|card|export)\b[^\n#`(\"]*)", WRITTEN):
        name, *words = (word.rstrip(".,;:)") for word in match[1].split())
        seen |= {*name.split("|")}
        if name == "deploy" and words and words[0] in BACKENDS:
            settings = [word for word in words[1:] if "=" in word and not word.endswith("=")]
            prepare = import_module(f"flip.federation.{words[0]}.provision").prepare
            try:
                parse([*settings, "sites=heart", "out=kits"], inspect.signature(prepare).parameters)
            except UserError as error:
                problems += [f"{short(path)}: {match[0]}: {error.problems}"]
    assert problems == []
    assert seen == {"deploy", "start", "report", "card", "export"} <= known


def test_each_make_command_that_a_page_shows_is_a_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match[1] for _, match in found_in(r"(?:^    |`)make ([\w-]+)", PAGES)}
    assert named <= targets
    assert {"demo", "test"} <= named


# Keys and options


def keys(config: object, before: str = "") -> set[str]:
    """The dotted keys of a configuration."""
    if not isinstance(config, dict):
        return set()
    return {f"{before}{key}" for key in config} | {
        one for key, value in config.items() for one in keys(value, f"{before}{key}.")
    }


def known_keys() -> set[str]:
    """Every key of the schema and of the options of each group."""
    found = keys(OmegaConf.to_container(OmegaConf.structured(Config)))
    for group in GROUPS:
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            found |= keys(config) if "@package _global_" in path.read_text() else keys({group: config})
    return found


def test_each_key_that_a_page_names_is_one() -> None:
    known = known_keys()
    first = {key.partition(".")[0] for key in known if "." in key} - {"sites"}
    named = [
        (page, match[1])
        for page, match in found_in(r"`([a-z_]+(?:\.[a-z_]+)+)(?:[=:][^`]*)?`", PAGES)
        if match[1].partition(".")[0] in first and not match[1].endswith((".py", ".yaml", ".json"))
    ]
    assert len(named) > 20
    assert [f"{short(page)}: {key}" for page, key in named if key not in known] == []
