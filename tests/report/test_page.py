"""The report of a run: one file without network, made from the run folder alone."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from flip.__main__ import main
from flip.report import page as report
from flip.runs.record import RunRecord
from tests.report.fixture import SITES, Page, line, write_json, write_run

FAULTS = {("va", 6): "TIMEOUT", ("va", 7): "TIMEOUT", ("switzerland", 11): "RAISED"}


def page(run: Path) -> Page:
    return Page(report.write(run).read_text())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federated run with baselines, faults, a round that left a site out, and its report."""
    run = write_run(tmp_path_factory.mktemp("runs") / "full", faults=FAULTS, unasked=[("hungarian", 3)])
    report.write(run)
    return run


def test_nothing_is_loaded_from_elsewhere(full: Path) -> None:
    html = (full / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", html)
    assert not re.search(r"url\(\s*[\"']?(?!#)", html)
    assert not {tag for tag, _ in Page(html).elements} & {"script", "link", "iframe", "img", "object"}


def test_the_same_folder_gives_the_same_bytes(full: Path) -> None:
    first = (full / "report.html").read_bytes()
    assert report.write(full).read_bytes() == first


def test_every_id_is_unique(full: Path) -> None:
    ids = [about["id"] for _, about in page(full).elements if "id" in about]
    assert len(ids) == len(set(ids))


def test_no_part_of_a_file_is_left_behind(full: Path) -> None:
    assert [path.name for path in full.iterdir() if path.name.endswith(".part")] == []


def test_the_headline_names_study_result_and_worst_site(full: Path) -> None:
    text = page(full).text
    assert "heart_disease ok simulated federation FedAvg, federation=inprocess, 15 rounds, 4 sites, seed 42" in text
    assert "Test accuracy, pooled over the sites that train" in text
    assert "this run 0.779" in text
    assert "Worst site: va, 0.675, without an interval, 45 test examples." in text
    assert "2a7ac3f09b11" in text


def test_the_worst_site_of_an_error_is_the_highest(tmp_path: Path) -> None:
    metrics = {"test/pooled/index_mae": 2.0, "test/site/cleveland/index_mae": 1.0, "test/site/va/index_mae": 4.0}
    assert (
        "Worst site: va, 4.000, without an interval, 45 test examples."
        in page(write_run(tmp_path / "run", result={"metrics": metrics})).text
    )


def test_the_study_itself_names_the_main_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", result={"monitor": "auroc", "higher_is_better": True})
    assert "this run 0.851" in page(run).text


def test_a_site_stands_with_its_cohort_its_metrics_and_its_gaps(full: Path) -> None:
    assert re.search(r"cleveland 303 199 0 104 0\.780 0\.860 0\.450 \u22120\.010 \+0\.\d{3}", page(full).text)


SCORED = {
    "intervals": {"auroc": "percentile bootstrap", "auroc_binned": "DeLong, from bins"},
    "monitor": "auroc_binned",
    "metrics": {
        "test/pooled/auroc_binned": 0.851,
        "test/pooled/auroc_binned/low": 0.803, "test/pooled/auroc_binned/high": 0.899,
        "test/pooled/threshold": 0.317, "test/site/va/auroc": 0.812, "test/site/va/auroc_binned": 0.815,
        "test/pooled/sex/female/auroc_binned": 0.791, "test/pooled/sex/male/auroc_binned": 0.873,
        "test/pooled/sex/male/auroc_binned/low": 0.822, "test/pooled/sex/male/auroc_binned/high": 0.918,
        "test/pooled/sex/gap/auroc_binned": 0.082, "test/site/va/sex/male/auroc_binned": 0.744,
    },
}  # fmt: skip


def test_an_interval_stands_under_its_value_with_its_method(tmp_path: Path) -> None:
    text = page(write_run(tmp_path, result=SCORED)).text
    assert "0.851 0.803 to 0.899" in text
    assert "auroc: percentile bootstrap" in text
    assert "auroc_binned: DeLong, from bins" in text


def test_subgroups_stand_in_a_table_of_their_own_with_the_gap_named(tmp_path: Path) -> None:
    text = page(write_run(tmp_path, result=SCORED)).text
    assert "By sex" in text
    assert "auroc_binned, pooled 0.791 0.873 0.822 to 0.918 0.082 male above female" in text
    assert "auroc_binned, va \u2013 0.744" in text
    assert RunRecord.read(tmp_path).metric_names == ["auroc_binned", "auroc"]


def test_the_threshold_is_told_and_no_metric(tmp_path: Path) -> None:
    assert "from a probability of 0.317 on" in page(write_run(tmp_path, result=SCORED)).text


def test_without_baselines_no_gap_and_no_matrix_is_shown(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", baselines=False)).text
    assert "against" not in text
    assert "Trained here, tested there" not in text


def test_the_matrix_holds_every_pair_of_sites(full: Path) -> None:
    run = RunRecord.read(full)
    text = page(full).text.split("Trained here, tested there")[1]
    for trained in SITES:
        row = " ".join(f"{run.tested('accuracy', at, f'baseline/alone/{trained}/'):.3f}" for at in SITES)
        assert f"{trained} alone {row}" in text


def test_who_took_part_is_told_round_by_round(full: Path) -> None:
    titles = re.findall(r"<title>(.*?)</title>", (full / "report.html").read_text())
    assert "va, round 7: fault" in titles
    assert "hungarian, round 4: not asked" in titles
    assert sum(title.endswith(": took part") for title in titles) == 4 * 15 - 4


def test_a_fault_is_told_in_words(full: Path) -> None:
    assert "va rounds 7\u20138 the site did not answer within federation.timeout" in page(full).text


@pytest.mark.parametrize(("phase", "when"), [("validate", "round 3, validation"), ("test", "final test")])
def test_a_site_that_was_not_there_to_score_is_named(phase: str, when: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(line(2, "va", phase, fault="LOST")) + "\n")
    assert f"va {when} the site was lost before it answered" in page(run).text


def test_a_refusal_is_told_with_its_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", refused={"switzerland": "REFUSED_COHORT"})
    assert "switzerland before round 1 refused by the site's policy: fewer distinct persons" in page(run).text


def test_a_site_that_refused_has_dashes_for_what_it_did_not_say(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", refused={"switzerland": "REFUSED_COHORT"})
    assert "switzerland \u2013 \u2013 \u2013 \u2013 " in page(run).text


def test_skipped_studies_are_counted_by_reason_and_site(full: Path) -> None:
    text = page(full).text
    assert "a declared feature is missing \u2013 7 \u2013 7 14" in text


def test_bytes_and_seconds_are_added_up_by_site(full: Path) -> None:
    records = [r for r in RunRecord.read(full).records if r["site"] == "cleveland"]
    total = sum(r["bytes_down"] for r in records)
    assert report.size(total) in page(full).text.split("Time and traffic")[1]


def test_privacy_spent_is_shown_and_a_simulation_claims_none(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", epsilon=3.1)).text
    assert "simulated federation: no privacy claim" in text
    assert "cleveland 3.100 1e\u22125" in text


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_a_run_without_success_says_why(tmp_path: Path, status: str) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"status": status, "reason": "too few sites in round 2"}))
    assert "too few sites in round 2" in page(tmp_path).text


def test_a_run_without_federation_shows_epochs_and_no_participation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", backend="none", baselines=False)
    epochs = [line(n, "pooled", "fit", examples=486, metrics={"loss": 0.6 - n / 20, "accuracy": 0.7}) for n in range(5)]
    (run / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))
    text = page(run).text
    assert "trained without federation" in text
    assert "validation accuracy" in text
    assert "Who took part" not in text


