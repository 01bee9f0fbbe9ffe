"""What a cell says is right or refused by name, in every way that tables are read: never a silent NaN, 0 or 1."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from datamodules.alignment import level, numbers
from datamodules.sources.table import Table

ROWS = 3_000  # more than DuckDB looks at to guess


@pytest.mark.parametrize(
    "text", ["1,234", "12,5", "1.234,5", "5 mg", "<5", "1_000", "0x10", "1 234", "5%", "\u0663", "nan"]
)
def test_text_that_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="column x holds text that is not a number, 1 times"):
        numbers(pd.Series([text, 1.0], dtype=object), "x")


@pytest.mark.parametrize("text", ["1,234", "12,5", "1,234.5"])
def test_a_comma_is_named(text):
    with pytest.raises(ValueError, match=r"some with a comma: write 12\.5 and 1234"):
        numbers(pd.Series([text]), "x")


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.to_datetime(["2020-01-01", None])),
        pd.Series(pd.to_datetime(["2020-01-01", None])).astype(object),
        pd.Series([date(2020, 1, 1)]),
        pd.Series([pd.Timedelta(days=1)]),
        pd.Series([np.datetime64("2020-01-01"), 1.0], dtype=object),
    ],
    ids=["column", "cells", "days", "spans", "among numbers"],
)
def test_dates_are_no_numbers(values):
    with pytest.raises(ValueError, match="column x holds dates, which are no numbers, 1 times"):
        numbers(values, "x")


def test_numbers_and_gaps_stay():
    found = numbers(pd.Series([1, "2.5", " 3 ", None, np.nan, np.float32(4), "1e3"], dtype=object), "x")
    assert found.tolist() == pytest.approx([1, 2.5, 3, np.nan, np.nan, 4, 1000], nan_ok=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(" 1", "1"), ("1.0", "1"), (1.0, "1"), ("+1", "1"), ("-0", "0"), ("1_0", "1_0"), ("1e1", "1e1"),
     ("12345678901234567891", "12345678901234567891"), ("1.5", "1.5"), (True, "True")],
)  # fmt: skip
def test_a_level_is_one_number_however_it_is_written_and_no_other(value, text):
    assert level(value) == text


@pytest.mark.parametrize("rows", [2, ROWS])
@pytest.mark.parametrize(
    "line", ["p,1,234,5", "p,1", 'p,"1,5', 'p,"1"2,3', b"p,m\xfc,3"], ids=["thousands", "few", "open", "after", "latin"]
)
def test_a_line_that_cannot_be_read_is_named_and_not_quoted(line, rows, tmp_path):
    lines = [f"{row},{row % 7},{row % 5}".encode() for row in range(rows)]
    lines.insert(1, line if isinstance(line, bytes) else line.encode())
    (tmp_path / "t.csv").write_bytes(b"\n".join([b"person,a,b", *lines]) + b"\n")
    with pytest.raises(ValueError, match=r"t\.csv is not a table that can be read: .*line 3") as refused:
        Table(str(tmp_path / "t.csv"), person="person").read()
    assert "p," not in str(refused.value)


def test_the_first_row_is_no_header(tmp_path):
    (tmp_path / "t.csv").write_text("person,a,b\nx,y,\n")
    found = Table(str(tmp_path / "t.csv"), person="person").read()
    assert found["person"].tolist() == ["x"] and found["a"].tolist() == ["y"]
