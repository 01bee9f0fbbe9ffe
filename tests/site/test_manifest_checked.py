"""What the coordinator's check finds in a study, a site finds again in its manifest: each mistake is sent to it."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from flip.config import build
from flip.messages import Fault, Task
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.conftest import Acme
from tests.mistakes import MISTAKES
from tests.studies import compose_study, tiny_heart_study

OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[\w.]+)(=(?P<value>.*))?", re.DOTALL)
ELSEWHERE = ("sites", "baselines", "resume_from", "allow_targets", "federation", "job")
"""Roots of the configuration that are the coordinator's, or the sites': no manifest has them."""
NO_SITE_KNOWS = {
    "more sites asked for than train", "fewer sites asked than must answer", "fewer sites visited than must answer",
    "more visits than sites", "weights that are all zero", "privacy without federation",
    "a site's precision that a mechanism refuses", "privacy with a baseline of sites alone",
    "privacy with a pooled baseline", "a checkpoint under federation",
    "privacy with a baseline of weights trained further", "more rounds after the last one than the study has",
}  # fmt: skip
"""Mistakes in how the sites, or a backend, are put together."""


def edits(overrides: list[str]) -> Iterator[tuple[str, list[str], Any]]:
    """What of a command line is in a manifest: the sign, the key's parts, and the value."""
    for text in overrides:
        found = OVERRIDE.fullmatch(text)
        assert found is not None
        parts = found["key"].split(".")
        chooses = len(parts) == 1 and parts[0] in ("strategy", "experiment")  # an option of a group
        if parts[0] not in ELSEWHERE and not chooses:
            try:
                yield found["sign"], parts, yaml.safe_load(found["value"] or "null")
            except yaml.YAMLError:
                return


SENT = sorted(name for name in {*MISTAKES} - NO_SITE_KNOWS if [*edits(MISTAKES[name][0])])


def mistaken(manifest: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The manifest with a mistake, as a coordinator that checks nothing would send it."""
    made: dict[str, Any] = json.loads(json.dumps(manifest))
    for sign, (*path, last), value in edits(overrides):
        place = made
        for each in path:
            place = place.setdefault(each, {})
        if "~" in sign:
            del place[last]
        else:
            place[last] = value
    made["mechanisms"] = [*made["privacy"]]
    with suppress(ImportError, ValueError, AttributeError):  # of code that there is not
        made["code"] = build.code_digest(build.targets(made))
    return made


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sites' data that were read."""
    read: list[str] = []
    made = build.datamodule

    def noted(manifest: Any, name: str, site: Any) -> Any:
        read.append(name)
        return made(manifest, name, site)

    monkeypatch.setattr(build, "datamodule", noted)
    return read


@pytest.mark.parametrize("name", SENT)
def test_a_mistake_that_the_check_names_is_refused_by_a_site_that_is_sent_it(name, acme: Acme, tmp_path, unread):
    study = compose_study("experiment=acme", config_dir=acme.conf)
    silo = Silo("north", study.sites["north"], tmp_path / "home")
    sent = json.dumps(mistaken(study.manifest, MISTAKES[name][0]))
    assert sent != study.manifest_text
    reply = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, sent))
    assert reply.fault in (Fault.REFUSED_MANIFEST, Fault.REFUSED_TARGET), (tmp_path / "home/site.log").read_text()
    assert unread == []


def test_the_study_without_a_mistake_is_answered(acme: Acme, tmp_path, unread):
    study = compose_study("experiment=acme", config_dir=acme.conf)
    silo = Silo("north", study.sites["north"], tmp_path / "home")
    task = Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text)
    assert (silo.answer(task).fault, unread) == (None, ["north"])


def test_most_mistakes_are_such_that_a_site_can_find_them():
    assert len(SENT) > 35


@pytest.mark.parametrize("given", sorted({*build.FROM_SITE, *build.IF_TAKEN}))
def test_what_is_the_sites_own_is_not_the_studys_to_say(given: str, tmp_path: Path, unread):
    """A cache of the study's choice would hold patients' images there, and drop what else is in the folder."""
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"))
    kept = tmp_path / "elsewhere" / "kept.safetensors"
    kept.parent.mkdir()
    kept.write_text("somebody's")
    manifest = json.loads(study.manifest_text)
    manifest["dataset"][given] = {"folder": str(kept.parent), "gigabytes": 0.0}
    silo = Silo("cleveland", study.sites["cleveland"], tmp_path / "home")
    reply = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, json.dumps(manifest)))
    assert (reply.fault, unread) == (Fault.REFUSED_TARGET, [])
    assert [*kept.parent.iterdir()] == [kept]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": NaN}', "[" * 10**5])
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path):
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"))
    silo = Silo("cleveland", study.sites["cleveland"], tmp_path / "home")
    reply = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, text))
    assert reply.fault is Fault.REFUSED_MANIFEST


def test_a_text_that_reads_the_machines_environment_is_not_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_SECRET", "of-the-site")
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"))
    manifest = {**json.loads(study.manifest_text), "notice": "${oc.env:A_SECRET}"}
    silo = Silo("cleveland", study.sites["cleveland"], tmp_path / "home")
    reply = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, json.dumps(manifest)))
    assert reply.fault is Fault.REFUSED_MANIFEST
    assert "of-the-site" not in (tmp_path / "home" / "site.log").read_text()
