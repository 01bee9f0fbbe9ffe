"""The page and the terminal of a run under noise for privacy tell no number that no site sent, and no interval."""

import json
from pathlib import Path

import pytest

from flip.messages import Withheld
from flip.report.page import write
from flip.runs.record import RunRecord
from tests.cli.test_final import shown
from tests.report.fixture import write_run

PANEL = {
    "title": "The decision",
    "note": "At the study's threshold.",
    "method": "Intervals: Wilson.",
    "table": {
        "columns": ["", "examples", "share", "95 % interval"],
        "rows": [["sensitivity", "116 of 139", 0.835, "0.764 to 0.887"]],
    },
}


@pytest.fixture(params=[True, False], ids=["noised", "plain"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    held = {"test/pooled/loss": Withheld.PRIVACY.value} if request.param else {}
    folder = write_run(tmp_path / "run")
    result, cohort = folder / "result.json", folder / "cohort.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"withheld": held}))
    if request.param:
        counts = dict.fromkeys(("persons", "train", "validate", "test"), 0)
        sites = json.loads(cohort.read_text())
        cohort.write_text(json.dumps({site: {**about, **counts} for site, about in sites.items()}))
    (folder / "panels.json").write_text(json.dumps({"panels": [PANEL]}))
    return folder, request.param


def test_numbers_of_persons_that_no_site_sent_are_dashes(run: tuple[Path, bool]) -> None:
    folder, noised = run
    html = write(folder).read_text()
    assert "<td>0</td><td>0</td>" not in html
    assert ("n: test examples" in html) is not noised


def test_no_interval_stands_beside_a_count_with_noise(run: tuple[Path, bool]) -> None:
    folder, noised = run
    html = write(folder).read_text()
    assert "116 of 139" in html
    assert ("0.764 to 0.887" in html) is not noised
    assert ("Intervals: Wilson." in html) is not noised
    assert ("All counts have noise for privacy" in html) is noised


def test_the_terminal_has_no_empty_column_of_examples(run: tuple[Path, bool]) -> None:
    folder, noised = run
    assert RunRecord.read(folder).noised is noised
    assert ("n" in shown(folder).splitlines()[0].split()) is not noised
