"""What the terminal shows of a run that has ended."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from flip.cli.final import show
from flip.report.notices import PROTOCOL
from flip.report.verdict import Verdict
from flip.runs.record import RunRecord
from tests.report.fixture import write_run

ENDS = {"low": -0.04, "high": 0.05}


def shown(run: Path, *, terminal: bool = False) -> str:
    console = Console(width=80, force_terminal=terminal, color_system=None)
    with console.capture() as capture:
        show(RunRecord.read(run), console)
    return capture.get()


def with_intervals(run: Path) -> Path:
    metrics = dict(RunRecord.read(run).metrics)
    found = {f"{n}/{end}": v + by for n, v in metrics.items() if n.endswith("accuracy") for end, by in ENDS.items()}
    return write_run(run, result={"metrics": metrics | found, "monitor": "accuracy"})


@pytest.mark.parametrize("terminal", [False, True])
def test_the_final_table_holds_intervals_and_baselines_on_a_terminal_as_in_a_log(
    tmp_path: Path, terminal: bool
) -> None:
    run = with_intervals(write_run(tmp_path / "run"))
    lines = shown(run, terminal=terminal).splitlines()
    assert lines[0].split() == ["test", "accuracy", "n", "this", "run", "centralized", "alone"]
    assert "0.780 (.740\u2013.830)  0.790 (.750\u2013.840)" in lines[1]
    assert any(line.startswith("pooled") and "0.779 (.739\u2013.829)" in line for line in lines)
    assert max(map(len, lines[:6])) <= 80


def test_each_site_is_named_beside_the_scores_of_several_models(tmp_path: Path) -> None:
    models = [{"name": "heart_disease", "digest": digest * 64} for digest in "ab"]
    run = with_intervals(write_run(tmp_path / "run"))
    metrics = RunRecord.read(run).metrics
    metrics |= {f"baseline/model_2/{name}": value for name, value in metrics.items() if name.startswith("test/")}
    lines = shown(write_run(run, result={"metrics": metrics, "models": models})).splitlines()
    (cleveland,) = [line for line in lines if line.startswith("cleveland")]
    assert cleveland.count("0.780 (.740\u2013.830)") == 2
    heading = " ".join(lines[: lines.index(cleveland)])
    assert [heading.count(word) for word in ("model 1", "model 2", "a" * 12, "b" * 12, "\u2026")] == [1, 1, 1, 1, 0]


def test_a_site_that_refused_is_named_with_its_reason(tmp_path: Path) -> None:
    text = shown(write_run(tmp_path / "run", refused={"switzerland": "REFUSED_COHORT"}))
    assert "3 of 4 sites trained." in text
    assert "switzerland: refused by the site's policy" in text


def test_a_site_that_loses_much_of_its_data_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["va"]["skipped"] = {"no label": 1000}
    (run / "cohort.json").write_text(json.dumps(cohort))
    (line,) = [line for line in shown(run).splitlines() if "leaves out" in line]
    assert re.fullmatch(r"va leaves out \d\d% of its own\.", line)


@pytest.mark.parametrize("validation", [False, True])
def test_without_validation_nothing_is_said_of_convergence_but_that(tmp_path: Path, validation: bool) -> None:
    text = shown(write_run(tmp_path / "run", validation=validation))
    assert ("No validation scores: nothing tells whether the training had converged." in text) is not validation


def test_what_was_withheld_is_named_with_the_rule_and_who_withholds_it(tmp_path: Path) -> None:
    withheld = {"test/pooled/accuracy": "a count is too small (switzerland)"}
    run = write_run(tmp_path / "run", result={"withheld": withheld, "metrics": {"test/pooled/loss": 0.5}})
    assert "withheld: accuracy, pooled: a count is too small (switzerland)" in shown(run)


def test_a_run_without_federation_shows_its_own_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", backend="none", baselines=False)
    lines = shown(run).splitlines()
    assert lines[0].split() == ["test", "accuracy", "n", "centralized"]
    assert [line.split()[0] for line in lines if "\u2013\n" in line + "\n"] == []
    (model,) = Verdict(RunRecord.read(run)).models
    assert (model.name, model.value) == ("centralized", RunRecord.read(run).tested("accuracy", None))


def test_a_number_of_rows_that_no_site_scales_so_says_what_it_is(tmp_path: Path) -> None:
    metrics = {"test/pooled/accuracy": 0.705, "test/rescaled/pooled/accuracy": 0.748}
    assert "by the benchmark's protocol 0.748" in shown(write_run(tmp_path / "run", result={"metrics": metrics}))
    assert "protocol" not in shown(write_run(tmp_path / "other"))


def test_a_run_that_failed_before_its_test_shows_no_table(tmp_path: Path) -> None:
    assert "pooled" not in shown(write_run(tmp_path / "run", result={"status": "failed", "metrics": {}}))


def test_each_column_of_a_site_holds_its_own_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    record = RunRecord.read(run)
    for site in record.sites:
        [line] = [text for text in shown(run).splitlines() if text.startswith(f"{site} ")]
        values = [
            record.tested("accuracy", site, each) for each in ("", "baseline/centralized/", f"baseline/alone/{site}/")
        ]
        assert line.split() == [site, f"{record.examples(site, 'test'):,}", *(f"{value:.3f}" for value in values)]


def test_a_number_that_is_withheld_is_called_so_in_its_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    metrics = {name: value for name, value in RunRecord.read(run).metrics.items() if name != "test/site/va/accuracy"}
    run = write_run(run, result={"metrics": metrics, "withheld": {"test/site/va/accuracy": "a count is too small"}})
    [line] = [text for text in shown(run).splitlines() if text.startswith("va ")]
    assert line.split()[2] == "withheld"


def test_of_many_numbers_that_are_withheld_six_are_named(tmp_path: Path) -> None:
    withheld = {f"test/pooled/m{number}": "a count is too small" for number in range(8)}
    text = shown(write_run(tmp_path / "run", result={"withheld": withheld, "metrics": {"test/pooled/loss": 0.5}}))
    [line] = [line for line in text.splitlines() if line.startswith("withheld: ")]
    assert line.count(", pooled") == 6
    assert "; and 2 more: a count is too small" in line


def test_what_the_verdict_says_of_others_is_printed_and_its_models_are_not(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    verdict, lines = Verdict(RunRecord.read(run)), shown(run).splitlines()
    assert verdict.differences
    assert [text for text in lines if text.startswith("against ")] == [
        f"against {gap.against}: {gap.words}" for gap in verdict.differences
    ]
    for model in verdict.models:
        assert not [text for text in lines if text.startswith(f"{model.name} {model.value:.3f}")]
    assert {*verdict.better_alone, *verdict.losses} <= {*lines}


def test_a_site_that_is_better_alone_and_what_a_protocol_means_are_printed(tmp_path: Path) -> None:
    alone = {"baseline/alone/va/test/pooled/accuracy": 0.8, "baseline/alone/cleveland/test/pooled/accuracy": 0.7}
    metrics = {"test/pooled/accuracy": 0.75, "test/rescaled/pooled/accuracy": 0.76, **alone}
    lines = shown(write_run(tmp_path / "run", result={"metrics": metrics})).splitlines()
    better = "va alone is better by 0.050 on the test data of all sites"
    assert [text for text in lines if "alone is better" in text] == [better]
    assert PROTOCOL in lines
