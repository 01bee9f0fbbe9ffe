"""What sites agree on from counts and sums equals scikit-learn on their pooled rows; rare levels stay at home."""

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from datamodules.harmonize import ComBat
from datamodules.tabular import Tabular
from datamodules.text import HashedText
from flip.site.persons import Persons
from flip.site.statistics import dataset_summaries

NUMERIC, CATEGORIES = ["age", "creatinine"], {"stage": 4, "sex": ["male", "female"]}


def cohorts() -> list[pd.DataFrame]:
    rng = np.random.default_rng(11)
    made = []
    for number, size in enumerate((30, 7, 55)):
        made.append(
            pd.DataFrame(
                {
                    "age": rng.normal(55 + 5 * number, 11, size),
                    "creatinine": np.where(rng.random(size) < 0.2, np.nan, rng.lognormal(0, 1, size)),
                    "stage": rng.choice(["I", "II", "III", "IV"][: 3 + number % 2], size),
                    "sex": rng.choice(["male", "female"], size),
                }
            )
        )
    return made


def agreed(frames: list[pd.DataFrame], make=lambda: Tabular(NUMERIC, CATEGORIES)) -> list[dict[str, np.ndarray]]:
    parts = [make() for _ in frames]
    tables = [part.read(frame) for part, frame in zip(parts, frames, strict=True)]
    told = [part.statistics(table, np.arange(len(table)))[0] for part, table in zip(parts, tables, strict=True)]
    merged = {name: sum(each[name] for each in told if name in each) for name in {n for each in told for n in each}}
    encoded = []
    for part, table in zip(parts, tables, strict=True):
        part.agree(merged)
        encoded.append(part.encode(table, np.ones(len(table), bool)))
    return encoded


def test_scaling_imputation_and_levels_equal_scikit_learns_on_pooled_rows():
    pooled = pd.concat(cohorts(), ignore_index=True)
    imputed = SimpleImputer(strategy="mean").fit_transform(pooled[NUMERIC])
    known = StandardScaler().fit(pooled[NUMERIC])
    numbers = (imputed - known.mean_) / known.scale_
    levels = OneHotEncoder(categories=[["I", "II", "III", "IV"], ["male", "female"]], sparse_output=False)
    expected = np.hstack([numbers, levels.fit_transform(pooled[["stage", "sex"]])])
    ours = np.concatenate([each["tabular"] for each in agreed(cohorts())])
    assert ours == pytest.approx(expected, abs=1e-6)


def test_document_frequencies_and_weights_equal_scikit_learns_on_pooled_notes():
    notes = [["fever and cough", "no fever, no pain"], ["pain in the chest", "cough"], ["chest pain and fever"]]
    parts = [HashedText(buckets=512, length=64) for _ in notes]
    told = [part.statistics(part.read(pd.Series(s)), np.arange(len(s))) for part, s in zip(parts, notes, strict=True)]
    merged = {name: sum(each[name] for each in told) for name in told[0]}
    pooled = [note for site in notes for note in site]
    counter = CountVectorizer(analyzer=parts[0].hashed, vocabulary=range(1, 513), lowercase=False)
    counts = counter.fit_transform(pooled)
    assert merged["count/text/buckets"].tolist() == (counts > 0).sum(axis=0).A1.tolist()
    expected = TfidfTransformer(sublinear_tf=True).fit_transform(counts).toarray()
    parts[0].agree(merged)
    encoded = parts[0].encode(parts[0].read(pd.Series(pooled)))
    dense = np.zeros((len(pooled), 513))
    np.put_along_axis(dense, encoded["text"], encoded["text_weight"], axis=1)
    assert dense[:, 1:] == pytest.approx(expected, abs=1e-6)


class OneSite:
    """A dataset of one table, as the engine sees it."""

    def __init__(self, table: pd.DataFrame, person: np.ndarray, tabular: Tabular) -> None:
        self.told = tabular.statistics(tabular.read(table), person)

    def statistics(self) -> dict[str, np.ndarray]:
        return self.told[0]

    def behind(self) -> dict[str, int]:
        return self.told[1]

    def agree(self, agreed: dict[str, np.ndarray]) -> None:
        raise AssertionError("nothing is agreed here")


