"""Numbers scaled by declared ranges: what a row becomes depends on no other row, and nothing of the rows is agreed."""

import numpy as np
import pandas as pd
import pytest

from datamodules.cohort_table import CohortTable
from datamodules.harmonize import ComBat
from datamodules.ranges import OUT_OF_RANGE
from datamodules.tabular import Tabular
from tests.datamodules.test_cohort_table import rows, table, whole, write

RANGES = {"age": [20, 100], "weight": [40, 120]}


def declared(**arguments) -> Tabular:
    return Tabular(["age", "weight"], {"sex": ["F", "M"]}, scaling="declared", ranges=RANGES, **arguments)


def encoded(part: Tabular, frame: pd.DataFrame) -> np.ndarray:
    read = part.read(frame)
    part.agree(part.statistics(read, np.arange(len(read)))[0])
    return part.encode(read, np.ones(len(read), bool))["tabular"]


def persons(*ages: float | None) -> pd.DataFrame:
    sexes = ["F", None, "M"] * len(ages)
    return pd.DataFrame(
        {"age": ages, "weight": [80.0 + index for index in range(len(ages))], "sex": sexes[: len(ages)]}
    )


def test_ends_of_a_range_are_two_deviations_from_its_middle_where_a_missing_value_lies():
    found = encoded(declared(), persons(20, 100, 60, 40, None))
    assert found[:, 0].tolist() == [-2, 2, 0, -1, 0]


def test_a_value_outside_counts_as_the_nearest_end_and_is_remarked():
    part, frame = declared(), persons(150, 60, 3)
    assert encoded(part, frame)[:, 0].tolist() == [2, 0, -2]
    (remark,) = part.remarks(frame)
    assert remark.reason == OUT_OF_RANGE and remark.rows.tolist() == [True, False, True]


@pytest.mark.parametrize("added", [[1e9], [None, 20, 20, 20], [60] * 50])
def test_persons_who_are_added_change_the_row_of_nobody_else(added):
    frame = persons(25, 50, 75, None, 33, 61)
    alone = encoded(declared(), frame)
    beside = encoded(declared(), pd.concat([persons(*added), frame], ignore_index=True))
    assert beside[len(added) :].tolist() == alone.tolist()


def test_a_missing_category_becomes_each_of_its_levels_as_often():
    frame = persons(*np.linspace(20, 100, 600)).assign(sex=None)
    found = encoded(declared(), frame)[:, 2:]
    assert (found.sum(axis=1) == 1).all() and found[:, 0].mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numeric": ["age", "height"]}, "dataset.tabular.ranges: has no range of height"),
        ({"ranges": {"age": [90, 18]}}, r"dataset.tabular.ranges.age=\[90, 18\]: must be"),
        ({"ranges": {"age": [18]}}, r"dataset.tabular.ranges.age=\[18\]: must be"),
        ({"categorical": {"region": 14}}, "dataset.tabular.categorical.region: list its levels"),
        ({"numeric": ["age", "weight"], "harmonize": ComBat(["age", "weight"])}, "dataset.tabular.harmonize"),
        ({"scaling": "ranges"}, "dataset.tabular.scaling=ranges: must be one of agreed, declared"),
    ],
)
def test_a_declaration_that_does_not_fit_is_named_by_its_key(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tabular(**{"numeric": ["age"], "scaling": "declared", "ranges": RANGES, **arguments})


def test_the_rows_of_a_cohort_table_depend_on_no_other_row(tmp_path):
    listed = rows()
    moved = [["x", 1e9, 1, 0], *listed]
    found = []
    for name, lines in (("a", listed), ("b", moved)):
        data = scaled_table(write(tmp_path / f"{name}.csv", lines))
        batches = [whole(each)["features"].numpy() for each in (data.train_dataloader(), data.test_dataloader())]
        found.append(np.concatenate(batches))
        assert data.remarks == ({OUT_OF_RANGE: 1} if name == "b" else {})
    kept, extreme = {tuple(row) for row in found[0].tolist()}, [2.0, 0.0, 0.0]
    assert [row for row in found[1].tolist() if tuple(row) not in kept] == [extreme]


def test_a_cohort_table_with_ranges_has_one_scaling_alone(tmp_path):
    data = scaled_table(write(tmp_path / "c.csv", rows()))
    own, pooled = (np.sort(whole(each)["features"].numpy(), axis=0) for each in (
        data.train_dataloader(), data.pooled_train_dataloader()
    ))  # fmt: skip
    assert own.tolist() == pooled.tolist() and not data.pooled_test_dataloader()
    assert data.fitted == {} and table(tmp_path / "c.csv").fitted.keys() == {"dataset.scaling"}


def scaled_table(path) -> CohortTable:
    return table(path, scaling="declared", ranges={"age": [20, 100]})
