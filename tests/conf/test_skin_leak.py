"""The skin data's label leaks through what is missing: the shipped study has no such field, and hides what is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from datamodules.multimodal import Multimodal
from flip.config import build
from tests.studies import compose_study

LEAKY = {  # known together, and hardly ever for a lesion that is no cancer; `biopsed` is what a diagnosis leads to
    "smoke", "drink", "background_father", "background_mother", "pesticide", "gender", "skin_cancer_history",
    "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick", "diameter_1", "diameter_2", "biopsed",
}  # fmt: skip
LEAK_FREE = {"age", "region", "itch", "grew", "hurt", "changed", "bleed", "elevation"}
CHANCE = pytest.approx(0.5, abs=0.05)


def shipped(data_dir: Path, *overrides: str) -> Multimodal:
    """The whole cohort as the shipped study declares it, on one site; photographs are not needed here."""
    model = ["model=linear_classifier", "model.features=1"]  # only the data are looked at
    one = ["dataset=skin_lesions", "sites=skin", *model, "name=skin", f"paths.data_dir={data_dir}"]
    study = compose_study(*one, "dataset.image=null", "dataset.partition=null", *overrides)
    site = study.sites["clinic_0"]
    site.part = None
    data: Multimodal = build.datamodule(study.manifest, "clinic_0", site)
    return data


def hide_values(data: Multimodal) -> None:
    """Shuffle what is known among the rows where it is known: what is missing is then all that a row can tell."""
    data.setup()
    rng = np.random.default_rng(0)
    table = data._read().table
    for name in sorted(LEAK_FREE):
        known = table[name].notna()
        table.loc[known, name] = rng.permutation(table.loc[known, name])


def skill(features: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """Area under the curve of logistic regression, one class against the rest, weighted by their frequency."""
    (x, y), (x_test, y_test) = features["train"], features["test"]
    model = LogisticRegression(max_iter=1000).fit(x, y)
    return float(roc_auc_score(y_test, model.predict_proba(x_test), multi_class="ovr", average="weighted"))


def tabular(data: Multimodal) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for split, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        found[split] = tuple(np.concatenate([batch[key].numpy() for batch in batches]) for key in ("tabular", "label"))
    return found


def test_the_shipped_study_has_the_leak_free_fields_and_no_other(data_dir):
    data = shipped(data_dir)
    assert data.tabular is not None and set(data.tabular.columns) == LEAK_FREE
    used = LEAK_FREE | {"diagnostic", "patient_id", "img_id"}
    table = pd.read_csv(data_dir / "pad_ufes_20" / "metadata.csv", nrows=1)
    assert set(table) >= LEAKY and not used & LEAKY


def test_what_is_missing_in_the_shipped_fields_tells_nothing_of_the_diagnosis(data_dir):
    data = shipped(data_dir)
    hide_values(data)
    assert data._read().table[sorted(LEAK_FREE)].isna().sum().sum() > 500  # there is something to be told by
    assert skill(tabular(data)) == CHANCE


def test_the_same_model_finds_the_leak_where_it_is_told_what_is_missing(data_dir):
    data = shipped(data_dir, "dataset.tabular.missing_indicators=true")
    hide_values(data)
    assert skill(tabular(data)) > 0.57  # .586 to .619 over six shuffles, .453 to .521 where it is not told


def test_the_shipped_fields_themselves_tell_the_diagnosis(data_dir):
    assert skill(tabular(shipped(data_dir))) > 0.8


def test_having_a_photograph_tells_nothing_of_the_diagnosis(data_dir):
    data = shipped(data_dir)
    data.setup()
    photographs = {path.stem for path in (data_dir / "pad_ufes_20" / "images").iterdir()}
    present = np.array([[Path(str(name)).stem in photographs] for name in data._read().accession], float)
    assert present.sum() == 116 and len(present) == 2207
    rows = {split: data._splits == split for split in ("train", "test")}
    assert skill({split: (present[rows[split]], data._target["label"][rows[split]]) for split in rows}) == CHANCE