def test_a_level_of_fewer_persons_than_the_minimum_cell_never_leaves_nor_does_its_name():
    table = pd.DataFrame({"dx": ["common"] * 8 + ["known"] * 5 + ["rare"] * 4})
    person = np.array([*range(13), 13, 13, 14, 14])  # four rows of two persons
    site = OneSite(table, person, Tabular(categorical={"dx": 5}))
    told = dataset_summaries(Persons.of(np.arange(15)), site, 3)
    assert list(told) == ["count/levels/dx/common"]  # 13 of 15 named would tell that 2 are not
    assert "rare" in str(list(dataset_summaries(Persons.of(np.arange(15)), site, 1)))


def test_moments_of_fewer_persons_than_the_minimum_cell_are_withheld_however_many_rows_they_have():
    table = pd.DataFrame({"rare": [1.0] * 6 + [np.nan] * 6, "age": np.arange(12.0)})
    site = OneSite(table, np.arange(12) // 3, Tabular(["rare", "age"]))
    told = dataset_summaries(Persons.of(np.arange(12) // 3), site, 3)
    assert told["moments/tabular/rare"].withheld
    assert not told["moments/tabular/age"].withheld


def test_a_missing_number_is_the_agreed_mean_and_an_absent_row_is_masked():
    frames = [
        pd.DataFrame({"age": [1.0, 3.0], "creatinine": [2.0, 4.0]}),
        pd.DataFrame({"age": [np.nan, np.nan], "creatinine": [1.0, np.nan]}),
    ]
    encoded = agreed(frames, lambda: Tabular(NUMERIC))[1]
    assert encoded["tabular"][:, 0].tolist() == [0, 0]
    assert encoded["tabular_present"].tolist() == [1, 0] and not encoded["tabular"][1].any()


def test_a_missing_category_looks_like_any_other_and_is_the_same_when_read_again():
    table = pd.DataFrame({"grew": ["yes"] * 60 + ["no"] * 40 + [None] * 300, "age": np.arange(400.0)})
    first, again = (agreed([table], lambda: Tabular(["age"], {"grew": 2}))[0]["tabular"] for _ in range(2))
    assert np.array_equal(first, again)
    assert set(map(tuple, first[100:, 1:].tolist())) == {(0.0, 1.0), (1.0, 0.0)}
    assert first[100:, 2].mean() == pytest.approx(0.6, abs=0.1)


def test_missing_indicators_are_there_on_request_alone():
    table = pd.DataFrame({"age": [1.0, np.nan], "sex": ["f", None]})
    make = lambda: Tabular(["age"], {"sex": 2}, missing_indicators=True)  # noqa: E731
    assert make().width == 5 and agreed([table], make)[0]["tabular"][0, 3:].tolist() == [0, 0]
    assert Tabular(["age"], {"sex": 2}).width == 3


def test_the_most_frequent_levels_take_the_declared_slots():
    table = pd.DataFrame({"region": ["ear"] * 2 + ["nose"] * 5 + ["lip"] + ["arm"] * 3})
    encoded = agreed([table], lambda: Tabular(categorical={"region": 2}))[0]["tabular"]
    assert encoded[[2, -1]].tolist() == [[0, 1], [1, 0]]  # arm, nose


def test_harmonised_columns_take_the_place_of_their_own():
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame(rng.normal(3 * site, 1 + site, (50, 3)), columns=["a", "b", "c"]) for site in range(3)]
    make = lambda: Tabular(["a", "b", "c"], harmonize=ComBat(["a", "b", "c"]))  # noqa: E731
    means = np.stack([each["tabular"].mean(axis=0) for each in agreed(frames, make)])
    plain = np.stack([each["tabular"].mean(axis=0) for each in agreed(frames, lambda: Tabular(["a", "b", "c"]))])
    assert np.abs(means).max() < 0.1 < np.abs(plain).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name a column"),
        ({"categorical": {"sex": 0}}, "categorical.sex: must have 1 level or more"),
        ({"numeric": ["a"], "harmonize": ComBat(["a", "b"])}, "harmonize: b is not among"),
    ],
)
def test_a_mistake_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tabular(**arguments)


@pytest.mark.parametrize("documents", [0.0, 3.0, 1e300])
@pytest.mark.parametrize("rare", [0.0, 2.0, 1e300])
def test_whatever_frequencies_are_sent_no_note_is_made_large(documents, rare):
    text = HashedText(buckets=64)
    frequency = np.full(64, 2.0)
    frequency[::2] = rare
    text.agree({"count/text/buckets": frequency, "count/text/documents": np.array([documents])})
    weights = text.encode(text.read(pd.Series(["fever and cough", "chest pain"])))["text_weight"]
    lengths = np.sqrt((weights**2).sum(axis=1))
    assert ((lengths == 0) | (abs(lengths - 1) < 1e-6)).all()
