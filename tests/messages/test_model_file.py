"""A model's file holds all that another hospital needs to read its rows as the training did, and is refused changed."""

import json

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.errors import UserError
from flip.messages.model_file import ModelFile, load_model, model_of, save_model
from flip.messages.safetensors import save_file
from flip.messages.weights import LAST_WEIGHTS, digest
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

WEIGHTS = {"linear.weight": np.ones((1, 2), np.float32)}


@pytest.fixture
def model() -> ModelFile:
    return model_of(WEIGHTS, {"moments/features": np.eye(2)}, '{"name": "heart"}', pooled=False)


def test_what_was_written_is_read(tmp_path, model):
    save_model(tmp_path / LAST_WEIGHTS, model)
    for path in (tmp_path, tmp_path / LAST_WEIGHTS):  # a run's folder, or the file
        found = load_model(path)
        assert found.weights["linear.weight"].tolist() == [[1, 1]]
        assert found.agreed["moments/features"].tolist() == [[1, 0], [0, 1]]
        assert (found.manifest, found.digest, found.pooled) == ({"name": "heart"}, digest(WEIGHTS), False)


def test_a_bundle_is_told_apart_from_a_run_with_what_it_is_good_for(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a MONAI Bundle, .* train from it \(init=.*\), or name the run"):
        load_model(tmp_path)


@pytest.mark.parametrize("federation", ["inprocess", "none"])
def test_a_run_leaves_what_its_sites_agreed_on_beside_the_weights(tmp_path, federation):
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"), f"federation={federation}")
    result = execute(study, tmp_path / "run")
    found = load_model(tmp_path / "run")
    assert found.digest == result["digest"]
    assert found.agreed["moments/features"][0, 0] == found.agreed["count/label"].sum() > 0
    assert found.manifest == json.loads(study.manifest_text)
    assert found.pooled == (federation == "none")


def test_any_other_file_is_refused_with_the_remedy(tmp_path, model):
    plain, cut, changed, old = (tmp_path / name for name in ("plain", "cut", "changed", "old"))
    plain.write_text("x" * 20)
    save_model(changed, model)
    cut.write_bytes(changed.read_bytes()[:-4])
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    save_file(old, WEIGHTS)
    for path, words in (
        (tmp_path, "holds no weights/last.safetensors"),
        (tmp_path / "none", "is no file"),
        (plain, "is no model's file"),
        (cut, "is no model's file"),
        (changed, "not those that it was written with"),
        (old, "as the files of earlier versions"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            load_model(path)
        assert "; " in str(refused.value)
