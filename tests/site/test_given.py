"""Weights trained elsewhere: a hospital takes those that its own policy and the manifest name, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flip.config.build import initial_module
from flip.config.study import Study
from flip.files import ALONE, APPLIED
from flip.messages import Fault, Payload, Task
from flip.messages.model_file import model_digest
from flip.messages.weights import digest, to_arrays
from flip.messages.wire import join
from flip.site.silo import Silo
from tests.site.chosen_weights import AGREED, ask, hospital, study_of

GENTLE = ("model.optimizer.lr=0.01", "strategy.rounds=5")


def bringing(study: Study, *digests: str) -> Study:
    """The study with weights of these digests."""
    manifest = {**study.manifest, "given": list(digests)}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return replace(study, manifest=manifest, manifest_text=text)


def weights_of(study: Study, by: float = 3.0) -> Payload:
    """Weights far from the seeded ones."""
    return {name: array + np.float32(by) for name, array in to_arrays(initial_module(study.manifest)).items()}


@pytest.fixture
def given(tmp_path: Path) -> tuple[Study, Payload]:
    """A study that begins from given weights, and these."""
    study = study_of(tmp_path / "data", *GENTLE)
    return bringing(study, digest(weights_of(study))), weights_of(study)


@pytest.fixture
def silo(given: tuple[Study, Payload], tmp_path: Path) -> Silo:
    """A hospital that permits them."""
    return hospital(given[0], tmp_path / "home", models=[digest(given[1])])


def moved(weights: Payload, by: float) -> Payload:
    return {name: array + np.float32(by) for name, array in weights.items()}


@pytest.mark.parametrize("models", [None, ["0" * 64]])
def test_a_hospital_whose_policy_does_not_name_the_model_refuses_before_it_reads_a_row(given, tmp_path, models):
    study, _ = given
    silo = hospital(study, tmp_path / "home", **({} if models is None else {"models": models}))
    told = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text))
    assert told.fault is Fault.REFUSED_MODEL
    assert not silo._loaded


def test_the_first_round_begins_from_the_given_weights_and_nothing_else(silo, given):
    study, weights = given
    assert ask(silo, study, "fit", weights).fault is Fault.REFUSED_WEIGHTS  # they have not been sent
    assert ask(silo, study, "begin", weights).fault is None
    for other in (to_arrays(initial_module(study.manifest)), moved(weights, 0.01)):
        assert ask(silo, study, "fit", other).fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "fit", weights).fault is None


def kept(tmp_path: Path, weights: Payload) -> str:
    """A site's own file of these."""
    save_file({name: torch.from_numpy(array) for name, array in weights.items()}, tmp_path / "kept.safetensors")
    return str(tmp_path / "kept.safetensors")


def own_model(study: Study, home: Path, weights: Payload, *files: str) -> Silo:
    """A hospital that permits the model, and has these files."""
    silo = hospital(study, home, models=[digest(weights)])
    silo.place = replace(silo.place, site=replace(silo.site, models=list(files)))
    return silo


def test_training_begins_from_the_hospitals_own_file_and_none_of_it_is_sent(tmp_path):
    study = study_of(tmp_path / "data", *GENTLE, "strategy.share=[linear.bias]")
    weights = {"linear.weight": weights_of(study)["linear.weight"]}
    study, seeded = bringing(study, digest(weights)), to_arrays(initial_module(study.manifest))
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {"linear.weight": torch.zeros(1, 2)}}, other)
    silo = own_model(study, tmp_path / "home", weights, str(other), kept(tmp_path, weights))
    assert ask(silo, study, "begin", {}, model=digest(weights)).fault is None
    assert ask(silo, study, "fit", {"linear.bias": seeded["linear.bias"]}).fault is None
    (loaded,) = silo._loaded.values()
    assert float(abs(to_arrays(loaded.module)["linear.weight"] - weights["linear.weight"]).max()) < 0.1


def test_a_model_that_no_file_of_the_hospital_holds_is_refused_and_its_log_has_the_digest(given, tmp_path):
    study, weights = given
    (tmp_path / "broken.pt").write_bytes(b"no tensors")
    files = [kept(tmp_path, moved(weights, 0.01)), str(tmp_path / "broken.pt"), str(tmp_path / "gone.safetensors")]
    silo = own_model(study, tmp_path / "own", weights, *files)
    for task in (("begin", {}), ("evaluate", {}, 4, APPLIED)):
        told = ask(silo, study, *task, model=digest(weights), **({"split": "test"} if len(task) > 2 else {}))
        assert told.fault is Fault.REFUSED_NO_MODEL
    log = (tmp_path / "own" / "site.log").read_text()
    assert f"none of the 3 files in the site's file has the sha256 {digest(weights)}" in log
    assert "broken.pt: holds more than tensors" in log and "gone.safetensors is no file" in log.replace("\n", " ")


def test_a_file_of_the_hospitals_that_the_manifest_does_not_name_is_not_used(given, tmp_path):
    study, weights = given
    other = moved(weights, 0.01)
    silo = own_model(study, tmp_path / "own", weights, kept(tmp_path, other))
    told = ask(silo, study, "evaluate", {}, 4, APPLIED, split="test", model=digest(other))
    assert told.fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize("model", ["../kept.safetensors", "0" * 63])
