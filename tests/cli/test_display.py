"""What the terminal and the log show while a study runs."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flip.cli.display import Display, clock_text
from flip.messages import Fault
from tests.report.fixture import SITES, line, write_run


def follow(run: Path, *, terminal: bool, backend: str = "inprocess", rounds: int = 15, **about: Any) -> str:
    """Everything that a display prints for a run's lines."""
    complete = about.pop("complete", None)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    sites = about.pop("sites", list(SITES))
    with Display(study="heart", backend=backend, rounds=rounds, sites=sites, console=console) as display:
        for text in (run / "rounds.jsonl").read_text().splitlines():
            display.line(json.loads(text))
        display.end(rounds if complete is None else complete)
    return out.getvalue()


def test_a_log_gets_one_plain_line_a_round(tmp_path: Path) -> None:
    shown = follow(write_run(tmp_path / "run"), terminal=False)
    lines = [text for text in shown.splitlines() if text.startswith("round ")]
    assert len(lines) == 15
    assert lines[2].startswith("round 3/15  loss 0.")
    assert "validation  accuracy" in lines[2]
    assert "sites 4/4" in lines[2]
    assert "\x1b" not in shown


def test_a_study_without_validation_also_gets_its_line_of_each_round(tmp_path: Path) -> None:
    shown = follow(write_run(tmp_path / "run", validation=False), terminal=False)
    assert [text.split()[1] for text in shown.splitlines() if text.startswith("round ")] == [
        f"{number}/15" for number in range(1, 16)
    ]


def test_a_round_names_the_site_that_failed(tmp_path: Path) -> None:
    shown = follow(write_run(tmp_path / "run", faults={("va", 2): "NOT_FINITE"}), terminal=False)
    [third] = [text for text in shown.splitlines() if text.startswith("round 3/")]
    assert "sites 3/4" in third
    assert third.endswith("va not finite")


@pytest.mark.parametrize("fault", [Fault.REFUSED_COHORT, Fault.DATA])
def test_a_site_that_refuses_or_cannot_read_its_cohort_is_named_with_its_reason_before_the_first_round(
    tmp_path: Path, fault: Fault
) -> None:
    shown = follow(write_run(tmp_path / "run", refused={"va": fault.name}), terminal=False).splitlines()
    assert shown[1:3] == [f"va  {fault.value}", next(text for text in shown if text.startswith("round 1/"))]


def test_a_terminal_names_the_site_that_refused_above_the_rounds(tmp_path: Path) -> None:
    shown = follow(write_run(tmp_path / "run", refused={"va": "REFUSED_COHORT"}), terminal=True)
    assert f"va  {Fault.REFUSED_COHORT.value}" in shown


def test_one_site_and_one_round_are_not_several(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").touch()
    assert follow(tmp_path, terminal=False, rounds=1, sites=["va"]) == "heart  federation=inprocess  1 site  1 round\n"


def test_a_round_that_was_cut_off_is_not_shown_as_finished(tmp_path: Path) -> None:
    faults = {("va", 1): "LOST"}
    fits = [line(n, site, "fit", metrics={"loss": 0.5}, fault=faults.get((site, n))) for n in (0, 1) for site in SITES]
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in fits))
    shown = follow(tmp_path, terminal=False, complete=1).splitlines()
    assert shown[1].startswith("round 1/15  loss 0.500  sites 4/4")
    assert shown[2] == "round 2/15  not finished  va lost"


def test_training_without_federation_counts_epochs(tmp_path: Path) -> None:
    epochs = [line(n, "pooled", "fit", examples=486, metrics={"loss": 0.5, "accuracy": 0.7}) for n in range(2)]
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))
    shown = follow(tmp_path, terminal=False, backend="none", rounds=2)
    assert "epoch 2/2  loss 0.500  accuracy 0.700" in shown
    assert "sites 1/1" not in shown


def test_a_terminal_shows_every_site_and_the_rounds(tmp_path: Path) -> None:
    shown = follow(write_run(tmp_path / "run"), terminal=True)
    assert all(site in shown for site in SITES)
    assert "validated" in shown
    assert "sites 4/4" not in shown  # no plain lines beside the live display


