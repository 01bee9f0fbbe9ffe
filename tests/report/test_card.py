"""The model card of a run: one content as HTML and as Markdown, made from the run folder alone."""

import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from flip.__main__ import main
from flip.cli.final import table
from flip.report import card
from flip.report.card_page import DISCLAIMER, write
from flip.report.compare import compare_table
from flip.report.model_details import AUTHORS, TITLE
from flip.report.page import write as report
from flip.runs.record import RunRecord
from tests.report.fixture import Page, write_json, write_run
from tests.test_layout import ROOT

HEADINGS = [
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The Markdown, and the text of the page, of a private run that lost a site and was refused by another."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = write_run(folder, epsilon=3.1, refused={"va": "REFUSED_COHORT"}, faults={("switzerland", 11): "RAISED"})
    page, markdown = write(run, run)
    return markdown.read_text(), Page(page.read_text()).text


def test_it_has_the_headings_of_model_cards_in_their_order(texts: tuple[str, str]) -> None:
    assert re.findall(r"^## (.+)$", texts[0], re.MULTILINE) == HEADINGS
    assert [texts[1].index(heading) for heading in HEADINGS] == sorted(texts[1].index(h) for h in HEADINGS)


def test_both_say_first_that_it_is_no_medical_device(texts: tuple[str, str]) -> None:
    for text in texts:
        assert text.index(DISCLAIMER) < text.index(HEADINGS[0])


@pytest.mark.parametrize(
    "told",
    [
        "2a7ac3f09b11e2d45a" + "2a7ac3f09b11e2d45a"[:2],  # the digest, whole
        "flip-engine 0.1.0",
        "models.tabular.LogisticRegression",
        "accuracy",
        "0.779",  # pooled
        "person",  # unit of privacy
        "3.100",  # epsilon
        "1e\u22125",
        "no privacy claim",  # of a simulation
        "a declared feature is missing",
        "va: refused",
        "switzerland: failed in 1 of 15 rounds",
        "Worst site: hungarian",
        "FLIP contributors",
    ],
)
def test_it_tells(texts: tuple[str, str], told: str) -> None:
    for text in texts:
        assert told in text


def test_a_run_without_a_mechanism_is_said_to_have_none(tmp_path: Path) -> None:
    _, markdown = write(write_run(tmp_path / "run"), tmp_path)
    assert "No privacy mechanism" in markdown.read_text()


def test_data_of_one_place_are_not_said_to_have_stayed_at_the_sites(tmp_path: Path) -> None:
    _, markdown = write(write_run(tmp_path / "run", backend="none"), tmp_path)
    assert "left a site" not in markdown.read_text()


def test_results_have_their_intervals_by_site_and_by_subgroup(tmp_path: Path) -> None:
    metrics = {
        "test/pooled/accuracy": 0.8, "test/pooled/accuracy/low": 0.71, "test/pooled/accuracy/high": 0.88,
        "test/site/va/accuracy": 0.6, "test/site/va/accuracy/low": 0.44, "test/site/va/accuracy/high": 0.74,
        "test/pooled/sex/F/accuracy": 0.62, "test/pooled/sex/F/accuracy/low": 0.5,
        "test/pooled/sex/F/accuracy/high": 0.73, "test/pooled/sex/M/accuracy": 0.83,
    }  # fmt: skip
    said = write(write_run(tmp_path / "run", result={"metrics": metrics}), tmp_path)[1].read_text()
    assert "0.600 (0.440 to 0.740)" in said
    assert "0.620 (0.500 to 0.730)" in said
    assert "By sex" in said


def test_calibration_is_told_in_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = {"columns": ["predicted", "observed"], "rows": [[0.1571, 0.21], [0.84, 0.93]]}
    line = {"name": "bins", "x": [0.15, 0.84], "y": [0.21, 0.93]}
    plot = {"title": "Calibration", "x": "predicted", "y": "observed", "unit": True, "lines": [line]}
    write_json(run / "panels.json", {"panels": [{"title": "Calibration", "plots": [plot], "table": table}]})
    page, markdown = write(run, tmp_path)
    assert "| 0.157 | 0.210 |" in markdown.read_text()
    assert "<svg" in page.read_text()


def test_metrics_of_one_kind_of_interval_are_told_together_and_what_was_read_stands_by_site(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", result={"intervals": {"accuracy": "Wilson", "auroc": "Wilson"}})
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["va"]["remarks"] = {"structures of the study that a site does not label": 1}
    write_json(run / "cohort.json", cohort)
    said = write(run, tmp_path)[1].read_text()
    assert "95 % intervals, Wilson: accuracy, auroc." in said
    assert "| structures of the study that a site does not label | - | - | - | 1 | 1 |" in said.replace("\u2013", "-")


HOSTILE = "a|b <script>x</script> [l](http://e) *b*\n# h `c` \u202e"


def test_texts_of_others_stay_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["va"]["skipped"] = {HOSTILE: 3}
    write_json(run / "cohort.json", cohort)
    page, markdown = (path.read_text() for path in write(run, tmp_path))
    assert "<script>" not in page + markdown
    assert not re.search(r"(?<!\\)\]\(", markdown) and "\n# h" not in markdown and "\u202e" not in page + markdown
    row = next(line for line in markdown.splitlines() if "script" in line)
    head = next(line for line in markdown.splitlines() if line.startswith("| reason"))
    assert row.replace("\\|", "").count("|") == head.count("|")


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    first = [path.read_bytes() for path in write(run, tmp_path)]
    assert [path.read_bytes() for path in write(run, tmp_path)] == first


def test_no_place_of_the_machine_is_in_it(tmp_path: Path) -> None:
    for path in write(write_run(tmp_path / "run"), tmp_path):
        assert "/srv/coordinator" not in path.read_text() and str(tmp_path) not in path.read_text()


def test_a_run_without_a_model_has_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", result={"status": "failed", "digest": "", "reason": "too few sites"})
    assert main(["card", str(run)]) == 2
    assert "trained no model" in capsys.readouterr().err
    assert not (run / card.MARKDOWN).exists()


def test_the_command_writes_both_into_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main(["card", str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(run / "model_card.html"), str(run / "model_card.md")]
    assert (run / "model_card.html").is_file() and (run / "model_card.md").is_file()


def test_it_cites_the_engine_as_its_citation_file_says() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (said["title"], said["authors"][0]["name"]) == (TITLE, AUTHORS)


def test_a_metric_with_a_unit_is_shown_with_it_on_card_page_terminal_and_comparison(tmp_path: Path) -> None:
    metrics = {f"test/{at}/{name}": 2.5 for at in ("pooled", "site/va") for name in ("hd95_liver", "error_mm")}
    result = {"monitor": "hd95_liver", "metrics": metrics, "units": {"hd95_liver": "mm", "error_mm": "mm"}}
    run = write_run(tmp_path / "run", baselines=False, result=result)
    page, markdown = (path.read_text() for path in write(run, tmp_path))
    printed = []
    for shown in (table(RunRecord.read(run)), compare_table([run, run])):
        console = Console(width=120, color_system=None)
        with console.capture() as terminal:
            console.print(shown)
        printed.append(" ".join(terminal.get().split()))
    for text in (page, markdown, report(run).read_text(), *printed):
        assert "hd95_liver (mm)" in text
        assert "error_mm (mm)" not in text
    assert "| hd95_liver (mm) |" in markdown
