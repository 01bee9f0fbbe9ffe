"""A run that ends well says which site was not in it: a site that always fails is never passed over in silence."""

import base64
import html
import json
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from flip.messages import Fault
from flip.runs.missing_sites import last_error, never_in, warnings_of
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

RAISED, LOST, REFUSED = Fault.RAISED.value, Fault.LOST.value, Fault.REFUSED_COHORT.value


def line(site: str, phase: str, round: int = 0, fault: str | None = None) -> dict[str, Any]:
    return {"site": site, "phase": phase, "round": round, "fault": fault}


WELL = [line("a", phase, round) for round in range(3) for phase in ("statistics", "fit", "validate", "test")]


@pytest.mark.parametrize(
    ("lines", "said", "gone"),
    [
        ([line("b", "fit", n, "RAISED") for n in range(3)], f"b trained in none of its 3 rounds: {RAISED}", True),
        ([line("b", "statistics", 0, "REFUSED_COHORT")], f"b took no part: {REFUSED}", True),
        (
            [line("b", "fit"), line("b", "fit", 1, "RAISED"), line("b", "fit", 2, "LOST")],
            f"b did not train in 2 of its 3 rounds: {LOST}",
            False,
        ),
        ([line("b", "fit"), line("b", "validate", 0, "LOST")], f"b was never validated: {LOST}", False),
        ([line("b", "fit"), line("b", "test", 0, "RAISED")], f"b was not tested: {RAISED}", False),
        ([line("b", "statistics", 0, "LOST"), line("b", "fit")], None, False),
        ([line("b", "fit"), line("b", "alone", 0, "DISK")], "b is not in the baseline of sites alone", False),
    ],
)
def test_a_site_that_was_missing_is_named_with_the_fault(lines, said, gone, tmp_path):
    found = warnings_of([*WELL, *lines], tmp_path)
    assert len(found) == (said is not None)
    assert found == [] or found[0].startswith(said)
    assert never_in([*WELL, *lines]) == ({"b"} if gone else set())


@pytest.mark.parametrize("error", ["torch.OutOfMemoryError", "ValueError"])
def test_the_kind_of_the_error_is_named_and_its_text_stays_in_the_log(error, tmp_path):
    home = tmp_path / "sites" / "b"
    home.mkdir(parents=True)
    (home / "site.log").write_text(
        f"2026-01-02 03:04:05,678 ERROR fit round 1\n    Traceback ...\n    {error}: of Doe, John\n"
    )
    (found,) = warnings_of([line("b", "fit", 0, "RAISED")], tmp_path)
    kind = error.rpartition(".")[2]
    assert found == f"b trained in none of its 1 round: {RAISED} ({kind}; sites/b/site.log)."


def test_the_screen_shows_a_line_of_a_log_without_its_time(tmp_path):
    home = tmp_path / "sites" / "b"
    home.mkdir(parents=True)
    (home / "site.log").write_text("2026-01-02 03:04:05,678 WARNING fit round 1: too few\n")
    assert last_error(tmp_path, "b") == "fit round 1: too few"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


REFUSES = "sites.va.policy={minimum_persons: 5000, minimum_cell: 1}"
KEY = base64.b64encode(bytes(32)).decode()
UNSEEN = f"sites.va.policy={{minimum_persons: 2, minimum_cell: 1, approval: {{keys: {{ada: '{KEY}'}}}}}}"


def test_a_simulation_needs_every_site_that_trains(data, tmp_path):
    result = execute(tiny_heart_study(data, "federation=inprocess", REFUSES), tmp_path / "run")
    assert result["status"] == "refused"
    assert "va: refused by the site's policy: fewer distinct persons" in result["reason"]


@pytest.mark.parametrize(("rule", "fault"), [(REFUSES, REFUSED), (UNSEEN, Fault.REFUSED_APPROVAL.value)])
def test_a_site_that_was_not_in_an_ok_run_is_named_everywhere(rule, fault, data, tmp_path, capsys):
    study = tiny_heart_study(data, "federation=inprocess", "strategy.min_sites=3", rule)
    result = execute(study, tmp_path / "run")
    assert result["status"] == "ok"
    warning = f"va took no part: {fault}."
    assert json.loads((tmp_path / "run" / "result.json").read_text())["warnings"] == [warning]
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert page.index(warning) < page.index('class="tiles"')
    assert warning in capsys.readouterr().out.splitlines()


def test_a_callback_that_watches_validation_data_that_are_not_there_ends_the_run_before_training(data, tmp_path):
    stop = "trainer.callbacks={it: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss}}"
    result = execute(tiny_heart_study(data, stop), tmp_path / "run")
    assert (result["status"], result["rounds"]) == ("refused", 0)
    assert result["reason"].startswith("trainer.callbacks: val/loss is watched, and there are no validation data")


def test_the_cause_at_a_simulated_site_is_on_the_screen(data, tmp_path, capsys):
    own = ["sites.va.root=nowhere.csv", "strategy.min_sites=3"]
    result = execute(tiny_heart_study(data, "federation=inprocess", *own), tmp_path / "run")
    assert (result["status"], len(result["warnings"])) == ("ok", 1)
    assert "va took no part: the site could not read its cohort" in result["warnings"][0]
    assert "va: no table at" in capsys.readouterr().out
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and b"nowhere" in path.read_bytes()]
    assert {path.relative_to(tmp_path / "run").parts[0] for path in written} == {"sites"}
