"""A cohort table: read as hospitals write it, split by person, scaled by the site's own or the agreed statistics."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.cohort_table import CohortTable
from datamodules.splits import ByPerson, ByShare

HEADER_OF_UCI = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
]  # fmt: skip
HEADER = ["id", "age", "pain", "outcome"]


def write(path: Path, rows: list[list[object]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header or HEADER, *rows])
    return path


def rows(number: int = 40) -> list[list[object]]:
    rng = np.random.default_rng(3)
    return [[f"p{index}", int(rng.integers(40, 80)), 1 + index % 3, index % 2] for index in range(number)]


def table(root: Path, **arguments) -> CohortTable:
    declared = {"numeric": ["age"], "categorical": {"pain": [1, 2, 3]}, "label": "outcome", "batch_size": 8}
    return CohortTable(str(root), **{**declared, **arguments})


def whole(loader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_categories_are_one_hot_without_their_first_level(tmp_path):
    data = table(write(tmp_path / "c.csv", rows()))
    assert whole(data.train_dataloader())["features"].shape[1] == 3


def test_training_rows_have_mean_zero_and_deviation_one(tmp_path):
    features = whole(table(write(tmp_path / "c.csv", rows())).train_dataloader())["features"]
    assert features.mean(dim=0).numpy() == pytest.approx(0, abs=1e-5)
    assert features.std(dim=0).numpy() == pytest.approx(1, abs=1e-5)


def test_rows_with_a_missing_value_are_left_out_and_counted(tmp_path):
    data = table(write(tmp_path / "c.csv", [*rows(), ["x", "?", 1, 0], ["y", 50, "?", 0]]), missing="?")
    data.setup()
    assert sum(len(each.dataset) for each in (data.train_dataloader(), data.test_dataloader())) == 40
    assert data.skipped == {"a value that the study uses is missing": 2}


def test_persons_are_distinct(tmp_path):
    repeated = [*rows(10), *rows(10)]
    assert table(write(tmp_path / "c.csv", repeated), person="id").persons() == 10
    assert table(write(tmp_path / "c.csv", repeated)).persons() == 20


def test_no_person_is_in_two_splits(tmp_path):
    # Age tells the person here, so a shared age would be a shared person.
    repeated = [[f"p{index % 20}", index % 20, 1 + index % 3, index % 2] for index in range(60)]
    data = table(write(tmp_path / "c.csv", repeated), person="id", split=ByShare(train=0.5, validate=0.2))
    data.setup()
    ages = [set(data._rows[split][0][:, 0]) for split in ("train", "validate", "test")]
    assert sum(map(len, ages)) == 20
    assert set.union(*ages) == set(range(20))


def test_a_site_that_is_only_tested_on_has_all_rows_in_its_test_split(tmp_path):
    data = table(write(tmp_path / "c.csv", rows()), trains=False)
    data.setup()
    assert len(data.test_dataloader().dataset) == 40
    assert not data.val_dataloader()


def test_the_site_maps_its_own_column_names(tmp_path):
    path = write(tmp_path / "c.csv", rows(), ["id", "AGE_YEARS", "pain", "outcome"])
    assert table(path, columns={"age": "AGE_YEARS"}).persons() == 40


def test_a_missing_column_names_itself_and_the_remedy(tmp_path):
    path = write(tmp_path / "c.csv", rows(), ["id", "AGE_YEARS", "pain", "outcome"])
    with pytest.raises(ValueError, match=r"no column age; map it in the site's `columns`"):
        table(path).persons()


def test_text_where_a_number_belongs_names_the_column(tmp_path):
    with pytest.raises(ValueError, match="column age holds text"):
        table(write(tmp_path / "c.csv", [*rows(), ["x", "unknown", 1, 0]])).setup()


def test_a_level_that_was_not_declared_is_named(tmp_path):
    with pytest.raises(ValueError, match="column pain holds 9"):
        table(write(tmp_path / "c.csv", [*rows(), ["x", 50, 9, 0]])).setup()


def test_an_absent_table_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        table(tmp_path / "none.csv").persons()


def test_agreed_scaling_equals_that_of_the_pooled_rows(tmp_path):
    sites = [table(write(tmp_path / f"{name}.csv", rows(number))) for name, number in (("a", 20), ("b", 60))]
    merged = {"moments/features": sum(site.statistics()["moments/features"] for site in sites)}
    train = np.concatenate([site._rows["train"][0] for site in sites])
    for site in sites:
        site.agree(merged)
    expected = (sites[0]._rows["test"][0] - train.mean(axis=0)) / train.std(axis=0, ddof=1)
    assert whole(sites[0].pooled_test_dataloader())["features"].numpy() == pytest.approx(expected, abs=1e-5)


def test_moments_that_tell_of_few_persons_stay_and_their_feature_is_not_scaled(tmp_path):
    # Of level 3 there are four persons, with five rows each.
    level = [3 if number % 40 < 4 else 1 + number % 2 for number in range(200)]
    listed = [[f"p{number % 40}", 40 + number % 40, level[number], number % 2] for number in range(200)]
    data = table(write(tmp_path / "t.csv", listed), person="id", split=ByShare(train=0.9))
    told = data.statistics(5)["moments/features"]
    assert told[:, 0].tolist() == [len(data.whose("train"))] * 2 + [0]
    assert data.statistics(1)["moments/features"][2, 0] > 0
    data.agree({"moments/features": told})
    level = whole(data.pooled_test_dataloader())["features"][:, 2]
    assert set(level.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(("first", "told"), [(0, [20, 20]), (2, [0, 22]), (5, [20, 25])])
def test_the_level_that_is_no_column_cannot_be_told_from_the_others(tmp_path, first, told):
    pains = [1] * first + [2] * 20 + [3] * (20 + first)
    lines = [[f"p{index}", 40 + index, pain, index % 2] for index, pain in enumerate(pains)]
    data = table(write(tmp_path / "c.csv", lines), split=ByPerson(train=1.0, validate=0.0))
    assert data.statistics(5)["moments/features"][1:, 1].tolist() == told
    assert data.statistics(1)["moments/features"][1:, 1].tolist() == [20, 20 + first]


def test_batches_say_whose_their_rows_are(tmp_path):
    listed = [[f"p{number % 20}", 40 + number, 1, number % 2] for number in range(40)]
    data = table(write(tmp_path / "t.csv", listed), person="id")
    for split, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
        assert sorted(whole(loader)["person"].tolist()) == sorted(data.whose(split).tolist())
        assert len(set(data.whose(split).tolist())) * 2 == len(data.whose(split))


def test_pooled_scaling_trains_on_the_agreed_statistics(tmp_path):
    site = table(write(tmp_path / "c.csv", rows()), scaling="pooled")
    site.agree({"moments/features": np.array([[10.0, 0, 90], [10, 0, 90], [10, 0, 90]])})
    site.setup()
    expected = site._rows["train"][0] / np.sqrt(10)
    got = np.sort(whole(site.train_dataloader())["features"].numpy(), axis=0)
    assert got == pytest.approx(np.sort(expected, axis=0), rel=1e-5)


def test_the_published_split_of_the_four_hospitals(data_dir):
    sizes = {}
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        data = CohortTable(
            str(data_dir / "uci_heart" / f"processed.{hospital}.data"),
            missing="?", split=ByShare(seed=43), label="num",
            header=HEADER_OF_UCI,
            numeric=["age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"],
            categorical={"cp": [1, 2, 3, 4], "restecg": [0, 1, 2]},
        )  # fmt: skip
        data.setup()
        sizes[hospital] = (len(data.train_dataloader().dataset), len(data.test_dataloader().dataset))
    assert sizes == {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
