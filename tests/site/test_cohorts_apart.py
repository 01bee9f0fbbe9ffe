"""What is withheld of few persons cannot be had from the answers about two cohorts: the second one is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault
from flip.site.cohorts_apart import _cohorts
from flip.site.journal import journal_of
from flip.site.silo import Silo
from tests.site.test_disclosure import CELL, POLICY, Site
from tests.site.test_gate import Hospital

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
    return sorted((site.silo.home / KEPT).glob("[0-9]*[0-9]")) if (site.silo.home / KEPT).exists() else []


def log(site: Site) -> str:
    return (site.silo.home / "site.log").read_text()


@pytest.mark.parametrize("gone", [(3,), (3, 17, 20, 41)])
@pytest.mark.parametrize(("step", "params"), STEPS)
def test_a_cohort_that_differs_by_fewer_persons_than_the_minimum_cell_is_refused(site, step, params, gone):
    assert site.ask("statistics").fault is None
    refused = without(site, *gone).ask(step, **params)
    assert (refused.fault, refused.examples, dict(refused.metrics), dict(refused.weights)) == (
        Fault.REFUSED_NEAR,
        0,
        {},
        {},
    )
    assert not refused.summaries
    assert f"the cohort differs by {len(gone)} of its persons" in log(site)
    assert f"(minimum_cell: {CELL})" in log(site)


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
    assert len(kept(site)) == 3  # all, and two splits, as the study validates on nobody


def test_a_row_of_a_person_counts_as_the_person(site):
    assert site.ask("statistics").fault is None
    table = site.silo.home.parent / "cohort.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:35] + lines[36:]))
    site.silo = Silo("west", site.silo.site, site.silo.home)
    assert site.ask("statistics").fault is Fault.REFUSED_NEAR
    assert "the cohort differs by 1 of its persons" in log(site)


@pytest.mark.parametrize("first", [0, 1])
def test_a_split_of_few_that_is_withheld_is_not_had_from_another_split(tmp_path, first):
    whole = Site(tmp_path, "dataset.batch_size=64")
    less = Site(tmp_path, "dataset.batch_size=64", "dataset.split.validate=0.05", "dataset.split.seed=7")
    sites = [whole, less]
    assert sites[first].ask("statistics").fault is None
    assert sites[1 - first].ask("statistics").fault is Fault.REFUSED_NEAR
    assert "the cohort differs by" in log(whole)


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


def test_rows_without_names_are_known_by_their_number(tmp_path):
    hospital = Hospital(tmp_path)
    assert hospital.silo.answer(hospital.task("statistics")).fault is None
    table = tmp_path / "data" / "uci_heart" / "processed.cleveland.data"
    table.write_text("\n".join(table.read_text().splitlines()[1:]) + "\n")
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
    lines = {line for path in kept(site) for line in path.read_text().splitlines()}
    assert f"{journal_of('west', site.silo.site, site.silo.home).person('p3')} 10" in lines
    assert not any("p3" in path.read_text() for path in kept(site))


def test_a_file_that_is_none_of_ours_is_in_nobodys_way(site):
    folder = site.silo.home / KEPT
    folder.mkdir(parents=True)
    for name in (".1.0123456789abcdef0123456789abcdef.42.4711.tmp", "1.0123456789abcdef0123456789abcdef.42~"):
        (folder / name).write_text("half")
    assert site.ask("statistics").fault is None
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR


def test_of_what_was_refused_otherwise_nothing_is_kept(tmp_path):
    site = Site(tmp_path, "dataset.split.train=0.12", "dataset.batch_size=4")
    assert site.ask("fit").fault is Fault.REFUSED_FEW_PERSONS
    assert kept(site) == []


def test_a_set_of_persons_that_was_changed_is_noticed(site):
    assert site.ask("statistics").fault is None
    for path in kept(site):
        path.write_text(path.read_text()[67:])
    assert without(site, 3).ask("statistics").fault is Fault.REFUSED_NEAR
    assert "is not as it was written" in log(site)


def test_a_dataset_that_names_nobody_is_known_by_its_codes():
    class Codes:
        def whose(self, split: str) -> np.ndarray:
            return np.array({"train": [0, 0, 1], "validate": [2], "test": []}[split], np.int64)

    assert {name: dict(persons) for name, persons in _cohorts(Codes(), 2)} == {  # type: ignore[arg-type]
        "the cohort": {"row 1": 2, "row 2": 1},
        "its split 'train'": {"row 1": 2, "row 2": 1},
        "its split 'validate'": {"row 3": 1},
        "its split 'test'": {},
    }
