"""Studies that cannot go on: too few sites are left, or the coordinator has no space on its disk."""

import shutil
from pathlib import Path

import pytest

from flip.messages import Fault
from flip.messages.safetensors import load_file
from flip.runs.folder import RunFolder
from tests.disks import can_mount, fill, tmpfs
from tests.federation.backends import FLARE, FLOWER, FORKED, ONE, Backend, each
from tests.federation.faulty_site import Faulty, Running

needs_root = pytest.mark.skipif(not can_mount(), reason="a disk can be mounted by root alone")


def complete(run: Path) -> int:
    """How many rounds are whole on disk: weights, and a line of each site."""
    weights, head = load_file(run / "state" / "round.safetensors")
    assert weights
    rounds = int(head["round"]) + 1
    files = RunFolder(run, [])
    assert files.last_round() + 1 == rounds
    return rounds


def said(running: Running) -> None:
    """The end is told on the screen, in the report and the result, without a traceback."""
    reason = running.result["reason"]
    assert running.result["status"] == "failed"
    assert reason in running.text("out")
    assert "Traceback" not in running.text("out") + running.err
    assert reason.split(";")[0].replace("'", "&#39;") in running.report


@pytest.mark.slow
@pytest.mark.parametrize("backend", each(ONE))
def test_with_fewer_than_min_sites_left_the_study_ends(backend: Backend, tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / f"e-{backend.id}", {"a": {2: "raise"}, "b": {2: "nan"}, "c": {}})
    with study.running(*backend.overrides, "strategy.rounds=5", "strategy.min_sites=2") as running:
        assert running.end() == 1
        assert running.family.left() == []
    said(running)
    assert running.result["reason"] == (
        f"1 usable site in round 3, strategy.min_sites=2. a: {Fault.RAISED.value}; b: {Fault.NOT_FINITE.value}"
    )
    assert running.result["rounds"] == complete(study.run) == 2


@pytest.mark.parametrize("backend", each(FORKED, FLOWER, FLARE, fast=[], long=[FLOWER, FLARE]))
def test_with_all_but_one_site_gone_the_study_ends(backend: Backend, tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / f"g-{backend.id}", {"killed": {1: "hang"}, "stands": {1: "hang"}, "well": {}})
    workers = "federation.workers=3"  # one for each: the site that is well waits for nobody
    with study.running(*backend.overrides, workers, "strategy.rounds=5", "strategy.min_sites=2") as running:
        running.hanging("stands")  # for good
        running.kill("killed")
        assert running.end() == 1
        assert running.family.left() == []
    said(running)
    assert "1 usable site in round 2, strategy.min_sites=2. " in running.result["reason"]
    assert f"killed: {Fault.LOST.value}; stands: {Fault.TIMEOUT.value}" in running.result["reason"]
    assert running.result["rounds"] == complete(study.run) == 1
    assert study.temporary_files() == []


@needs_root
@pytest.mark.parametrize("backend", each(ONE, FORKED, FLOWER, FLARE, fast=[], long=[FLOWER, FLARE]))
def test_without_space_for_the_next_round_the_study_ends_with_its_result(
    backend: Backend, tmp_path: Path, short: Path
) -> None:
    study = Faulty(tmp_path, short / f"d-{backend.id}", {"a": {1: "hang"}, "b": {}})
    with tmpfs(study.run, megabytes=8):
        for site in study.plan:  # on disks of their own
            home = study.home(site)
            shutil.move(home, tmp_path / site)
            home.symlink_to(tmp_path / site)
        with study.running(*backend.overrides, "strategy.rounds=500") as running:
            running.hanging("a")
            fill(study.run)
            running.release("a")
            assert running.end() == 1
            assert running.family.left() == []
        said(running)
        assert running.result["reason"] == (
            "no space is left on the disk of the run folder; free some, then go on: python -m flip resume=run"
        )
        assert running.result["rounds"] == complete(study.run) == 1
        assert all(line["fault"] is None for line in running.lines())
    assert study.temporary_files() == []


@pytest.mark.slow
@needs_root
def test_without_space_for_the_result_the_study_says_so(tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / "r", {"a": {}, "b": {}})
    with tmpfs(study.run, megabytes=1):
        fill(study.run)
        with study.running(*ONE.overrides, "strategy.rounds=2") as running:
            assert running.end() == 2
        assert "run: no space is left on its disk, not even for result.json; free some" in running.err
        assert "Traceback" not in running.text("out") + running.err
        assert not (study.run / "result.json").exists()