def test_a_line_cut_off_when_the_run_was_killed_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=3)
    with (run / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "si')
    assert len(RunRecord.read(run).records) == len((run / "rounds.jsonl").read_text().splitlines()) - 1


def test_names_and_reasons_are_shown_and_never_run(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    sites = {evil: (10, 5, 5), "$a_b$ & co": (10, 5, 5), "plain": (9, 5, 4)}
    run = write_run(tmp_path / "run", sites=sites, result={"reason": evil, "status": "failed"})
    shown = page(run)
    assert "script" not in {tag for tag, _ in shown.elements}
    assert evil in shown.text
    assert "$a_b$ & co" in shown.text


def test_no_folder_of_the_machine_is_shown(full: Path) -> None:
    html = (full / "report.html").read_text()
    assert "/srv/coordinator" not in html
    assert "batch_size: 4" in html


class Outcomes:
    """A study's own outcomes, as its YAML would name them."""

    def panels(self, by_site: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
        """A figure and a table."""
        figure = Figure(figsize=(4, 2))
        figure.subplots().plot(next(iter(by_site.values()))["count/muscle"])
        table = {
            "columns": ["site", "persons"],
            "rows": [[site, found["count/muscle"][0]] for site, found in by_site.items()],
        }
        return [
            {"title": "Muscle", "note": "cm2", "figure": figure},
            {"title": "Prevalence", "note": "", "table": table},
        ]


@pytest.fixture
def outcomes_run(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", rounds=2)
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(text.replace("outcomes: null", "outcomes: {_target_: models.muscle.Outcomes}"))
    write_json(run / "outcomes.json", {"va": {"count/muscle": {"kind": "count", "values": [12, 3], "persons": 15}}})
    return run


def instantiating(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    """Let `flip.config.build.instantiate` make `made`; what it allows is the matter of its own tests."""
    stub = ModuleType("flip.config.build")
    stub.instantiate = lambda config: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flip.config.build", stub)


def test_the_studys_own_panels_are_drawn(outcomes_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instantiating(monkeypatch, Outcomes())
    text = page(outcomes_run).text
    assert "Muscle cm2" in text
    assert "Prevalence site persons va 12" in text


def test_a_mistake_in_a_panel_costs_that_panel_alone(outcomes_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instantiating(monkeypatch, object())
    text = page(outcomes_run).text
    assert "models.muscle.Outcomes could not draw its panels: AttributeError" in text
    assert "Time and traffic" in text


def test_the_command_prints_the_path_of_the_report(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(full)]) == 0
    assert capsys.readouterr().out.strip() == str(full / "report.html")


@pytest.mark.parametrize(("make", "why"), [(False, "no such run folder"), (True, "no result.json")])
def test_a_folder_that_is_no_run_is_a_mistake_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: bool, why: str
) -> None:
    folder = tmp_path / "other"
    if make:
        folder.mkdir()
    assert main(["report", str(folder)]) == 2
    message = capsys.readouterr().err.strip()
    assert why in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cohort.json", "{", "line 1 is no JSON"),
        ("cohort.json", '{"va": 3}', "it does not hold what a run writes there"),
        ("cohort.json", "", "it is empty"),
        ("result.json", "", "it is empty"),
        ("result.json", "[]", "it does not hold what a run writes there"),
        ("provenance.json", "{}", "it does not hold what a run writes there"),
        ("provenance.json", "\udcff", "it is no text"),
        ("run.yaml", "a: [", "it cannot be read as YAML"),
        ("run.yaml", "- a", "it holds no settings"),
        ("rounds.jsonl", '{"round": 0, "site": "va", "phase": "fit"}\n{"round": 1,\n', "line 2 is no JSON"),
        ("rounds.jsonl", "3\n", "line 1 is of no phase, round and site"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    (run / name).write_bytes(content.encode(errors="surrogateescape"))
    assert main(["report", str(run)]) == 2
    message = capsys.readouterr().err.strip()
    assert f"{run / name}: is damaged, {said}" in message
    assert "\n" not in message
