"""A site answers tasks, or refuses them, and says nothing more than that."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.config import build
from flip.config.build import initial_module
from flip.config.policy import Policy
from flip.config.study import Study
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import SummaryKind, Topic
from flip.messages.weights import digest, to_arrays
from flip.messages.wire import pack_reply
from flip.privacy import Mechanism
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return tiny_heart_study(write_tiny_heart(tmp_path / "data"))


@pytest.fixture
def silo(study: Study, tmp_path: Path) -> Silo:
    return Silo("cleveland", study.sites["cleveland"], tmp_path / "home")


def task(study: Study, step: str = "fit", number: int = 0, **params) -> Task:
    weights = to_arrays(initial_module(study.manifest)) if step not in ("statistics", "describe") else {}
    moments = {"statistics/moments/features": np.array([[100.0, 0.0, 1e7]] * 13)} if step != "statistics" else {}
    return Task("run", "study", number, step, weights, moments, params, study.manifest_text)


def with_policy(silo: Silo, policy: object, tmp_path: Path) -> Silo:
    return Silo(silo.name, replace(silo.site, policy=policy), tmp_path / "strict")


def test_statistics_count_persons_examples_and_what_was_skipped(silo, study):
    reply = silo.answer(task(study, "statistics"))
    assert reply.fault is None
    assert reply.metrics == {"persons": 25, "train": 15, "validate": 0, "test": 9}
    assert reply.summaries[Topic.SKIPPED]["a value that the study uses is missing"].values.tolist() == [1]
    assert reply.summaries[Topic.STATISTICS]["moments/features"].kind is SummaryKind.MOMENTS


def test_a_fit_returns_weights_the_loss_and_the_number_of_examples(silo, study):
    reply = silo.answer(task(study))
    assert reply.fault is None
    assert reply.examples == 15
    assert set(reply.weights) == {"linear.weight", "linear.bias"}
    assert reply.metrics["loss"] > 0


def test_the_same_task_gives_the_same_bits_at_another_silo(silo, study, tmp_path):
    other = Silo("cleveland", study.sites["cleveland"], tmp_path / "other")
    assert digest(silo.answer(task(study)).weights) == digest(other.answer(task(study)).weights)


def test_another_site_and_another_round_draw_other_batches(silo, study, tmp_path):
    first = digest(silo.answer(task(study)).weights)
    renamed = Silo("kings", study.sites["cleveland"], tmp_path / "kings")
    assert first != digest(renamed.answer(task(study)).weights)
    assert first != digest(silo.answer(task(study, number=1)).weights)


def test_a_task_answered_before_is_answered_from_the_store_even_after_a_restart(silo, study, tmp_path):
    first = silo.answer(task(study))
    restarted = Silo("cleveland", replace(study.sites["cleveland"], root="gone"), tmp_path / "home")
    assert digest(restarted.answer(task(study)).weights) == digest(first.weights)


def test_a_task_answered_before_is_answered_as_the_mechanisms_let_it_leave(silo, study, monkeypatch):
    class Masked(Mechanism):
        def wrap_answer(self, answer, site):
            return lambda task: replace(answer(task), weights={"masked": np.zeros(1)})

    monkeypatch.setattr(build, "mechanisms", lambda manifest: [Masked()])
    assert [set(silo.answer(task(study)).weights) for _ in range(2)] == [{"masked"}] * 2


def test_an_evaluation_returns_exact_metrics_and_states_that_can_be_summed(silo, study):
    reply = silo.answer(task(study, "evaluate", split="test"))
    scored = {name.removesuffix("/low").removesuffix("/high") for name in reply.metrics}
    assert scored == {
        "accuracy", "auroc", "auroc_binned", "sensitivity", "specificity", "calibration_error_binned", "loss",
    }  # fmt: skip
    counts = [reply.summaries[Topic.METRIC][f"accuracy/{name}"].values.item() for name in ("tp", "fp", "tn", "fn")]
    assert sum(counts) == reply.examples == 9


def test_a_cohort_that_is_too_small_is_refused_before_it_is_used(silo, study, tmp_path):
    strict = with_policy(silo, {"minimum_persons": 1000, "minimum_cell": 5}, tmp_path)
    reply = strict.answer(task(study))
    assert reply.fault is Fault.REFUSED_COHORT
    assert not reply.weights
    assert not reply.metrics


def test_code_that_the_site_does_not_allow_is_refused(silo, study, tmp_path):
    strict = with_policy(
        silo, {"minimum_persons": 1, "minimum_cell": 1, "targets": ["models.", "datamodules."]}, tmp_path
    )
    assert strict.answer(task(study)).fault is Fault.REFUSED_TARGET


def test_a_hostile_target_in_the_manifest_is_refused(silo, study):
    hostile = json.loads(study.manifest_text)
    hostile["model"]["optimizer"] = {"_target_": "os.system", "command": "touch /tmp/owned"}
    assert silo.answer(replace(task(study), manifest=json.dumps(hostile))).fault is Fault.REFUSED_TARGET


def test_a_rule_of_the_sites_own_refuses_and_its_details_stay_in_the_sites_log(silo, study, monkeypatch):
    monkeypatch.setattr(Policy, "refuses", lambda self, manifest: (Fault.REFUSED_RULE, f"seed: {manifest['seed']}"))
    reply = silo.answer(task(study))
    assert (reply.fault, reply.fault.refused) == (Fault.REFUSED_RULE, True)
    assert b"seed: 42" not in pack_reply(reply)
    assert "seed: 42" in (silo.home / "site.log").read_text()


def test_another_version_of_the_code_is_refused(silo, study):
    other = json.dumps({**study.manifest, "code": "0" * 64})
    assert silo.answer(replace(task(study), manifest=other)).fault is Fault.REFUSED_CODE


def test_a_cohort_that_cannot_be_read_is_a_fault_with_details_only_in_the_sites_log(study, tmp_path):
    silo = Silo("va", replace(study.sites["va"], root=str(tmp_path / "marker_of_the_site.csv")), tmp_path / "home")
    reply = silo.answer(task(study))
    assert reply.fault is Fault.DATA
    assert b"marker_of_the_site" not in pack_reply(reply)
    assert "marker_of_the_site" in (tmp_path / "home" / "site.log").read_text()


def test_an_error_in_training_is_a_fault_and_never_an_exception(silo, study, monkeypatch):
    def training_step(module, batch, batch_idx):
        raise RuntimeError("a patient's name")

    monkeypatch.setattr("models.tabular.LinearClassifier.training_step", training_step)
    assert silo.answer(task(study)).fault is Fault.RAISED


def test_what_a_cohort_raises_before_anything_is_trained_is_no_error_of_training(silo, study, monkeypatch):
    def statistics(data, minimum_cell=1):
        raise ValueError("column age holds text")

    monkeypatch.setattr("datamodules.cohort_table.CohortTable.statistics", statistics)
    assert silo.answer(task(study, "statistics")).fault is Fault.DATA


def test_counts_below_the_minimum_cell_do_not_leave(silo, study, tmp_path):
    strict = with_policy(silo, {"minimum_persons": 5, "minimum_cell": 5}, tmp_path)
    reply = strict.answer(task(study, "statistics"))
    assert Topic.SKIPPED not in reply.summaries
    assert reply.metrics["persons"] == 24  # 25 would tell that one was skipped
    scored = strict.answer(task(study, "evaluate", split="test"))
    assert "accuracy/tp" not in scored.summaries[Topic.METRIC]
    assert "accuracy" not in scored.metrics
    assert scored.summaries[Topic.METRIC]["loss/weight"].values.item() == 9


def test_a_split_smaller_than_the_minimum_cell_is_not_told_of(silo, study, tmp_path):
    strict = with_policy(silo, {"minimum_persons": 10, "minimum_cell": 10}, tmp_path)
    assert strict.answer(task(study, "statistics")).metrics["test"] == 0
    scored = strict.answer(task(study, "evaluate", split="test"))
    assert (scored.fault, scored.examples, dict(scored.metrics), dict(scored.summaries)) == (None, 0, {}, {})
    assert set(scored.withheld.values()) == {Withheld.SPLIT}


def test_a_policy_that_cannot_be_read_refuses(silo, study, tmp_path):
    assert with_policy(silo, "open to all", tmp_path).answer(task(study)).fault is Fault.REFUSED_POLICY


def test_a_deployed_site_measures_for_no_coordinator(silo, study, tmp_path):
    rules = {"minimum_persons": 2, "minimum_cell": 1, "persons_per_parameter": 1, "approval": "none"}
    site = replace(silo.site, person="row", policy=rules, secret=None)
    own = Silo("cleveland", site, tmp_path / "own", deployed=True)
    assert own.answer(task(study, "statistics")).fault is None
    assert own.answer(task(study, "measure")).fault is Fault.REFUSED_POLICY


def test_the_optimizer_keeps_its_moments_when_the_study_says_so(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    momentum = ["model.optimizer._target_=torch.optim.Adam", "model.optimizer.lr=0.1"]
    found = {}
    for keep in ("keep", "reset"):
        study = tiny_heart_study(data, *momentum, f"trainer.optimizer_state={keep}")
        silo = Silo("va", study.sites["va"], tmp_path / keep)
        silo.answer(task(study, number=0))
        found[keep] = digest(silo.answer(task(study, number=1)).weights)
    assert found["keep"] != found["reset"]


def test_a_federated_model_is_scored_on_rows_as_the_site_scales_them_and_a_centralized_one_on_pooled_rows(silo, study):
    def right(reply: Reply, topic: Topic) -> float:
        return sum(reply.summaries[topic][f"accuracy/{name}"].values.item() for name in ("tp", "tn"))

    weights = {"linear.weight": np.linspace(-1, 1, 13, dtype=np.float32)[None], "linear.bias": np.zeros(1, np.float32)}
    federated, centralized = (
        silo.answer(replace(task(study, "evaluate", split="test", **params), weights=weights))
        for params in ({}, {"pooled": True})
    )
    assert federated.metrics["accuracy"] == pytest.approx(right(federated, Topic.METRIC) / 9)
    assert centralized.metrics["accuracy"] == pytest.approx(right(federated, Topic.RESCALED) / 9)
    assert right(centralized, Topic.RESCALED) == right(federated, Topic.METRIC) != right(federated, Topic.RESCALED)
