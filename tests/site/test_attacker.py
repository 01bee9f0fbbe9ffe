"""A withheld number cannot be had back: an attacker with integer programming has all that leaves a site."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from datamodules.cohort_table import CohortTable
from datamodules.description import told_over_parts
from datamodules.splits import ByShare
from flip.site.complementary import suppress_complementary, suppress_table
from tests.site.attacker import MOST, Attacker
from tests.site.heart_reports import LEFT, PLACES, attacker_of, drawn, true_counts
from tests.site.test_gate import Hospital

CELL = 5
COUNTS = some.one_of(some.integers(0, 6), some.integers(0, 30))


def test_the_attacker_finds_what_a_subtraction_tells_and_no_more():
    attacker = Attacker()
    attacker.knows(["ill", "well"], 40)
    attacker.knows(["well"], 37)
    assert attacker.interval("ill") == (3, 3)
    assert attacker.beyond("ill", true=3, cell=CELL)
    attacker = Attacker()
    attacker.knows(["a", "b", "c"], 40)
    attacker.knows(["c"], 35)
    assert attacker.interval("a") == (0, 5)
    assert not attacker.beyond("a", true=2, cell=CELL)


@settings(max_examples=40, deadline=None)
@example(counts=[1, 1, 9, 20])
@given(counts=some.lists(COUNTS, min_size=2, max_size=6))
def test_no_count_follows_from_the_others_and_their_sum(counts):
    kept, attacker = suppress_complementary(np.array(counts, float), CELL), Attacker()
    shown(attacker, {str(place): each for place, each in enumerate(kept)})
    attacker.knows([str(place) for place in range(len(counts))], sum(counts))
    if sum(counts) >= CELL:
        assert not [p for p, true in enumerate(counts) if attacker.beyond(str(p), true=true, cell=CELL)]


@settings(max_examples=15, deadline=None)
@given(table=some.lists(some.lists(COUNTS, min_size=3, max_size=3), min_size=2, max_size=3))
def test_no_cell_of_a_table_follows_from_its_margins(table):
    assert told_too_well(np.array(table, float)) == []


@pytest.mark.parametrize("rows", [
    [[8, 0, 1, 9], [16, 6, 19, 24], [1, 21, 0, 4], [4, 21, 10, 22]],
    [[3, 16, 1, 0], [21, 22, 1, 10], [25, 20, 21, 2], [8, 4, 25, 13]],
])  # fmt: skip
def test_a_table_of_which_every_line_hides_two_may_still_tell_a_cell(rows):
    assert told_too_well(np.array(rows, float)) == []


def told_too_well(table: np.ndarray) -> list[str]:
    """The small cells that the attacker knows too well, from what is told of the table and of its margins."""
    kept, attacker = suppress_table(table, CELL), Attacker()
    names = np.array([[f"{row},{column}" for column in range(table.shape[1])] for row in range(table.shape[0])])
    shown(attacker, dict(zip(names.ravel().tolist(), kept.ravel(), strict=True)))
    attacker.knows(names.ravel().tolist(), table.sum())
    for lines, sums in ((names, table.sum(1)), (names.T, table.sum(0))):
        for line, told in zip(lines, suppress_complementary(sums, CELL), strict=True):
            if told:
                attacker.knows(line.tolist(), told)
    if table.sum() < CELL:
        return []
    true = dict(zip(names.ravel().tolist(), table.ravel().astype(int).tolist(), strict=True))
    return [name for name, each in true.items() if attacker.beyond(name, true=each, cell=CELL)]


def shown(attacker: Attacker, counts: dict[str, float]) -> None:
    for name, each in counts.items():
        attacker.knows([name], each, None if each else MOST)


def test_what_is_left_in_each_part_is_of_enough_persons_or_of_nobody():
    persons = np.array([[20, 11], [6, 0], [2, 1]])
    assert told_over_parts(persons, CELL).tolist() == [False, False, False]
    assert told_over_parts(np.array([[20, 11], [6, 5], [2, 0]]), CELL).tolist() == [True, False, False]
    assert told_over_parts(np.array([[20, 11], [6, 5]]), CELL).tolist() == [True, True]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("attacked"))


@pytest.mark.parametrize("seed", [9, 32, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(33, 45))])
def test_no_count_of_few_persons_follows_from_all_that_leaves_in_a_run(hospital, seed):
    table, text = drawn(seed)
    path = hospital.folder / "data" / "uci_heart" / "processed.cleveland.data"
    path.write_text(text)
    shutil.rmtree(hospital.folder / "home", ignore_errors=True)
    hospital.open()
    tasks = [hospital.task("statistics"), hospital.task("describe"), hospital.edges(0.0)]
    replies = [hospital.silo.answer(task) for task in (*tasks, hospital.task("evaluate", split="test"))]
    if replies[0].fault is not None:
        pytest.skip(f"the site answers nothing of this table: {replies[0].fault.value}")
    settings = json.loads(hospital.study.manifest_text)["dataset"]
    split = ByShare(**{name: each for name, each in settings.pop("split").items() if name != "_target_"})
    data = CohortTable(str(path), split=split, **{name: each for name, each in settings.items() if name != "_target_"})
    data.setup()
    places = np.array([LEFT if why is not None else of for why, of in zip(data._why, data._split_of, strict=True)])
    true = true_counts(table, places) | {place: int(np.sum(places == place)) for place in PLACES}
    attacker = attacker_of(replies[0], replies[1:], CELL)
    few = {name: each for name, each in true.items() if 0 < each < CELL}
    assert few
    assert [name for name, each in few.items() if attacker.beyond(name, true=each, cell=CELL)] == []
