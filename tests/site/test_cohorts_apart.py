"""What is withheld of few persons cannot be had from the answers about two cohorts: the second one is refused."""

import errno
import fcntl
import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.config import build
from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault
from flip.messages.safetensors import load_file
from flip.site import cohorts_apart
from flip.site.cohorts_apart import Cohort, Kept, columns_of
from flip.site.journal import journal_of
from flip.site.refusal import Refusal
from flip.site.silo import Silo
from flip.site.steps import Steps
from tests.site.test_disclosure import CELL, POLICY, Site
from tests.site.test_gate import RULES, Hospital

STEPS = [("statistics", {}), ("fit", {}), ("evaluate", {"split": "test"})]
KEPT = "state/cohorts/persons"


def without(site: Site, *numbers: int) -> Site:
    """The same site once the rows of some of its 42 persons have gone, in a process that was started since."""
    table = site.silo.home.parent / "cohort.csv"
    gone = {f"p{number}" for number in numbers}
    whole = table.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(table.read_bytes())
    lines = whole.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if line.partition(",")[0] not in gone))
    site.silo = Silo("west", site.silo.site, site.silo.home)
    return site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "dataset.batch_size=64")


def kept(site: Site) -> list[Path]:
    return sorted(path for path in (site.silo.home / KEPT).glob("*") if Kept.named(path))


def log(site: Site) -> str:
    return (site.silo.home / "site.log").read_text()


@pytest.mark.parametrize("gone", [(3,), (3, 17, 20, 41)])
@pytest.mark.parametrize(("step", "params"), STEPS)
def test_a_cohort_that_differs_by_fewer_persons_than_the_minimum_cell_is_refused_before_anything_is_computed(
    site, step, params, gone, monkeypatch
):
    assert site.ask("statistics").fault is None
    monkeypatch.setattr(Steps, "answer", lambda *_: pytest.fail("it was computed"))
    refused = without(site, *gone).ask(step, **params)
    assert (refused.fault, refused.examples, dict(refused.metrics), dict(refused.weights)) == (
        Fault.REFUSED_NEAR,
        0,
        {},
        {},
    )
    assert not refused.summaries
    number = "1 person" if len(gone) == 1 else f"{len(gone)} persons"
    assert "its split 'train' and its split 'test', against" in log(site)
    assert f": {number} came, went, or changed in examples, fewer than minimum_cell: {CELL}, so" in log(site)


@pytest.mark.parametrize(("step", "params"), STEPS)
def test_whatever_was_answered_first_counts(site, step, params):
    assert site.ask(step, **params).fault is None
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_one_that_differs_by_as_many_is_answered_and_so_is_that_of_before(site):
    first = site.ask("statistics")
    assert without(site, 3, 11, 12, 20, 25).ask("statistics").fault is None
    again = without(site).ask("statistics")
    assert (again.fault, again.metrics) == (None, first.metrics)


def test_persons_who_came_count_as_those_who_went(site):
    assert without(site, 1, 2).ask("statistics").fault is None
    assert without(site).ask("statistics").fault is Fault.REFUSED_NEAR
    assert without(site, 1, 2, 30, 31).ask("statistics").fault is Fault.REFUSED_NEAR
    assert without(site, 30, 31, 32).ask("statistics").fault is None  # two came, and three went


def test_one_that_was_refused_is_in_nobodys_way(site):
    assert site.ask("statistics").fault is None
    assert without(site, 1, 2, 3).ask("statistics").fault is Fault.REFUSED_NEAR
    assert without(site, 1, 2, 3, 4, 5).ask("statistics").fault is None


def test_rounds_go_on_while_nobody_comes_or_goes(site):
    for step, params in STEPS * 2:
        assert site.ask(step, **params).fault is None
    assert len(kept(site)) == 1


def test_a_row_of_a_person_counts_as_the_person(site):
    assert site.ask("statistics").fault is None
    table = site.silo.home.parent / "cohort.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:35] + lines[36:]))
    site.silo = Silo("west", site.silo.site, site.silo.home)
    assert site.ask("statistics").fault is Fault.REFUSED_NEAR
    assert ": 1 person came, went, or changed in examples" in log(site)


@pytest.mark.parametrize("first", [0, 1])
def test_a_split_of_few_that_is_withheld_is_not_had_from_another_split(tmp_path, first):
    whole = Site(tmp_path, "dataset.batch_size=64")
    less = Site(tmp_path, "dataset.batch_size=64", "dataset.split.validate=0.05", "dataset.split.seed=7")
    sites = [whole, less]
    assert sites[first].ask("statistics").fault is None
    assert sites[1 - first].ask("statistics").fault is Fault.REFUSED_NEAR
    assert ": 3 persons came, went, or changed in examples" in log(whole)


