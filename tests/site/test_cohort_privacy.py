"""What leaves a site that describes its cohort: nothing of fewer persons than its minimum cell, by no way round."""

import json

import numpy as np
import pandas as pd
import pytest

from datamodules.description import Description, behind_moments, untold
from datamodules.harmonize import ComBat
from datamodules.text import DOCUMENTS, HashedText
from flip.config.schema import Site
from flip.messages import Task
from flip.messages.summary import Topic
from flip.site.complementary import suppress_complementary
from flip.site.disclosure import suppress_summaries
from flip.site.silo import Silo
from flip.site.statistics import description
from tests.studies import compose_study

CELL = 5


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([50, 30, 20], [50, 30, 20]),
        ([95, 3], [0, 0]),  # of two, the other would tell it
        ([50, 30, 2], [50, 0, 0]),  # the smallest of the others goes too
        ([50, 2, 1], [0, 0, 0]),  # together three persons: still too few
        ([50, 4, 3], [50, 0, 0]),
        ([50, 30, 0], [50, 30, 0]),  # nobody is told apart from a number kept back, and is none
    ],
)
def test_no_small_count_can_be_told_from_the_others(counts, told):
    np.testing.assert_array_equal(suppress_complementary(np.array(counts, float), CELL), told)


@pytest.fixture
def silo(tmp_path):
    """A site of 60 persons with planted small cells, and the study's manifest."""
    lines = ["pid,age,height,sex,rare,weight,smokes,outcome"]
    for number in range(60):
        # Persons 4, 7, 22 and 42 are among those that are trained on.
        rare = "zebra" if number in (4, 7) else "horse" if number < 30 else "pony"
        weight, smokes = ("", "") if number in (22, 42) else (60 + number, "yes" if number % 3 else "no")
        age = 104 if number == 0 else 40 + number % 30
        known = f"{age},{170 if number < 3 else ''},{'FM'[number % 2]},{rare},{weight},{smokes}"
        lines.append(f"p{number},{known},{int(number < 20)}")
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    site = Site(root=str(tmp_path), policy={"minimum_persons": 10, "minimum_cell": CELL})
    study = compose_study(
        "experiment=heart_disease",
        "~dataset",
        "model=risk_classifier",
        "model.encoders.text=null",
        "model.encoders.tabular.features=8",
        "+model.subgroups.sex=[F,M]",
        "+model.subgroups.heavy=[below,above]",
        "+dataset._target_=datamodules.multimodal.Multimodal",
        "+dataset.records={_target_: datamodules.records.Records, person: pid}",
        "+dataset.target={_target_: datamodules.targets.Binary, column: outcome, positive: ['1']}",
        "+dataset.tabular={_target_: datamodules.tabular.Tabular, numeric: [age, height, weight], "
        "categorical: {sex: 2, rare: 3, smokes: 2}}",
        "+dataset.subgroups={sex: {_target_: datamodules.targets.Levels, column: sex, levels: [F, M]}, "
        "heavy: {_target_: datamodules.targets.Bands, column: weight, edges: [90]}}",
        f"paths.data_dir={tmp_path}",
    )
    return Silo("west", site, tmp_path / "home"), study.manifest_text


def asked(silo: Silo, manifest: str, **edges: np.ndarray):
    state = {f"edges/{name}": array for name, array in edges.items()}
    reply = silo.answer(Task("run", "study", 0, "describe", {}, state, {}, manifest))
    assert reply.fault is None, (silo.home / "site.log").read_text()
    return reply


def test_names_and_numbers_of_few_persons_stay_at_the_site(silo):
    reply = asked(*silo)
    assert set(reply.summaries) == {Topic.DESCRIPTION, Topic.SHAPE}
    told = {name: summary.values for name, summary in reply.summaries[Topic.DESCRIPTION].items()}
    names = set(told)
    assert "zebra" not in json.dumps(sorted(names))
    # Two persons with the rare level: so of the other two levels none can be told in each split.
    assert not [name for name in names if name.startswith("count/levels/rare/")]
    assert "moments/height" not in names  # known of three persons
    assert "count/known/height" not in names
    assert "count/label/outcome 1" not in names  # 20, of whom too few validate
    assert told["count/labels"].tolist() == [60]
    for name, values in told.items():
        if name.startswith("count/"):
            assert all(value == 0 or value >= CELL for value in values), name


def test_no_extreme_value_shows_in_a_histogram(silo):
    edges = np.linspace(30, 80, 26)
    bins = asked(*silo, age=edges).summaries[Topic.DESCRIPTION]["histogram/age"].values
    assert bins.sum() == 60
    assert all(value == 0 or value >= CELL for value in bins)


@pytest.mark.parametrize(
    ("values", "behind"),
    [
        (np.repeat([0.0, 1.0], [97, 3]), 3),  # the sum is how many have it
        (np.repeat([0.0, 1.0], [60, 40]), 40),
        (np.repeat([0.0, 1.0, 2.0, 5.0], [97, 1, 1, 1]), 3),  # the sums are those of three persons
        (np.repeat([7.0], [100]), 100),
        (np.arange(100.0), 100),
    ],
)
def test_sums_of_a_column_rest_on_the_persons_that_they_tell_of(values, behind):
    assert behind_moments(values, np.arange(100)) == behind


