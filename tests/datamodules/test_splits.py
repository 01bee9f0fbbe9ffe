"""Splits by person, and the partition of a cohort into simulated sites."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from datamodules.splits import ByColumn, ByHash, ByPerson, ByShare, Dirichlet

PERSON = np.repeat(np.arange(200), 3)
STRATA = np.repeat(np.arange(200) % 4 == 0, 3).astype(np.int64)
EMPTY = pd.DataFrame(index=range(600))


def test_no_person_is_in_two_splits_and_every_split_has_the_classes_shares():
    split = ByPerson(train=0.5, validate=0.25, seed=1).split(EMPTY, PERSON, STRATA)
    assert {name: len(set(PERSON[split == name])) for name in set(split)} == {"train": 100, "validate": 50, "test": 50}
    assert all(len({*split[person == PERSON]}) == 1 for person in range(200))
    assert [STRATA[split == name].mean() for name in ("train", "test")] == pytest.approx([0.25, 0.25], abs=0.03)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_site_of_few_persons_can_be_split(number):
    split = ByPerson(train=0.6, validate=0.2).split(EMPTY[:number], np.arange(number), np.arange(number))
    assert len(split) == number and (split == "train").any()


def test_a_declared_split_is_kept_and_checked():
    table = pd.DataFrame({"fold": ["train", "val", "test"]})
    assert ByColumn("fold", validate="val").split(table, np.arange(3), np.zeros(3)).tolist() == [
        "train", "validate", "test",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="puts a person into two splits"):
        ByColumn("fold", validate="val").split(table, np.array([0, 0, 1]), np.zeros(3))
    with pytest.raises(ValueError, match="holds values other than train, validate, test"):
        ByColumn("fold").split(table, np.arange(3), np.zeros(3))


def test_parts_are_disjoint_together_the_cohort_and_the_same_for_a_seed():
    dirichlet = Dirichlet(parts=4, alpha=0.5, seed=3, minimum=10)
    parts = [dirichlet.rows(PERSON, STRATA, part) for part in range(4)]
    assert np.array_equal(np.sum(parts, axis=0), np.ones(600))
    assert all(not set(PERSON[part]) & set(PERSON[~part]) for part in parts)
    assert min(len(set(PERSON[part])) for part in parts) >= 10
    assert all(np.array_equal(part, dirichlet.rows(PERSON, STRATA, number)) for number, part in enumerate(parts))


def test_a_small_alpha_gives_the_parts_different_classes():
    shares = {
        alpha: [STRATA[Dirichlet(4, alpha, seed=0, minimum=5).rows(PERSON, STRATA, part)].mean() for part in range(4)]
        for alpha in (0.2, 1000.0)
    }
    assert np.std(shares[0.2]) > 5 * np.std(shares[1000.0])


@pytest.mark.parametrize(
    ("part", "minimum", "message"),
    [(4, 10, "4 is not one of the 4 parts"), (0, 60, "are more than the 200 here"), (0, 50, "raise alpha or lower")],
)
def test_a_partition_that_cannot_be_is_refused(part, minimum, message, monkeypatch):
    monkeypatch.setattr("datamodules.splits.TRIES", 20)
    with pytest.raises(ValueError, match=message):
        Dirichlet(parts=4, alpha=0.2, minimum=minimum).rows(PERSON, STRATA, part)


def test_published_shares_are_rounded_as_scikit_learn_rounds_them():
    split = ByShare(train=0.66, seed=43).split(EMPTY[:303], np.arange(303), np.arange(303) % 2)
    assert {name: int((split == name).sum()) for name in ("train", "test")} == {"train": 199, "test": 104}


def test_by_share_no_person_is_in_two_splits():
    split = ByShare(train=0.5, validate=0.2, seed=1).split(EMPTY, PERSON, STRATA)
    assert all(len({*split[person == PERSON]}) == 1 for person in range(200))


def test_a_hashed_split_does_not_depend_on_who_comes_first():
    persons = [f"p{number}" for number in range(40)]
    split = ByHash(validate=0.25, test=0.25, seed=2)
    assert split.split(persons) == split.split(persons[::-1])
    assert sorted(Counter(split.split(persons).values()).items()) == [("test", 10), ("train", 20), ("validate", 10)]
