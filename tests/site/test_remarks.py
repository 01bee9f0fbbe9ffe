"""What a dataset remarks of the examples that it kept: from the site over the coordinator to the page."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from datamodules.dicom.remarks import Remark
from flip.messages.summary import EVERYBODY, Summary, SummaryKind, Topic
from flip.report import page
from flip.report.cohorts import screen_table
from flip.runs.record import RunRecord
from flip.site.persons import Persons
from flip.site.remarks import remarks
from tests.coordinator.test_loop import Notes, Sites, coordinator
from tests.report.fixture import Page, write_run

SEVERAL, OTHERS = "studies of several series", "series beside those that were read"
SPLITS = [Persons.of(np.repeat(np.arange(number), 2)) for number in (30, 0, 18)]


class Data:
    """A dataset of 48 persons with two remarks, and one that it does not declare."""

    REMARKS = frozenset({SEVERAL, OTHERS})

    def __init__(self, persons=40):
        self.remarks = {SEVERAL: persons, OTHERS: 93, "/data/doe_john": 48}
        self.remarks_persons = dict.fromkeys(self.remarks, persons)


@pytest.mark.parametrize(
    ("persons", "leaves"), [(40, True), (4, False), (45, False)], ids=["most", "few", "all but few"]
)
def test_a_remark_leaves_if_enough_persons_stand_behind_it_and_behind_its_absence(persons, leaves):
    found = remarks(48, Data(persons), 5, splits=SPLITS)
    assert {name: summary.values.tolist() for name, summary in found.items()} == (
        {SEVERAL: [persons], OTHERS: [93]} if leaves else {}
    )


def test_a_remark_of_everybody_is_told_as_of_persons_since_a_few_may_have_it_less_often():
    found = remarks(48, Data(48), 5, splits=SPLITS)
    everybody = {EVERYBODY + SEVERAL: [48], EVERYBODY + OTHERS: [48]}
    assert {name: summary.values.tolist() for name, summary in found.items()} == everybody


@pytest.mark.parametrize(("persons", "leaves"), [(40, False), (38, False), (37, True), (42, True), (48, True)])
def test_of_a_remark_nobody_learns_how_many_of_those_kept_or_left_out_lack_it(persons, leaves):
    kept = [Persons.of(np.arange(30)), Persons.of(np.arange(12))]
    found = {name.removeprefix(EVERYBODY) for name in remarks(48, Data(persons), 5, splits=kept)}
    assert found == ({SEVERAL, OTHERS} if leaves else set())


def test_no_remark_is_told_where_a_split_is_of_too_few_persons_whose_examples_it_is_of_too():
    small = [Persons.of(np.arange(44)), Persons.of(np.arange(4))]
    assert remarks(48, Data(30), 5, splits=small) == remarks(48, Data(48), 5, splits=small) == {}
    assert remarks(48, Data(30), 4, splits=small).keys() == {SEVERAL, OTHERS}


class Doubted(Data):
    """The same, of whose remarks one puts it in doubt."""

    WARNINGS = frozenset({SEVERAL})


def test_a_doubt_about_everybody_is_told_where_a_split_is_of_too_few_persons_as_of_those_in_the_others():
    small = [Persons.of(np.arange(44)), Persons.of(np.arange(4))]
    found = remarks(48, Doubted(48), 5, splits=small)
    assert {name: (summary.values.tolist(), summary.persons) for name, summary in found.items()} == {
        EVERYBODY + SEVERAL: ([44], 44)
    }
    assert remarks(48, Doubted(30), 5, splits=small) == {}


def test_of_how_a_series_was_chosen_no_way_of_few_is_told_by_the_others():
    """What all of several series are is told beside: `series beside those that were read`."""
    data = Data()
    data.remarks = {Remark.FITTING_SERIES.value: 37, Remark.FIRST_SERIES.value: 3, Remark.OTHER_SERIES.value: 40}
    data.remarks_persons, data.REMARKS = data.remarks, frozenset(data.remarks)
    assert set(remarks(48, data, 5, splits=SPLITS)) == {Remark.OTHER_SERIES.value}


@pytest.mark.parametrize(
    ("persons", "leave"),
    [([20, 10], [20, 10]), ([20, 2], []), ([20, 10, 2], [20]), ([20, 2, 1, 3], [20]), ([2], [])],
)
def test_of_remarks_that_are_parts_of_a_whole_no_small_one_is_told_by_the_others(persons, leave):
    data = Data()
    data.remarks = {f"an image counts as missing: {part}": number for part, number in enumerate(persons)}
    data.remarks_persons, data.REMARKS = data.remarks, frozenset(data.remarks)
    assert [int(found.values[0]) for found in remarks(48, data, 5, splits=SPLITS).values()] == leave
    assert [int(found.values[0]) for found in remarks(48, data, 1, splits=SPLITS).values()] == persons


def test_a_dataset_without_remarks_makes_none():
    assert remarks(48, object(), 5, splits=SPLITS) == {}


def told(numbers):
    return {Topic.REMARKS: {text: Summary(SummaryKind.COUNT, np.array(values), 40) for text, values in numbers.items()}}


def gathered(numbers):
    def spoil(reply, task):
        return replace(reply, summaries=told(numbers)) if task.step == "statistics" and reply.site == "a" else reply

    notes = Notes()
    study = coordinator(notes)
    study.reasons = Data.REMARKS
    study(Sites(spoil=spoil).ask)
    return notes.cohorts["a"]


def test_the_coordinator_passes_on_the_declared_words_alone():
    found = gathered({SEVERAL: [40.0], "/data/doe_john": [1.0]})["remarks"]
    assert found == {SEVERAL: 40, "another reason, which the site's own log names": 1}


def test_a_remark_that_is_not_one_number_is_a_fault():
    assert gathered({SEVERAL: [40.0, 1.0]})["fault"] == "INVALID"


def test_the_page_and_the_table_of_a_check_show_the_remarks(tmp_path):
    run = write_run(tmp_path / "run")
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["va"]["remarks"] = {SEVERAL: 40}
    (run / "cohort.json").write_text(json.dumps(cohort))
    assert f"{SEVERAL} \u2013 \u2013 \u2013 40 40" in Page(page.write(run).read_text()).text
    assert "40 x studies of several series" in plain(screen_table(RunRecord.read(run)))


def plain(table):
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()
