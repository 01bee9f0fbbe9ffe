"""What a site's database lacks reaches its log, job=check and the report, as a count by reason."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.remarks import NO_TABLE, OTHER_UNIT, Remark, counted
from flip.cli.execute import execute
from flip.messages.summary import EVERYBODY
from flip.site.persons import Persons
from flip.site.remarks import remarks
from tests.cohorts.icu_outcome import icu_outcome
from tests.studies import compose_study


def study(folder: Path, *more: str):
    return compose_study("experiment=icu_outcome", *icu_outcome(folder), *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "reason"),
    [("job=check", NO_TABLE), ("federation=inprocess", OTHER_UNIT)],
)
def test_what_a_database_lacks_is_counted_by_reason(way, reason, tmp_path, capsys):
    made = study(tmp_path / "data", way)
    measured = tmp_path / "data" / "icu" / "MEASUREMENT.csv"
    if reason == NO_TABLE:
        measured.unlink()
    else:
        table = pd.read_csv(measured)
        table.loc[table["measurement_concept_id"] == 3016723, "unit_concept_id"] = 4  # creatinine, in nobody's unit
        table.to_csv(measured, index=False)
    result = execute(made, tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    cohort = json.loads((tmp_path / "run" / "cohort.json").read_text())
    for site in ("unit_0", "unit_1"):
        rows = sum(cohort[site][split] for split in ("train", "validate", "test"))
        assert cohort[site]["remarks"] == {reason: rows * (5 if reason == NO_TABLE else 1)}
        words = (tmp_path / "run" / "sites" / site / "site.log").read_text()
        said = "the database has no table measurement" if reason == NO_TABLE else "feature creatinine:"
        assert said in words and f": {rows} examples" in words
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What was read" in page
    if way == "job=check":
        assert " ".join(reason.split()[:4]) in " ".join(capsys.readouterr().out.split())
    assert "of unit 4" not in page and "has no table measurement" not in page


class Data:
    """A dataset with one remark."""

    REMARKS = frozenset({OTHER_UNIT})

    def __init__(self, remark: str, persons: int) -> None:
        self.remarks, self.remarks_persons = {remark: 2 * persons}, {remark: persons}


@pytest.mark.parametrize(("persons", "told"), [(4, {}), (5, {OTHER_UNIT: 10}), (55, {OTHER_UNIT: 110}), (56, {})])
def test_a_number_of_few_persons_or_of_all_but_few_stays_at_the_site(persons, told):
    splits = [Persons.of(np.arange(60))]
    found = remarks(60, Data(OTHER_UNIT, persons), 5, splits=splits)
    assert {remark: int(summary.values[0]) for remark, summary in found.items()} == told
    assert remarks(60, Data("a remark of its own", 30), 5, splits=splits) == {}
    assert remarks(60, Data(OTHER_UNIT, 60), 5, splits=splits)[EVERYBODY + OTHER_UNIT].persons == 60


def test_rows_that_two_remarks_share_count_as_values_twice_and_as_persons_once():
    both = [Remark(OTHER_UNIT, words, np.array(rows, bool)) for words, rows in (("a", [1, 1, 0]), ("b", [1, 0, 0]))]
    person = np.array([0, 1, 1])
    assert counted(both, person) == ({OTHER_UNIT: 3}, {OTHER_UNIT: 2}, ["a: 2 examples", "b: 1 examples"])
