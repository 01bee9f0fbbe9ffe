"""What is predicted: its arrays, and why a row has none."""

import numpy as np
import pandas as pd
import pytest

from datamodules.targets import (
    NO_TARGET,
    NO_TIME,
    UNDECLARED,
    Bands,
    Binary,
    Levels,
    MultiClass,
    MultiLabel,
    Regression,
    Survival,
)
from datamodules.yes_no import YesNo, undeclared_levels

TABLE = pd.DataFrame(
    {"dx": ["MEL", "NEV", None, "XYZ"], "a": [1, 0, None, 1], "b": [0, 1, None, None], "age": [30, 40, None, 81],
     "days": ["10", "0", "x5", None], "died": [2, 1, 2, 1]}, dtype=object,
)  # fmt: skip


def test_binary_is_one_for_the_positive_levels_and_zero_for_the_negative_ones():
    arrays, reasons = Binary("dx", ["MEL"], ["NEV"]).read(TABLE)
    assert arrays["label"].tolist() == [1, 0, 0, 0]
    assert reasons.tolist() == [None, None, NO_TARGET, UNDECLARED]


NINE = pd.DataFrame({"x": [1, 0, 9, None], "y": [0, 1, 1, None], "days": [5, 6, 7, 8]}, dtype=object)


@pytest.mark.parametrize(
    "target",
    [Binary("x", [1]), Survival("days", "x"), MultiLabel(["y", "x"]), MultiClass("x", [0, 1])],
    ids=lambda target: type(target).__name__,
)
def test_a_code_that_is_not_declared_is_no_label(target):
    assert target.read(NINE)[1].tolist() == [None, None, UNDECLARED, NO_TARGET]


def test_an_undeclared_level_is_named_for_the_sites_own_log():
    table = pd.DataFrame({"x": [1, 0, 9, 9.0, "lost", None], "t": [1, 2, 3, 4, 5, 6]}, dtype=object)
    for target in (Binary("x", [1]), MultiClass("x", [0, 1]), Survival("t", "x"), MultiLabel(["x"])):
        nine, lost = undeclared_levels(target.declared, table)
        assert nine.startswith("column x has 2 rows of level '9', which dataset.target does not declare")
        assert lost.startswith("column x has 1 row of level 'lost'")
    assert undeclared_levels(Regression("t").declared, table) == []


@pytest.mark.parametrize(
    ("positive", "negative"), [([1], ["0"]), (["yes"], ["no"]), ([True, "1"], ["False", "0"]), ([0], ["1"])]
)
def test_the_opposite_of_a_level_that_has_one_counts_as_no(positive, negative):
    assert YesNo(positive, None).negative == negative


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ([2], None, "dataset.target.negative: name the levels that count as no, since the opposite of 2 is not known"),
        (["MEL", "yes"], None, "the opposite of MEL"),
        ([1], [0, 1.0], "1 is in positive too"),
        (["1", "0"], None, "is in positive too"),
        ([], ["no"], "must each name a level"),
        ([1], [], "must each name a level"),
    ],
)
def test_a_level_that_counts_as_no_is_declared(positive, negative, said):
    with pytest.raises(ValueError, match=said):
        YesNo(positive, negative)


@pytest.mark.parametrize(
    ("target", "table", "absent"),
    [
        (Binary("x", [1]), {"x": [0, 0]}, ["x 1"]),
        (Binary("x", ["yes"]), {"x": ["yes", "yes"]}, ["x no"]),
        (MultiClass("x", ["a", "b", "c"]), {"x": ["a", "c"]}, ["b"]),
        (MultiLabel(["x", "y"]), {"x": [0, 1], "y": [0, None]}, ["y"]),
        (MultiLabel(["x", "y"]), {"x": [0, 1], "y": [1, 1]}, ["not y"]),
        (Survival("t", "x"), {"t": [1, 2], "x": [0, 0]}, ["event"]),
        (Survival("t", "x"), {"t": [1, 2], "x": [1, 1]}, []),
        (Regression("x"), {"x": [3, 3]}, []),
    ],
)
def test_what_must_occur_is_found_by_name(target, table, absent):
    arrays, _ = target.read(pd.DataFrame(table, dtype=object))
    occurs = target.occurs(arrays)
    assert [name for name, found in zip(target.must_occur, occurs, strict=True) if not found] == absent


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
    arrays, reasons = Survival("days", "died", positive=[2], negative=[1]).read(table)
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


@pytest.mark.parametrize(("own", "read"), [("012", False), ("234", False), ("123", True), ("12", True), ("1239", True)])
def test_codes_that_begin_elsewhere_are_refused(own, read):
    """Of grades 0, 1, 2 for the study's 1, 2, 3 two would be taken for the next lower one."""
    table = pd.DataFrame({"grade": list(own)})
    if read:
        MultiClass("grade", [1, 2, 3]).read(table)
    else:
        with pytest.raises(ValueError, match="column grade has the codes"):
            MultiClass("grade", [1, 2, 3]).read(table)


def test_a_subgroup_of_which_a_site_has_no_declared_level_is_refused():
    with pytest.raises(ValueError, match="column sex holds 2 levels"):
        Levels("sex", ["F", "M"]).read(pd.DataFrame({"sex": ["female", "male", None]}))
    assert Levels("sex", ["F", "M"]).read(pd.DataFrame({"sex": ["female", None]})).tolist() == [-1, -1]
