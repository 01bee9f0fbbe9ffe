"""What is predicted: its arrays, and why a row has none."""

import numpy as np
import pandas as pd
import pytest

from datamodules.targets import NO_TARGET, NO_TIME, UNDECLARED, Bands, Binary, Levels, MultiClass, MultiLabel, Survival

TABLE = pd.DataFrame(
    {"dx": ["MEL", "NEV", None, "XYZ"], "a": [1, 0, None, 1], "b": [0, 1, None, None], "age": [30, 40, None, 81],
     "days": ["10", "0", "x5", None], "died": [2, 1, 2, 1]}, dtype=object,
)  # fmt: skip


def test_binary_is_one_for_the_positive_levels():
    arrays, reasons = Binary("dx", ["MEL"]).read(TABLE)
    assert arrays["label"].tolist() == [1, 0, 0, 0]
    assert reasons.tolist() == [None, None, NO_TARGET, None]


def test_a_class_is_the_number_of_its_declared_level():
    arrays, reasons = MultiClass("dx", ["NEV", "MEL"]).read(TABLE)
    assert arrays["label"][:2].tolist() == [1, 0]
    assert reasons.tolist() == [None, None, NO_TARGET, UNDECLARED]


def test_a_label_among_several_may_be_unknown():
    arrays, reasons = MultiLabel(["a", "b"]).read(TABLE)
    assert np.array_equal(arrays["label"], [[1, 0], [0, 1], [np.nan] * 2, [1, np.nan]], equal_nan=True)
    assert reasons.tolist() == [None, None, NO_TARGET, None]


def test_survival_needs_a_time_above_zero():
    table = TABLE.assign(days=["10", "0", "5", None])
    arrays, reasons = Survival("days", "died", positive=[2]).read(table)
    assert arrays["time"][[0, 2]].tolist() == [10, 5] and arrays["event"].tolist() == [1, 0, 1, 0]
    assert reasons.tolist() == [None, NO_TIME, None, NO_TARGET]


def test_a_time_that_is_text_names_its_column():
    with pytest.raises(ValueError, match="column days holds text"):
        Survival("days", "died").read(TABLE)


def test_subgroups_by_level_and_by_band():
    assert Levels("dx", ["MEL", "NEV"]).read(TABLE).tolist() == [0, 1, -1, -1]
    bands = Bands("age", [40, 80])
    assert bands.read(TABLE).tolist() == [0, 1, -1, 2] and bands.names == ["below 40", "40 to 80", "80 or more"]


def test_bands_grow():
    with pytest.raises(ValueError, match="edges of bands"):
        Bands("age", [60, 40])
