"""`job=evaluate`: given models are scored at all sites, on every backend alike; nothing is trained."""

import json
from pathlib import Path

import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from flip.messages.model_file import load_model
from flip.report.page import write
from flip.site.silo import Silo
from tests.cohorts.trained import data, result_of, trained_on
from tests.studies import compose_study, tiny_heart_study

__all__ = ["data"]  # a fixture


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on three hospitals' data."""
    return trained_on(data, tmp_path_factory.mktemp("trained") / "run", "~sites.va")


def evaluating(data: Path, *words: str) -> Study:
    study = tiny_heart_study(data, "job=evaluate", *words)
    check(study)
    return study


@pytest.fixture(scope="module")
def evaluated(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    study = evaluating(data, "federation=inprocess", f"model_from={trained}", "sites.va.trains=false")
    assert execute(study, folder)["status"] == "ok"
    return folder


def test_the_sites_that_trained_it_score_it_as_in_its_own_run(evaluated, trained):
    now, then = result_of(evaluated)["metrics"], result_of(trained)["metrics"]
    same = {name: value for name, value in then.items() if name.startswith("test/site/")}
    assert same and {name: now[name] for name in same} == same


def test_the_sites_may_read_the_model_from_their_own_disks_and_are_sent_none(
    data, trained, evaluated, tmp_path, monkeypatch
):
    sent, answer = [], Silo.answer
    monkeypatch.setattr(Silo, "answer", lambda silo, task: [sent.append(dict(task.weights)), answer(silo, task)][1])
    words = ["federation=inprocess", f"model_from={trained}", "sites.va.trains=false", "given_at=sites"]
    words += [f"sites.{name}.models=[{trained}]" for name in ("cleveland", "hungarian", "switzerland", "va")]
    result = execute(evaluating(data, *words), tmp_path / "run")
    assert result["status"] == "ok" and result["metrics"] == result_of(evaluated)["metrics"]
    assert sent and not any(sent)
    again = compose_study(config_dir=tmp_path / "run", config_name="run")
    assert again.given_at == "sites" and again.sites["va"].models == [str(trained)]


@pytest.mark.parametrize(
    ("words", "mistake"),
    [(["given_at=nowhere"], "'nowhere' is none of coordinator, sites"),
     (["given_at=sites", "federation=none"], "only init and job=evaluate send given weights, over sites"),
     (["given_at=sites", "job=train", "model_from=null", "init=RUN"], "init gives linear.bias, which the rounds send")],
)  # fmt: skip
def test_where_weights_lie_is_checked_before_anything_runs(data, trained, words, mistake):
    words = ["federation=inprocess", f"model_from={trained}", *(each.replace("RUN", str(trained)) for each in words)]
    with pytest.raises(UserError) as refused:
        evaluating(data, *words)
    assert mistake in str(refused.value)


def test_a_hospital_that_did_not_train_is_scored_and_counts_for_what_is_pooled(evaluated):
    result = result_of(evaluated)
    assert "test/site/va/accuracy" in result["metrics"] and "test/pooled/accuracy/low" in result["metrics"]
    lines = [json.loads(line) for line in (evaluated / "rounds.jsonl").read_text().splitlines()]
    by_site = {line["site"]: line["examples"] for line in lines if line["phase"] == "applied"}
    assert by_site.pop("pooled") == sum(by_site.values()) and by_site["va"] == 16
    assert {"accuracy", "auroc"} <= set(result["intervals"])  # how each was made


def test_the_result_and_the_page_say_which_model_and_that_nothing_was_trained(evaluated, trained):
    digest, model = (result_of(trained)[name] for name in ("digest", "model"))
    result = result_of(evaluated)
    assert result["models"] == [{"name": "heart_disease", "digest": digest, "model": model}]
    assert (result["digest"], result["rounds"]) == (None, 0)
    assert not (evaluated / "weights").exists()
    page = write(evaluated).read_text()
    assert f"nothing was trained: the model is heart_disease, digest {digest[:12]}" in page


def test_rows_are_prepared_by_what_the_training_agreed_on(data, tmp_path, evaluated):
    words = ["dataset.scaling=pooled", "federation=inprocess"]
    assert execute(tiny_heart_study(data, *words, "sites=[cleveland,va]"), tmp_path / "run")["status"] == "ok"
    only = evaluating(data, *words, f"model_from={tmp_path / 'run'}", "sites=[va]")
    assert execute(only, tmp_path / "out")["status"] == "ok"
    then, now = (result_of(tmp_path / name)["metrics"] for name in ("run", "out"))
    assert now["test/site/va/loss"] == then["test/site/va/loss"]


@pytest.mark.slow
def test_several_models_are_compared(data, trained, tmp_path):
    second = tmp_path / "second"
    execute(tiny_heart_study(data, "federation=none"), second)
    study = evaluating(data, f"model_from=[{trained},{second / 'weights' / 'last.safetensors'}]")
    assert execute(study, tmp_path / "out")["status"] == "ok"
    result = result_of(tmp_path / "out")
    digests = [load_model(each).digest for each in (trained, second)]
    assert [each["digest"] for each in result["models"]] == digests
    own = result_of(second)["metrics"]["test/site/va/accuracy"]
    assert result["metrics"]["baseline/model_2/test/site/va/accuracy"] == own  # scaled as the pooled rows were
    assert f"model 2 (heart_disease, {digests[1][:12]})" in write(tmp_path / "out").read_text()


def test_it_runs_again_from_its_folder(evaluated, tmp_path):
    from tests.studies import compose_study

    again = compose_study(config_dir=evaluated, config_name="run")
    assert execute(again, tmp_path / "again")["metrics"] == result_of(evaluated)["metrics"]


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ([], "model_from: has no value"),
        (["model_from=nowhere"], "nowhere is no file on this machine; name the folder of a finished run"),
        (["model_from=RUN", "job=train"], "job=train applies no model; set model_from=null, or one of job=evaluate"),
        (["model_from=RUN", "dataset.scaling=pooled"], "was trained with another dataset.scaling"),
        (["model_from=3"], "model_from: must be the folder of a run or a file"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(data, trained, more, mistake):
    with pytest.raises(UserError) as refused:
        evaluating(data, *(each.replace("RUN", str(trained)) for each in more))
    assert mistake in str(refused.value)
