"""A CSV table as hospitals write it: one reader for every dataset."""

import pytest

from datamodules.csv_table import read_csv


def test_cells_are_text_without_spaces_around_them_and_quotes_hold_commas(tmp_path):
    (tmp_path / "c.csv").write_text('id, note\n007, "a, b" \n\n8,\n', encoding="utf-8-sig")
    assert read_csv(tmp_path / "c.csv").to_dict("list") == {"id": ["007", "8"], "note": ["a, b", ""]}


def test_a_file_without_a_first_line_gets_its_names_from_the_study(tmp_path):
    (tmp_path / "c.data").write_text("1,2\n3,4\n")
    assert read_csv(tmp_path / "c.data", ["a", "b"]).to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}


def test_a_row_whose_cells_would_stand_in_other_columns_is_refused_by_its_line(tmp_path):
    (tmp_path / "c.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match="line 3: 1 cells, where the header has 2"):
        read_csv(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"a\n\xff", "not a CSV table"),
        (b"a,a\n1,2", "two columns called a"),
        (b"a, A \n1,2", "two columns called a"),
        (b"a;b\n1;2", "is separated by ';' and not by commas: save it with commas"),
        (b"a;b;c\n0,5;1;2\n", "is separated by ';' and not by commas"),
        (b"a\tb\n1\t2", r"is separated by '\\t' and not by commas"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, message):
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "c.csv")


def test_a_file_without_a_first_line_that_is_not_separated_by_commas_is_refused(tmp_path):
    (tmp_path / "c.data").write_text("1;2\n3;4\n")
    with pytest.raises(ValueError, match="is separated by ';'"):
        read_csv(tmp_path / "c.data", ["a", "b"])


def test_semicolons_within_cells_separate_nothing(tmp_path):
    (tmp_path / "c.data").write_text("a;b;c,2\n")
    assert read_csv(tmp_path / "c.data", ["a", "b"]).to_dict("list") == {"a": ["a;b;c"], "b": ["2"]}