def test_a_row_that_names_nobody_hides_no_withdrawal(site):
    table = site.silo.home.parent / "cohort.csv"
    table.write_text(table.read_text().replace("p8,", ",").replace("p30,", ","))
    assert site.ask("statistics").fault is None
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_what_was_answered_while_it_was_permitted_counts(tmp_path):
    site = Site(tmp_path, "dataset.batch_size=64", policy=POLICY | {"near_cohorts": "answered"})
    assert site.ask("statistics").fault is None
    site.silo = Silo("west", replace(site.silo.site, policy=POLICY), site.silo.home)
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_splits_that_few_persons_change_are_refused(tmp_path):
    shares = [Site(tmp_path, "dataset.batch_size=64", f"dataset.split.train={share}") for share in (0.6, 0.64, 0.75)]
    assert [each.ask("statistics").fault for each in shares] == [None, Fault.REFUSED_NEAR, None]


@pytest.mark.parametrize("cell", [1, 5])
def test_rows_without_names_are_known_by_their_number_and_count_since_a_cell_of_one(tmp_path, cell):
    hospital = Hospital(tmp_path)
    hospital.policy(RULES | {"minimum_cell": cell})
    assert hospital.silo.answer(hospital.task("statistics")).fault is None
    table = tmp_path / "data" / "uci_heart" / "processed.cleveland.data"
    table.write_text("\n".join(table.read_text().splitlines()[1:]) + "\n")
    hospital.policy(RULES)
    hospital.open()
    assert hospital.silo.answer(hospital.task("statistics", run="next")).fault is Fault.REFUSED_NEAR


def test_an_owner_may_permit_it(tmp_path):
    site = Site(tmp_path, "dataset.batch_size=64", policy=POLICY | {"near_cohorts": "answered"})
    assert site.ask("statistics").fault is None
    assert without(site, 3).ask("statistics").fault is None
    with pytest.raises(UserError, match=r"near_cohorts='few': must be refused, or answered"):
        Policy.read("west", POLICY | {"near_cohorts": "few"})


def test_a_minimum_cell_of_one_and_noise_for_each_person_ask_for_nothing(tmp_path):
    for name, words in {"open": [], "noise": ["privacy=dp_sgd", "dataset.scaling=declared"]}.items():
        (folder := tmp_path / name).mkdir()
        policy = POLICY if words else "public_data"
        site = Site(folder, "dataset.batch_size=64", *words, policy=policy)
        assert [site.ask("statistics").fault, without(site, 3).ask("statistics").fault] == [None, None]


def test_what_is_kept_of_it_names_nobody_and_is_the_owners_alone(site):
    site.ask("statistics")
    assert {path.stat().st_mode & 0o777 for path in (site.silo.home / KEPT).iterdir()} == {0o600}
    [path] = kept(site)
    cohort, _ = load_file(path)
    person = journal_of("west", site.silo.site, site.silo.home).person  # a MAC under the site's own key
    assert sorted(cohort["persons"].tolist()) == sorted(int(person(f"p{number}")[:16], 16) for number in range(42))
    [place] = np.flatnonzero(cohort["persons"] == int(person("p3")[:16], 16))
    assert sorted(cohort["examples"][place].tolist()) == [0, 0, 10, 10]  # in one split, and in the table
    assert {array.dtype.kind for array in cohort.values()} <= {"i", "u"}
    head, _, _ = path.read_bytes().partition(b"}}")  # what follows are these numbers
    assert b"p3" not in head


def test_a_file_that_is_none_of_ours_is_in_nobodys_way(site):
    folder = site.silo.home / KEPT
    folder.mkdir(parents=True)
    for name in (".1.5.0123456789abcdef0123456789abcdef.4711.tmp", "1.5.0123456789abcdef0123456789abcdef~"):
        (folder / name).write_text("half")
    assert site.ask("statistics").fault is None
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_of_what_was_refused_before_the_cohort_was_read_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "datamodule", lambda *_: pytest.fail("the cohort was read"))
    site = Site(tmp_path, "dataset.batch_size=64", policy=POLICY | {"maximum_parameters": 1})
    assert site.ask("statistics").fault is Fault.REFUSED_RULE
    assert kept(site) == []