def test_a_column_that_few_persons_miss_does_not_tell_how_many(silo):
    names = asked(*silo, weight=np.linspace(0, 200, 9)).summaries[Topic.DESCRIPTION]
    assert not [name for name in names if "weight" in name or "smokes" in name]


def test_subgroups_do_not_tell_what_their_columns_keep_back(silo):
    told = asked(*silo).summaries[Topic.DESCRIPTION]
    assert not [name for name in told if "heavy" in name]  # its bands would cut through the histogram's bins
    assert not [name for name in told if "subgroup sex" in name]  # a category is not described twice


def test_training_agrees_on_nothing_that_tells_of_few_persons(silo):
    site, manifest = silo
    reply = site.answer(Task("run", "study", 0, "statistics", {}, {}, {}, manifest))
    assert reply.fault is None, (site.home / "site.log").read_text()
    told = {name: summary.values for name, summary in reply.summaries[Topic.STATISTICS].items()}
    rows = reply.metrics["train"]
    assert told["moments/tabular/age"][0] == rows
    assert rows - told["moments/tabular/weight"][0] == CELL  # 2 have none, so others are left out with them
    smokes = sum(values[0] for name, values in told.items() if name.startswith("count/levels/smokes/"))
    assert rows - smokes == CELL
    rare = sum(values[0] for name, values in told.items() if name.startswith("count/levels/rare/"))
    assert rows - rare >= CELL  # 2 have the rare level, so another goes with it


def test_sums_over_texts_and_complete_rows_do_not_tell_how_few_are_not_among_them():
    persons = np.arange(20)
    notes = HashedText(buckets=8)
    texts = notes.read(pd.Series(["cough", None, *["fever"] * 18]))
    assert notes.statistics(texts, persons)[DOCUMENTS] == 19
    assert notes.statistics(texts, persons, CELL)[DOCUMENTS] == 20 - CELL
    table = pd.DataFrame({"a": [np.nan, *range(19)], "b": np.arange(20.0), "age": np.arange(20.0)})
    sums, behind = ComBat(["a", "b"], ["age"]).statistics(table, persons, CELL)
    assert sums["sum/harmonize/n"] == behind == 20 - CELL


@pytest.mark.parametrize(
    ("known", "names"),
    [
        ([50, 8, 5], {"count/known/x", "count/levels/x/a/b", "count/levels/x/c"}),
        ([50, 8, 2], {"count/levels/x/a/b", "count/levels/x/c"}),  # 8 and 2 are kept back: 0 would read as none
        ([50, 2, 0], set()),
        ([8, 50, 2], set()),  # the 8 are kept back with the 2, and would be told by the levels
    ],
)
def test_a_column_tells_nothing_that_its_count_of_known_values_keeps_back(known, names):
    class Column:
        def describe(self, edges):
            half = np.array([known[0] / 2])
            parts = {"count/known/x": np.array(known), "count/levels/x/a/b": half, "count/levels/x/c": half}
            return {name: np.asarray(array, float) for name, array in parts.items()}, {}

    assert set(description(60, Column(), {}, 4)) == names


@pytest.mark.parametrize(("unlabeled", "told"), [(0, 3), (CELL - 1, 0), (CELL, 3)])
def test_counts_of_labels_do_not_tell_how_few_persons_have_none(unlabeled, told):
    class Column:
        def describe(self, edges):
            found = Description(np.arange(60), edges)
            found.rows("studies", np.ones(60, bool))
            found.classes(np.where(np.arange(60) < unlabeled, -1, np.arange(60) % 2), ("no", "yes"))
            return found.found()

    left = suppress_summaries(60, {Topic.DESCRIPTION: description(60, Column(), {}, CELL)}, CELL)[Topic.DESCRIPTION]
    names = ["count/studies", "count/labels", "count/label/no", "count/label/yes"]
    assert set(left) == set(names[: 1 + told])


def test_a_level_with_a_slash_is_one_of_its_column():
    class Column:
        def describe(self, edges):
            parts = {"a/b": 2, "c": 20, "d": 30}
            return {f"count/levels/x/{name}": np.array([float(number)]) for name, number in parts.items()}, {}

    assert list(description(52, Column(), {}, CELL)) == ["count/levels/x/d"]


def test_who_misses_a_value_is_hidden_among_as_many_as_the_minimum_cell():
    known = np.array([True, False, True, True, True, True])
    person = np.array([0, 1, 2, 2, 3, 4])
    np.testing.assert_array_equal(untold(known, person, 3), [False, False, False, False, True, True])
    np.testing.assert_array_equal(untold(known, person, 1), known)
    np.testing.assert_array_equal(untold(np.ones(6, bool), person, 3), np.ones(6, bool))
