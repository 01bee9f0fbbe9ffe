"""Hostile manifests, sent to the check and straight to a site: refused by name, before any code of theirs runs."""

import json
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.site.audit_events import PATHS, PROCESSES, SOCKETS
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.config.hostile import HOSTILE
from tests.studies import tiny_heart_study

SEEN: list[str] = []
OWN = ("/home/", "/home'")  # the site writes down what it is asked, in its own home
OUTWARD = {*PATHS, *PROCESSES, *SOCKETS, "socket.getaddrinfo"}


def seen(event: str, args: tuple[Any, ...]) -> None:
    if SEEN and event in OUTWARD and not any(each in str(args) for each in OWN):
        SEEN.append(f"{event} {args}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    sys.addaudithook(seen)
    return tiny_heart_study(write_tiny_heart(tmp_path_factory.mktemp("data")))


def put(study: Study, name: str) -> Study:
    """The study with a hostile part in it."""
    key, value = HOSTILE[name]
    manifest: dict[str, Any] = deepcopy(dict(study.manifest))
    *way, last = key.split(".")
    place: dict[str, Any] = manifest
    for step in way:
        place = place.setdefault(step, {})
    place[last] = value
    return replace(study, manifest=manifest, manifest_text=json.dumps(manifest))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_site_refuses_it_and_does_nothing(name: str, study: Study, tmp_path: Path) -> None:
    silo = Silo("va", study.sites["va"], tmp_path / "home")
    task = Task("run", "study", 0, "statistics", {}, {}, {}, put(study, name).manifest_text)
    SEEN[:] = ["watching"]
    reply = silo.answer(task)
    happened, SEEN[:] = SEEN[1:], []
    assert reply.fault is Fault.REFUSED_TARGET
    assert happened == []
    assert HOSTILE[name][0].split(".")[0] in (silo.home / "site.log").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_check_refuses_it_and_does_nothing(name: str, study: Study) -> None:
    SEEN[:] = ["watching"]
    with pytest.raises(UserError):
        check(put(study, name))
    happened, SEEN[:] = SEEN[1:], []
    assert happened == []