def test_what_a_library_prints_or_warns_of_is_not_drawn_over_the_display(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with Display(study="heart", backend="none", rounds=1, sites=["va"], console=console):
        print("FutureWarning: an argument is deprecated", file=sys.stderr)
        print("a library says hello")
    assert "FutureWarning" not in out.getvalue()
    assert "hello" not in out.getvalue()
    assert "FutureWarning" in capfd.readouterr().err  # which is the log, in a run


def test_markup_in_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    out = io.StringIO()
    with Display(study="[bold]x", backend="none", rounds=1, sites=["[red]y"], console=Console(file=out)) as display:
        display.note("see [blue]z")
    assert "[bold]x" in out.getvalue()
    assert "see [blue]z" in out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_an_error_in_the_run_passes_through(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    with (
        pytest.raises(KeyError),
        Display(study="heart", backend="none", rounds=1, sites=["a"], console=console),
    ):
        raise KeyError("stop")


@pytest.mark.parametrize("terminal", [False, True])
def test_no_name_of_a_site_or_metric_begins_a_line_or_moves_the_cursor(terminal: bool, tmp_path: Path) -> None:
    forged = "kings\x1b[2J\nok  1.0 s  digest fake"
    run = write_run(tmp_path / "run")
    lines = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    for each in lines:
        each["metrics"] = {forged: 0.5, **(each.get("metrics") or {})}
        each["site"] = each["site"] if each["site"] == "pooled" else forged
        each["fault"] = forged if each["phase"] in ("statistics", "fit") else None
    (run / "rounds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    shown = follow(run, terminal=terminal, sites=[forged])
    assert not [text for text in shown.splitlines() if text.lstrip().startswith("ok")]
    assert "\x1b[2J" not in shown
    assert "digest fake" in shown


def written(folder: Path, *records: dict[str, Any]) -> Path:
    (folder / "rounds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


def test_the_loss_of_a_round_weighs_sites_by_their_examples(tmp_path: Path) -> None:
    # By hand: (300 * 0.2 + 100 * 0.8) / 400.
    fits = [line(0, "va", "fit", examples=300, metrics={"loss": 0.2})]
    fits += [line(0, "cleveland", "fit", examples=100, metrics={"loss": 0.8})]
    assert "round 1/15  loss 0.350  sites 2/2" in follow(written(tmp_path, *fits), terminal=False)


def test_a_baseline_is_announced_once_and_the_pooled_test_has_a_line_without_intervals(tmp_path: Path) -> None:
    records = [line(0, site, "alone", metrics={"loss": 0.5}) for site in SITES]
    records += [line(0, "pooled", "test", metrics={"accuracy": 0.75, "accuracy/low": 0.7, "loss": 0.5})]
    shown = follow(written(tmp_path, *records), terminal=False).splitlines()
    assert shown[1:] == ["baseline  each site alone", "test  accuracy 0.750  loss 0.500"]


def test_a_terminal_adds_up_a_sites_seconds_and_names_its_validation_metric(tmp_path: Path) -> None:
    fits = [{**line(number, "va", "fit", metrics={"loss": 0.4}), "seconds": 1.5} for number in range(2)]
    score = {**line(1, "va", "validate", metrics={"loss": 0.3, "accuracy": 0.812}), "seconds": 0.25}
    shown = follow(written(tmp_path, *fits, score), terminal=True, sites=["va"])
    [row] = {text.strip() for text in shown.splitlines() if "va " in text and "validated" in text}
    assert row.split() == ["va", "validated", "0.400", "accuracy", "0.812", "3.2"]


def test_a_round_lasts_from_the_end_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 5.0, 7.5, 9.0])
    monkeypatch.setattr("flip.cli.display.time.monotonic", lambda: next(clock))
    fits = [line(number, "va", "fit", metrics={"loss": 0.4}) for number in range(2)]
    shown = follow(written(tmp_path, *fits), terminal=False, sites=["va"])
    assert [text.split()[-2:] for text in shown.splitlines()[1:]] == [["5.00", "s"], ["2.50", "s"]]


@pytest.mark.parametrize(("seconds", "text"), [(9.9, "0:09"), (605, "10:05"), (3725, "1:02:05"), (36_000, "10:00:00")])
def test_a_clock_has_minutes_and_from_an_hour_on_hours(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
