"""The matrix of where a model was trained and tested is darkest where the metric is best, whichever way that is."""

import json
import math
from pathlib import Path

import pytest

from flip.messages import Withheld
from flip.report.format import breakable, crowded
from flip.report.page import write
from flip.report.tables import matrix
from flip.runs.record import RunRecord
from tests.report.fixture import write_run


@pytest.fixture(params=[True, False], ids=["higher is better", "lower is better"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunRecord:
    folder = write_run(tmp_path / "run")
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"higher_is_better": request.param}))
    return RunRecord.read(folder)


def test_the_best_is_darkest_and_the_worst_palest(run: RunRecord) -> None:
    found = matrix(run)
    assert found is not None
    cells = [cell for _, row in found["rows"] for cell in row if math.isfinite(cell[0])]
    assert run.main is not None
    values = [value for value, *_ in cells]
    low, high = min(values), max(values)
    best, worst = (high, low) if run.higher_is_better(run.main) else (low, high)
    shades = {value: shade for value, shade, _ in cells}
    assert (shades[best], shades[worst]) == (62, 4)
    for value, shade, _ in cells:
        assert shade == round(4 + 58 * (value - worst) / (best - worst))


def test_the_page_shades_each_cell_by_its_own_value(run: RunRecord, tmp_path: Path) -> None:
    write(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    found = matrix(run)
    assert found is not None
    for _, row in found["rows"]:
        for value, shade, own in row:
            mark = ' class="own"' if own else ""
            assert f'<td style="--p: {shade}"{mark}>{value:.3f}</td>' in page


def test_a_value_that_is_not_known_has_no_shade(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "result.json"
    result = json.loads(path.read_text())
    name = next(each for each in result["metrics"] if each.startswith("baseline/alone/va/test/site/cleveland/"))
    result["metrics"] = {key: each for key, each in result["metrics"].items() if key != name}
    path.write_text(json.dumps(result))
    found = matrix(RunRecord.read(folder))
    assert found is not None
    assert [cell for _, row in found["rows"] for cell in row if not math.isfinite(cell[0])] == [
        (pytest.approx(math.nan, nan_ok=True), 0, False)
    ]


def test_a_run_whose_main_metric_is_withheld_everywhere_has_a_page_without_a_matrix(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "result.json"
    result = json.loads(path.read_text())
    hidden = {"monitor": "auroc_binned", "withheld": {"test/pooled/auroc_binned": Withheld.CELL.value}}
    path.write_text(json.dumps(result | hidden))
    assert "Trained here, tested there" not in write(folder).read_text()


LONG = "hungarian_institute_of_cardiology_budapest"


def test_a_long_name_is_whole_and_is_parted_at_its_words(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml"):
            path.write_text(path.read_text().replace("hungarian", LONG))
    page = write(folder).read_text()
    assert f"<th>{LONG.replace('_', '_<wbr>')}</th>" in page and f"<td>{LONG.replace('_', '_<wbr>')} alone</td>" in page


@pytest.mark.parametrize(("sites", "upright"), [(["a"] * 5, False), ([LONG] * 5, False), ([LONG] * 8, True)])
def test_names_stand_upright_where_they_would_go_beyond_the_page(sites: list[str], upright: bool) -> None:
    assert crowded([*sites, None], [(f"{name} alone", []) for name in sites]) is upright


def test_what_is_parted_is_escaped() -> None:
    assert str(breakable("<b>_x")) == "&lt;b&gt;_<wbr>x"
