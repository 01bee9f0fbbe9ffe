"""Numbers that a model takes from what the dataset declares."""

import pytest

from flip.config.checks.study import check
from flip.errors import UserError
from tests.cohorts.studies import TINY
from tests.studies import compose_study

SKIN = {"tabular.features": 27, "image.channels": 3, "target.classes": 6}


def sizes_of(study) -> dict[str, int]:
    encoders = study.manifest["model"]["encoders"]
    return {
        "tabular.features": encoders["tabular"]["features"],
        "image.channels": encoders["image"]["channels"],
        "target.classes": study.manifest["model"]["head"]["classes"],
    }


def test_the_manifest_holds_the_numbers_that_the_dataset_declares():
    assert sizes_of(compose_study("experiment=dermatology")) == SKIN


def test_they_follow_the_declared_columns():
    study = compose_study("experiment=dermatology", "dataset.tabular.categorical.smoke=[true,false]")
    assert sizes_of(study) == {**SKIN, "tabular.features": SKIN["tabular.features"] + 2}


def test_a_number_that_is_written_stays():
    study = compose_study("experiment=heart_disease", "model.features=12")
    assert study.manifest["model"]["features"] == 12


@pytest.mark.parametrize("name", TINY)
def test_no_site_is_needed_to_know_them(name):
    assert "${" not in compose_study(f"experiment={name}", "sites=[]").manifest_text


def test_a_size_that_the_dataset_does_not_declare_is_named_with_those_that_it_does():
    said = r"model\.features.*: cannot be resolved: the dataset declares no size features \(it declares: tabular"
    with pytest.raises(UserError, match=said):
        compose_study("experiment=lung_survival", "model=linear_classifier")


def test_a_dataset_that_cannot_be_built_is_the_mistake_that_is_told():
    with pytest.raises(UserError) as error:
        check(compose_study("experiment=lung_survival", "dataset.split.train=2"))
    assert [each for each in error.value.problems if "dataset.split: train" in each]
    assert not [each for each in error.value.problems if "model" in each]


def test_it_is_told_before_a_live_run_too():
    study = compose_study(
        "experiment=heart_disease", "dataset.split.train=2", "federation=flower_superlink", "federation.kit=kits/admin"
    )
    with pytest.raises(UserError, match=r"dataset\.split"):
        check(study)


def test_code_that_a_study_may_not_name_is_not_built_for_its_size(monkeypatch):
    monkeypatch.setattr("flip.config.build.declared", lambda dataset: pytest.fail("built"))
    study = compose_study("experiment=heart_disease", "dataset.split._target_=shutil.rmtree")
    with pytest.raises(UserError, match="outside the allowed prefixes"):
        check(study)
