"""Notes by example: text columns of a table, and OMOP's notes up to the index date."""

import pytest

from datamodules.sources.notes import OMOPNotes, TableNotes
from tests.datamodules.sources.omop_files import COHORT, note, person, visit

PERSONS = {"person": [person(1), person(2), person(3)], "visit_occurrence": [visit(1, 1), visit(2, 2), visit(3, 3)]}


def test_text_columns_are_joined_and_rows_without_text_left_out(tmp_path):
    (tmp_path / "notes.csv").write_text('id,history,plan\n7,"Cough,\nfever",Rest\n8,,\n9,,Walk\n')
    source = TableNotes("notes.csv", person="id", text=["history", "plan"], root=str(tmp_path))
    assert source.read().to_dict("list") == {"person": ["7", "9"], "text": ["Cough,\nfever\n\nRest", "Walk"]}


def test_several_rows_of_an_example_are_one_text(tmp_path):
    (tmp_path / "notes.csv").write_text("id,stay,text\n7,1,first\n7,2,other\n7,1,second\n")
    source = TableNotes("notes.csv", person="id", accession="stay", text=["text"], root=str(tmp_path))
    assert source.read()["text"].tolist() == ["first\n\nsecond", "other"]


def test_a_note_that_was_filed_twice_counts_once(tmp_path):
    (tmp_path / "notes.csv").write_text("id,text\n7,fever\n7,fever\n8,fever\n7,cough\n")
    found = TableNotes("notes.csv", person="id", text=["text"], root=str(tmp_path)).read()
    assert found["text"].tolist() == ["fever\n\ncough", "fever"]


def test_a_missing_text_column_is_named(tmp_path):
    (tmp_path / "notes.csv").write_text("id,text\n7,first\n")
    with pytest.raises(ValueError, match="has no column body"):
        TableNotes("notes.csv", person="id", text=["body"], root=str(tmp_path)).read()


def test_notes_up_to_the_index_are_read_oldest_first_and_later_ones_never(connect):
    notes = [
        note(1, 1, "2020-03-09 10:00:00", "second"), note(2, 1, "2020-03-01", "first"),
        note(3, 2, "2020-03-10", "same day"),
        note(4, 1, "2020-03-11 00:30:00", "died in the night"), note(5, 2, "2020-03-11", "discharge"),
        note(6, 3, "2020-04-01", "x"),
    ]  # fmt: skip
    table = OMOPNotes(connect({**PERSONS, "note": notes}), cohort=COHORT).read()
    assert dict(zip(table["person"], table["text"], strict=True)) == {"1": "first\n\nsecond", "2": "same day"}


def test_a_note_of_the_same_day_needs_a_time_before_that_of_the_index(connect):
    query = (
        "SELECT person_id, visit_occurrence_id AS accession, visit_start_datetime AS index_date FROM visit_occurrence"
    )
    tables = {"person": [person(1)], "visit_occurrence": [visit(5, 1, "2020-03-10 12:00:00")]}
    notes = [
        note(1, 1, "2020-03-10 11:00:00", "known"),
        note(2, 1, "2020-03-10", "untimed"),
        note(3, 1, "2020-03-10 13:00:00", "x"),
    ]
    table = OMOPNotes(connect({**tables, "note": notes})).read(cohort=query)
    assert table.to_dict("list") == {"person": ["1"], "accession": ["5"], "text": ["known"]}


def test_notes_may_be_limited_to_classes_and_a_window(connect):
    notes = [
        note(1, 1, "2020-03-01", "old"),
        note(2, 1, "2020-03-09", "new"),
        {**note(3, 1, "2020-03-09", "other"), "note_class_concept_id": 5},
    ]
    source = OMOPNotes(connect({**PERSONS, "note": notes}), cohort=COHORT, classes=[706391], window=[-3, 0])
    assert source.read()["text"].tolist() == ["new"]
    with pytest.raises(ValueError, match="after the index"):
        OMOPNotes("cdm", cohort=COHORT, window=[0, 5])


def test_a_database_without_notes_is_said(connect):
    with pytest.raises(FileNotFoundError, match="no table note"):
        OMOPNotes(connect(PERSONS), cohort=COHORT).read()