def test_a_model_is_named_by_a_digest_alone_and_beside_no_weights(given, silo, model):
    study, weights = given
    assert ask(silo, study, "begin", {}, model=model).fault is Fault.REFUSED_PROTOCOL
    assert ask(silo, study, "begin", weights, model=digest(weights)).fault is Fault.REFUSED_PROTOCOL
    assert ask(silo, study, "fit", {}, model=digest(weights)).fault is Fault.REFUSED_PROTOCOL


def test_other_weights_than_those_named_are_not_begun_from(silo, given):
    study, weights = given
    assert ask(silo, study, "begin", moved(weights, 0.001)).fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "fit", moved(weights, 0.001)).fault is Fault.REFUSED_WEIGHTS


def test_later_rounds_are_measured_from_them(silo, given):
    study, weights = given
    assert ask(silo, study, "begin", weights).fault is None
    seeded = to_arrays(initial_module(study.manifest))
    assert ask(silo, study, "evaluate", moved(seeded, 0.01), split="test").fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "evaluate", moved(weights, 0.04), split="test").fault is None
    assert ask(silo, study, "evaluate", moved(weights, 0.2), 1, split="test").fault is Fault.REFUSED_WEIGHTS


def test_a_relaying_strategy_and_a_training_alone_begin_from_them_too(tmp_path):
    study = study_of(tmp_path / "data", *GENTLE, "strategy=cyclic", "strategy.visits=1")
    weights = weights_of(study)
    study = bringing(study, digest(weights))
    silo = hospital(study, tmp_path / "home", share=1, models=[digest(weights)])
    assert ask(silo, study, "begin", weights).fault is None
    seeded = to_arrays(initial_module(study.manifest))
    assert ask(silo, study, "fit", moved(seeded, 0.01)).fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "fit", moved(weights, 0.04)).fault is None
    alone = ask(silo, study, "fit", weights, 0, ALONE, alone="cleveland")
    assert alone.fault is None
    assert float(abs(alone.weights["linear.weight"] - weights["linear.weight"]).max()) < 2.0  # 3 from the seeded ones


MEAN = {"moments/features": np.array([[100.0, 0.0, 1e4]] * 13)}  # what the training of a model agreed on


@pytest.fixture
def scoring(tmp_path: Path) -> tuple[Study, Payload, Silo]:
    """A study that has a model scored which was trained elsewhere, its weights, and a hospital that permits it."""
    study = study_of(tmp_path / "data", "dataset.scaling=pooled", *GENTLE)
    weights = weights_of(study)
    study = bringing(study, model_digest(weights, MEAN))
    silo = hospital(study, tmp_path / "home", models=[model_digest(weights, MEAN)])
    AGREED[silo] = {}  # rows are prepared as the model's own were
    return study, weights, silo


def scored(silo: Silo, study: Study, weights: Payload, agreed: Payload):
    return ask(silo, study, "evaluate", weights, 4, APPLIED, join(statistics=agreed), split="test")


def test_a_hospital_scores_its_own_file_of_a_model_as_if_it_had_been_sent(scoring, tmp_path):
    study, weights, silo = scoring
    own = hospital(study, tmp_path / "own", models=[model_digest(weights, MEAN)])
    own.place = replace(own.place, site=replace(own.site, models=[kept(tmp_path, weights)]))
    AGREED[own] = {}
    sent, state = scored(silo, study, weights, MEAN), join(statistics=MEAN)
    unsent = ask(own, study, "evaluate", {}, 4, APPLIED, state, split="test", model=digest(weights))
    assert sent.fault is None
    assert (unsent.fault, unsent.metrics) == (None, sent.metrics)


def test_a_hospital_scores_the_named_models_and_no_other(scoring):
    study, weights, silo = scoring
    reply = scored(silo, study, weights, MEAN)
    assert reply.fault is None and reply.examples
    assert scored(silo, study, moved(weights, 0.001), MEAN).fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize(
    "other",
    [
        {"moments/features": np.array([[100.0, 0.0, 1e4]] * 12 + [[100.0, 5.0, 1e4]])},
        {},
        {**MEAN, "count/levels/sex/f": np.array([3.0])},
    ],
    ids=["another mean", "none", "one more"],
)
def test_what_the_rows_of_a_named_model_are_prepared_by_is_named_with_it(scoring, other):
    study, weights, silo = scoring
    assert scored(silo, study, weights, other).fault is Fault.REFUSED_WEIGHTS


def test_weights_named_to_begin_from_are_not_scored_on_rows_prepared_as_the_coordinator_likes(given, tmp_path):
    study, weights = given
    silo = hospital(study, tmp_path / "home", models=[digest(weights)])
    AGREED[silo] = {}
    for agreed in ({}, MEAN):
        assert scored(silo, study, weights, agreed).fault is Fault.REFUSED_WEIGHTS


def test_a_study_that_names_none_can_have_none_scored(tmp_path):
    study = study_of(tmp_path / "data", *GENTLE)
    silo, weights = hospital(study, tmp_path / "home"), weights_of(study)
    assert ask(silo, study, "evaluate", weights, 4, APPLIED, split="test").fault is Fault.REFUSED_PROTOCOL
    assert ask(silo, study, "begin", weights).fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize("value", ["f" * 64, [], ["f" * 63], [3], ["F" * 64]])
def test_a_manifest_with_anything_else_than_digests_is_refused(tmp_path, value):
    study = study_of(tmp_path / "data")
    silo = hospital(study, tmp_path / "home", models=None)
    text = json.dumps({**study.manifest, "given": value})
    assert silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, text)).fault is Fault.REFUSED_MANIFEST