@pytest.mark.parametrize("words", [(), ("privacy=dp_sgd", "dataset.scaling=declared")])
def test_a_refusal_for_few_to_train_on_counts_as_an_answer(tmp_path, words):
    """By the share at which it begins, the number of persons would be found of both, and subtracted."""
    site = Site(tmp_path, "dataset.split.train=0.1", "dataset.batch_size=4", *words)
    assert site.ask("fit").fault is Fault.REFUSED_FEW_PERSONS
    assert without(site, 3).ask("fit").fault is Fault.REFUSED_NEAR
    assert without(site, 3, 11, 12, 20, 25).ask("fit").fault is Fault.REFUSED_FEW_PERSONS


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (ZeroDivisionError(), Fault.RAISED),
        (Refusal(Fault.REFUSED_PROTOCOL), Fault.REFUSED_PROTOCOL),
        (OSError(errno.ENOSPC, "full"), Fault.DISK),
    ],
)
def test_what_goes_wrong_counts_as_an_answer_too(site, monkeypatch, wrong, fault):
    """Which it is depends on the rows, as where sums that were sent are held against those of the site."""
    with monkeypatch.context() as broken:
        broken.setattr(Steps, "answer", lambda *_: (_ for _ in ()).throw(wrong))
        assert site.ask("statistics").fault is fault
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_of_a_cohort_that_cannot_be_kept_nothing_leaves(site, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(cohorts_apart, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        full.setattr(Steps, "answer", lambda *_: pytest.fail("it was computed"))
        assert [site.ask(step, **params).fault for step, params in STEPS] == [Fault.DISK] * 3
    assert kept(site) == []
    assert site.ask("fit").fault is None
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_of_two_that_are_asked_about_at_a_time_one_is_refused(site, tmp_path):
    """As by two processes at one home: each waits until the other has put its cohort down."""
    (tmp_path / "there").mkdir()
    there = Site(tmp_path / "there", "dataset.batch_size=64")
    there.silo = Silo("west", there.silo.site, site.silo.home)
    without(there, 3)
    there.silo = Silo("west", there.silo.site, site.silo.home)
    (folder := site.silo.home / KEPT).mkdir(parents=True)
    with (folder / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits = pool.submit(there.ask, "statistics")
        with pytest.raises(TimeoutError):
            waits.result(timeout=1)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waits.result(timeout=60).fault is None
    assert site.ask("fit").fault is Fault.REFUSED_NEAR


def test_one_of_before_is_answered_again_whatever_was_permitted_since(tmp_path):
    site = Site(tmp_path, "dataset.batch_size=64", policy=POLICY | {"near_cohorts": "answered"})
    for gone in ((), (3,)):
        assert without(site, *gone).ask("statistics").fault is None
    for gone, fault in (((3,), Fault.REFUSED_NEAR), ((), None)):
        site.silo = Silo("west", replace(site.silo.site, policy=POLICY), site.silo.home)
        assert without(site, *gone).ask("fit").fault is fault


def under(site: Site, cell: int) -> Site:
    """The same site under another minimum cell."""
    own = replace(site.silo.site, policy=POLICY | {"minimum_cell": cell})
    site.silo = Silo("west", own, site.silo.home)
    return site


def test_a_cohort_of_which_another_minimum_cell_tells_nothing_new_is_answered_about(tmp_path):
    site = Site(tmp_path, "dataset.batch_size=64", "dataset.split.validate=0.15")
    assert site.ask("statistics").fault is None
    for cell in (10, 3):
        assert (under(site, cell).ask("statistics").fault, len(kept(site))) == (None, 1)


@pytest.mark.parametrize("cells", [(5, 10), (10, 5)])
def test_a_cohort_of_which_another_minimum_cell_tells_of_few_more_is_refused_and_the_log_says_why(tmp_path, cells):
    """Four to test on are in no number under 5, and under 10 in the total, with nine to validate on."""
    site = Site(tmp_path, "dataset.batch_size=64", "dataset.split.train=0.71", "dataset.split.validate=0.2")
    before, after = cells
    first = under(site, before).ask("statistics")
    assert first.metrics["persons"] == {5: 38, 10: 42}[before]
    assert under(site, after).ask("statistics").fault is Fault.REFUSED_NEAR
    assert f"the same persons, under minimum_cell: {before}. Under {after} another part is told of" in log(site)
    assert "Put minimum_cell back" in log(site)


NAMES = [f"p{number}" for number in range(40)]


def cohort(train: Sequence[str], test: Sequence[str] = (), rows: Sequence[str] | None = None) -> Cohort:
    columns = {"train": Counter(train), "validate": Counter[str](), "test": Counter(test)}
    columns[""] = Counter([*train, *test] if rows is None else rows)
    return Cohort.of(columns, lambda name: hashlib.sha256(name.encode()).hexdigest())


BOTH = "split 'train' and its split 'test'"
WITH_REST = "split 'train' and its rows that are left out"


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        (cohort(NAMES), cohort(NAMES), None),
        (cohort(NAMES), cohort(NAMES[1:]), ("split 'train'", 1)),
        (cohort(NAMES), cohort(NAMES[4:]), ("split 'train'", 4)),
        (cohort(NAMES), cohort(NAMES[5:]), None),
        # all have another number of examples, and one of them has gone
        (cohort(NAMES * 3), cohort(NAMES[1:] * 2), ("split 'train'", 1)),
        (cohort(NAMES * 3, rows=NAMES), cohort(NAMES * 2, rows=NAMES), None),
        # one has another number of rows
        (cohort(NAMES), cohort([*NAMES, "p3"]), ("split 'train'", 1)),
        (cohort(NAMES, rows=NAMES), cohort(NAMES, rows=[*NAMES, "p3"]), ("table", 1)),
        # a skipped study of who has more examples than rows
        (cohort(NAMES * 5, rows=NAMES * 2), cohort(NAMES * 5, rows=NAMES * 2 + NAMES[:1]), ("table", 1)),
        # of few that are withheld apart the total tells
        (cohort(NAMES[:34], NAMES[34:37], NAMES), cohort(NAMES[:34], NAMES[34:37], NAMES[:39]), ("total", 1)),
        (cohort(NAMES[:34], NAMES[34:37], NAMES), cohort(NAMES[3:], rows=NAMES), ("total", 3)),
        (cohort(NAMES[:34], NAMES[34:38]), cohort(NAMES[2:38], rows=NAMES[:38]), None),
        (cohort(NAMES * 3, rows=NAMES), cohort(NAMES * 2, rows=[*NAMES, "p3"]), ("table", 1)),
        # of a small split and as many in no split; not of those who are in a split too
        (cohort(NAMES[:28], NAMES[28:32], NAMES + NAMES[:2]), cohort(NAMES[1:], rows=NAMES + NAMES[:2]), ("total", 1)),
        (cohort(NAMES[:36], NAMES[36:], NAMES + NAMES[:3]), cohort(NAMES[1:], rows=NAMES + NAMES[:3]), None),
        # what is used differs by one, and what is left out is of as many as may be told
        (cohort(NAMES[:30], rows=NAMES), cohort(NAMES[:29], rows=NAMES), ("split 'train'", 1)),
        (cohort(NAMES[:15], NAMES[15:30], NAMES), cohort(NAMES[14:20], NAMES[20:29] + NAMES[:14], NAMES), (BOTH, 1)),
        (cohort(NAMES[:20], rows=NAMES), cohort(NAMES[20:], rows=NAMES[1:]),
         (WITH_REST, 1)),
        # three of a test set are in nothing that is told of the first
        (cohort(NAMES[:27], NAMES[27:30], NAMES), cohort(NAMES[5:17], NAMES[17:30] + NAMES[35:] + NAMES[:5], NAMES),
         (WITH_REST, 3)),
        # a split is near a whole cohort, or another's other split
        (cohort(NAMES[:20], NAMES[20:]), cohort(NAMES[1:20]), ("split 'train'", 1)),
        (cohort(NAMES[:20], NAMES[20:]), cohort([*NAMES[20:], "new"], NAMES[5:15]), ("split 'test'", 1)),
        # of fewer than a cell nothing is told, alone or with others
        (cohort(NAMES[:20], NAMES[20:36], NAMES), cohort(NAMES[10:30], NAMES[30:36] + NAMES[:10], NAMES), None),
        (cohort(NAMES[:20], NAMES[20:], NAMES), cohort(NAMES[:20], NAMES[20:37], NAMES), (BOTH, 3)),
        (cohort(NAMES[:20], NAMES[20:], NAMES), cohort(NAMES[10:30], NAMES[30:37] + NAMES[:10], NAMES), (BOTH, 3)),
        (cohort(NAMES[:20], NAMES[20:23]), cohort(NAMES[:10], NAMES[20:24]), None),
        (cohort(NAMES[:20], NAMES[20:23]), cohort(NAMES[:10], NAMES[20:25]), None),
    ],
)  # fmt: skip
def test_sets_of_persons_are_near_where_few_are_in_one_alone_or_have_other_examples_there(ours, theirs, found):
    assert ours.near(theirs, 5, 5) == found


def test_of_an_answer_under_a_smaller_cell_smaller_sets_were_told():
    ours, theirs = cohort(NAMES[:20], NAMES[20:25]), cohort(NAMES[:10], NAMES[20:24])
    assert [ours.near(theirs, 5, then) for then in (4, 5)] == [("split 'test'", 1), None]


def test_a_set_of_persons_that_was_changed_is_noticed(site):
    assert site.ask("statistics").fault is None
    for path in kept(site):
        path.write_bytes(path.read_bytes()[:-8])
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR
    assert "is not as it was written" in log(site)


def test_a_dataset_that_names_nobody_is_known_by_its_codes():
    class Codes:
        def whose(self, split: str) -> np.ndarray:
            return np.array({"train": [0, 0, 1], "validate": [2], "test": []}[split], np.int64)

    assert {name: dict(persons) for name, persons in columns_of(Codes()).items()} == {  # type: ignore[arg-type]
        "train": {"row 1": 2, "row 2": 1},
        "validate": {"row 3": 1},
        "test": {},
        "": {"row 1": 2, "row 2": 1, "row 3": 1},
    }
