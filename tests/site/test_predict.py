"""`job=predict`: a finished run's model predicts for rows without labels, and what it predicted stays at the site."""

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from datamodules.cohort_table import CohortTable
from datamodules.remarks import NOTHING
from flip.cli.execute import execute
from flip.config import build
from flip.config.build import initial_module
from flip.config.checks.study import check
from flip.config.schema import Site
from flip.config.study import Study
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.messages.model_file import ModelFile, load_model, save_model
from flip.messages.weights import load_arrays
from flip.site.predict import named
from flip.site.silo import Silo
from models.heads.classification import Binary, MultiClass, MultiLabel
from models.heads.regression import Regression
from models.heads.survival import Cox, DiscreteTime
from tests.cohorts.studies import TINY
from tests.studies import compose_study

STRICT = {"minimum_persons": 20, "minimum_cell": 5}


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The heart study on tiny data, in pooled scaling, and the folder of a run of one round."""
    arguments = ["experiment=heart_disease", *TINY["heart_disease"](tmp_path_factory.mktemp("heart"))]
    return trained([*arguments, "strategy.rounds=1", "dataset.scaling=pooled"], tmp_path_factory)


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The study of intensive care on tiny data, and the folder of a run of one round."""
    arguments = ["experiment=icu_outcome", *TINY["icu_outcome"](tmp_path_factory.mktemp("icu"))]
    return trained([*arguments, "strategy.rounds=1"], tmp_path_factory)


def trained(arguments: list[str], factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The arguments, and the folder of their finished run."""
    folder = factory.mktemp("run") / "run"
    assert execute(compose_study(*arguments, "federation=inprocess"), folder)["status"] == "ok"
    return arguments, folder


def at_hospital(folder: Path, root: Path, *models: str, **site: object) -> str:
    """A hospital's own file with a strict policy that permits these models, as the argument of a command line."""
    file = folder / "own.yaml"
    own = {"root": str(root), "policy": {**STRICT, "models": [*models]}, "person": "row"}
    file.write_text(yaml.safe_dump({**own, **site}))
    return f"site_file={file}"


def predicted(arguments: list[str], run: Path, out: Path, *more: str) -> Path:
    """The folder of a run that predicts."""
    study = compose_study(*arguments, "job=predict", f"model_from={run}", *more)
    check(study)
    result = execute(study, out)
    assert result["status"] == "ok", result
    return out


def unlabeled(arguments: list[str], folder: Path, rows: slice) -> tuple[Path, pd.DataFrame]:
    """Some rows of a tiny hospital without the column of what is predicted, and these."""
    study = compose_study(*arguments)
    table = pd.read_csv(study.sites["cleveland"].root, header=None, names=study.manifest["dataset"]["header"])
    table = table.iloc[rows].drop(columns="num")
    table.to_csv(folder / "new.data", header=False, index=False)
    return folder / "new.data", table


def by_hand(model: ModelFile, study: Study, table: pd.DataFrame) -> np.ndarray:
    """Probabilities of the heart model from its weights and the agreed means and deviations."""
    dataset = study.manifest["dataset"]
    columns = [table[name].astype(float) for name in dataset["numeric"]]
    for name, levels in dataset["categorical"].items():
        columns += [(table[name].astype(float) == level).astype(float) for level in levels[1:]]
    number, total, squares = model.agreed["moments/features"].T
    deviation = np.sqrt((squares - total**2 / number) / (number - 1))
    scaled = (np.stack(columns, axis=1) - total / number) / (deviation + 1e-9)
    logits = scaled @ model.weights["linear.weight"][0].astype(float) + model.weights["linear.bias"].astype(float)
    return 1 / (1 + np.exp(-logits))


def test_a_table_without_the_label_is_predicted_by_the_agreed_means(heart, tmp_path):
    arguments, run = heart
    root, table = unlabeled(arguments, tmp_path, slice(0, 5))
    out = predicted(arguments, run, tmp_path / "out", at_hospital(tmp_path, root, load_model(run).whole_digest))
    found, model = pd.read_csv(out / "sites" / "own" / "predictions.csv"), load_model(run)
    wanted = by_hand(model, compose_study(*arguments), table)
    assert np.abs(found["probability"] - wanted).max() < 1e-6
    assert found["positive"].tolist() == (wanted > 0.5).astype(int).tolist()
    assert found["row"].tolist() == [1, 2, 3, 4, 5]
    assert "inputs" not in found  # of a study that has only one
    assert set(found["model"]) == {model.digest}
    assert set(found["use"]) == {"research use only, not a medical device"}


def test_the_last_words_say_where_the_predictions_are(heart, tmp_path, capsys):
    arguments, run = heart
    root, _ = unlabeled(arguments, tmp_path, slice(0, 2))
    predicted(arguments, run, tmp_path / "out", at_hospital(tmp_path, root, load_model(run).whole_digest))
    assert "out/sites/own/predictions.csv" in capsys.readouterr().out


def test_a_single_row_is_read_as_among_others(heart, tmp_path):
    arguments, run = heart
    root, table = unlabeled(arguments, tmp_path, slice(3, 4))
    out = predicted(arguments, run, tmp_path / "out", at_hospital(tmp_path, root, load_model(run).whole_digest))
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv")
    assert np.abs(found["probability"] - by_hand(load_model(run), compose_study(*arguments), table)).max() < 1e-6


def test_a_hospital_that_never_trains_applies_a_model_whatever_a_round_of_its_training_asks_for(heart, tmp_path):
    arguments, run = heart
    root, _ = unlabeled(arguments, tmp_path, slice(0, 2))
    own = at_hospital(tmp_path, root, load_model(run).whole_digest, trains=False)
    rounds = ["strategy.min_sites=2", "strategy.site_weights={cleveland: 1, hungarian: 2}"]
    out = predicted(arguments, run, tmp_path / "out", own, *rounds)
    assert pd.read_csv(out / "sites" / "own" / "predictions.csv")["probability"].notna().tolist() == [True, True]


def test_rows_that_were_not_predicted_are_there_with_the_reason(heart, tmp_path):
    arguments, run = heart
    root, table = unlabeled(arguments, tmp_path, slice(0, 4))
    root.write_text(root.read_text().replace(str(table["age"].iloc[1]), "?", 1))
    out = predicted(arguments, run, tmp_path / "out", at_hospital(tmp_path, root, load_model(run).whole_digest))
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv").set_index("row")
    assert found.index.tolist() == [1, 3, 4, 2]
    assert found["probability"].notna().tolist() == [True, True, True, False]
    assert found.loc[2, "reason"] == "a value that the study uses is missing"
    assert "1 not predicted: a value that the study uses is missing" in (out / "sites" / "own" / "site.log").read_text()


def test_one_row_cannot_be_scaled_by_its_own_site(heart, tmp_path):
    study = compose_study(*heart[0])
    root, _ = unlabeled(heart[0], tmp_path, slice(0, 1))
    declared = {name: each for name, each in study.manifest["dataset"].items() if name not in ("_target_", "split")}
    data = CohortTable(str(root), **{**declared, "scaling": "site"}, labeled=False)
    with pytest.raises(ValueError, match="one row has no deviation"):
        data.test_dataloader()


def test_a_hospital_whose_policy_does_not_name_the_model_refuses_it(heart, tmp_path):
    arguments, run = heart
    root, _ = unlabeled(arguments, tmp_path, slice(0, 5))
    study = compose_study(*arguments, "job=predict", f"model_from={run}", at_hospital(tmp_path, root, "0" * 64))
    result = execute(study, tmp_path / "out")
    assert result["status"] == "refused"
    assert not [*(tmp_path / "out").rglob("predictions.csv")]


def test_a_deployed_site_predicts_for_no_coordinator(heart, tmp_path):
    arguments, run = heart
    study = compose_study(*arguments, "job=predict", f"model_from={run}")
    model = load_model(run)
    site = replace(
        study.sites["cleveland"],
        policy={**STRICT, "models": [model.whole_digest], "approval": "none"},
        secret=None,
        person="row",
    )
    silo = Silo("cleveland", site, tmp_path / "home", deployed=True)
    asked = Task("run", "study", 0, "predict", model.weights, {}, {}, study.manifest_text)
    assert silo.answer(asked).fault is Fault.REFUSED_POLICY
    assert not [*(tmp_path / "home").rglob("predictions.csv")]


@pytest.fixture(scope="module")
def simulated(stays, tmp_path_factory) -> Path:
    """The folder of a run that predicted at the simulated hospitals of intensive care."""
    return predicted(*stays, tmp_path_factory.mktemp("predicted") / "out", "federation=inprocess")


def as_trained(study: Study, model: ModelFile, name: str, site: Site) -> dict[str, float]:
    """Probabilities of a labeled cohort by accession, from the module itself."""
    data, module = build.datamodule(study.manifest, name, replace(site, trains=False)), initial_module(study.manifest)
    load_arrays(module, model.weights)
    data.agree(model.agreed)
    with torch.no_grad():
        values = [module.eval()(batch).sigmoid() for batch in data.test_dataloader()]
    return dict(zip(data.row_names("test")["accession"], torch.cat(values).tolist(), strict=True))


def test_rows_go_by_the_names_that_the_site_has_and_are_predicted_as_the_module_does(stays, simulated):
    (arguments, run), files = stays, sorted(simulated.glob("sites/*/predictions.csv"))
    found = pd.concat([pd.read_csv(each, dtype={"accession": str}) for each in files]).set_index("accession")
    study, model = compose_study(*arguments), load_model(run)
    wanted = pd.concat([pd.Series(as_trained(study, model, name, site)) for name, site in study.sites.items()])
    assert len(wanted) == len(found)
    assert (found["probability"] - wanted).abs().max() < 1e-6
    assert found["person"].notna().all()


def test_only_the_owner_may_read_the_predictions(simulated):
    files = [*simulated.glob("sites/*/predictions.csv")]
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o600] * 2


def test_a_new_row_at_another_hospital_is_read_by_the_means_and_words_of_the_training(stays, tmp_path):
    (arguments, run), row = stays, {"accession": "s1", "age": 71, "sex": "female", "heart_rate": 120, "lactate": 5.5}
    study, model = compose_study(*arguments), load_model(run)
    blank = dict.fromkeys(["conditions", "pressure", "saturation", "creatinine"])
    rows = pd.DataFrame([row, {**row, "accession": "s2", "age": 22}]).assign(**blank, note="chest pain, sedated")
    rows["person"] = ["ann", "bob"]
    (tmp_path / "all").mkdir()
    rows.assign(died=[1, 0]).to_csv(tmp_path / "all" / "cohort.csv", index=False)
    (tmp_path / "one").mkdir()
    rows[:1].to_csv(tmp_path / "one" / "cohort.csv", index=False)
    site = Site(root=str(tmp_path / "all"), policy="public_data")
    wanted = as_trained(study, model, "all", site)
    file = at_hospital(tmp_path, tmp_path / "one", model.whole_digest, person="person", columns={"died": "dead"})
    out = predicted(arguments, run, tmp_path / "out", file)
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv")
    assert found[["person", "accession"]].to_numpy().tolist() == [["ann", "s1"]]
    assert abs(found["probability"][0] - wanted["s1"]) < 1e-6
    assert wanted["s1"] != wanted["s2"]


@pytest.mark.parametrize(("threshold", "positive"), [(0.01, [1, 1]), (0.99, [0, 0])])
def test_the_threshold_that_the_training_chose_decides(stays, tmp_path, threshold, positive):
    arguments, model = stays[0], load_model(stays[1])
    assert compose_study(*arguments).manifest["model"]["head"]["threshold"] == "youden"
    save_model(tmp_path / "model.safetensors", replace(model, scores={"threshold": threshold}))
    rows = pd.DataFrame({"person": ["ann", "bob"], "accession": ["s1", "s2"], "age": [71, 22], "note": "chest pain"})
    names = ["sex", "heart_rate", "lactate", "conditions", "pressure", "saturation", "creatinine"]
    (tmp_path / "one").mkdir()
    rows.assign(**dict.fromkeys(names)).to_csv(tmp_path / "one" / "cohort.csv", index=False)
    file = at_hospital(tmp_path, tmp_path / "one", model.whole_digest, person="person")
    out = predicted(arguments, tmp_path / "model.safetensors", tmp_path / "out", file)
    assert pd.read_csv(out / "sites" / "own" / "predictions.csv")["positive"].tolist() == positive


def test_a_row_with_nothing_to_predict_from_has_the_reason_in_place_of_a_prediction(stays, tmp_path):
    arguments, run = stays
    names = ["age", "sex", "heart_rate", "lactate", "conditions", "pressure", "saturation", "creatinine", "note"]
    rows = pd.DataFrame({"person": ["ann", "bob"], "accession": ["s1", "s2"]})
    rows = rows.assign(**dict.fromkeys(names)).assign(age=[71, None])
    (tmp_path / "one").mkdir()
    rows.to_csv(tmp_path / "one" / "cohort.csv", index=False)
    file = at_hospital(tmp_path, tmp_path / "one", load_model(run).whole_digest, person="person")
    out = predicted(arguments, run, tmp_path / "out", file)
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv").set_index("person")
    assert found["probability"].notna().to_dict() == {"ann": True, "bob": False}
    assert found.loc["bob", "reason"] == NOTHING


def test_of_several_inputs_those_that_a_row_has_stand_beside_its_prediction(stays, tmp_path):
    arguments, run = stays
    names = ["sex", "heart_rate", "lactate", "conditions", "pressure", "saturation", "creatinine"]
    rows = pd.DataFrame({"person": ["ann", "bob", "cy"], "accession": ["s1", "s2", "s3"], "age": [71, 22, None]})
    (tmp_path / "one").mkdir()
    rows.assign(**dict.fromkeys(names), note=["chest pain", None, "fever"]).to_csv(
        tmp_path / "one" / "cohort.csv", index=False
    )
    file = at_hospital(tmp_path, tmp_path / "one", load_model(run).whole_digest, person="person")
    out = predicted(arguments, run, tmp_path / "out", file)
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv").set_index("person")
    assert found["inputs"].to_dict() == {"ann": "tabular text", "bob": "tabular", "cy": "text"}
    assert found["probability"].notna().all()


def test_nothing_that_was_predicted_leaves_the_sites(simulated):
    lines = [json.loads(line) for line in (simulated / "rounds.jsonl").read_text().splitlines()]
    replies = [line for line in lines if line["phase"] == "predict"]
    assert [(line["metrics"], line["bytes_up"]) for line in replies] == [({}, 0)] * 2
    assert json.loads((simulated / "description.json").read_text())["sites"] == {}


@pytest.mark.parametrize(
    ("head", "output", "columns"),
    [
        (Binary(2), torch.zeros(3), {"probability": [0.5] * 3, "positive": [1] * 3}),
        (
            MultiClass(2, 3),
            torch.tensor([[0.0, 0.0, -torch.inf]]),
            {"probability": [[0.5, 0.5, 0.0]], "predicted": [0]},
        ),
        (MultiLabel(2, 2), torch.zeros(1, 2), {"probability": [[0.5, 0.5]]}),
        (Cox(2), torch.zeros(2), {"relative_hazard": [1.0, 1.0]}),
        (DiscreteTime(2, [90, 180]), torch.zeros(1, 2), {"survival_90": [0.5], "survival_180": [0.25]}),
    ],
)
def test_each_head_predicts_without_a_target(head, output, columns):
    assert {name: each.tolist() for name, each in head.predicted(output, {}).items()} == columns


def test_a_number_is_predicted_in_its_own_unit():
    batch = {"label_mean": torch.full((2,), 60.0), "label_deviation": torch.full((2,), 10.0)}
    assert Regression(2).predicted(torch.tensor([0.0, 1.0]), batch)["value"].tolist() == [60.0, 70.0]


def test_what_is_decided_is_not_known_before_the_threshold_is_chosen():
    assert named(Binary(2, "youden").predicted(torch.zeros(1), {}), []) == {"probability": [0.5], "positive": [""]}


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ([], "model_from: has no value; set it to the folder of a finished run"),
        (["model_from=RUN", "federation=flower_superlink"], "predict runs where the data are"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(heart, more, mistake):
    arguments, run = heart
    with pytest.raises(UserError) as refused:
        check(compose_study(*arguments, "job=predict", *(each.replace("RUN", str(run)) for each in more)))
    assert mistake in str(refused.value)


@pytest.mark.slow
def test_a_dataset_and_a_model_that_cannot_predict_are_named(heart, tmp_path):
    arguments = ["experiment=sarcopenia", *TINY["sarcopenia"](tmp_path / "data")]
    with pytest.raises(UserError) as refused:
        check(compose_study(*arguments, "job=predict", f"model_from={heart[1]}"))
    assert "reads no rows without labels (labeled=false), for job=predict" in str(refused.value)
    assert "has no predict_step of its own" in str(refused.value)


def new_lesions(folder: Path) -> Path:
    """Three lesions of a clinic that has no diagnosis of them, one without a photograph."""
    found = pd.read_csv(folder / "pad_ufes_20" / "metadata.csv").iloc[[0, 1, 4]].drop(columns="diagnostic")
    (folder / "new" / "images").mkdir(parents=True)
    found.to_csv(folder / "new" / "metadata.csv", index=False)
    for name in found["img_id"].iloc[[0, 2]]:
        photograph = folder / "pad_ufes_20" / "images" / name.replace(".png", ".jpg")
        shutil.copy(photograph, folder / "new" / "images")
    return folder / "new"


def new_films(folder: Path) -> Path:
    """Two films in DICOM of a hospital that has no labels of them."""
    found = pd.read_csv(folder / "radiographs" / "cohort.csv").iloc[[3, 9]].drop(columns="label")
    (folder / "new").mkdir()
    found.to_csv(folder / "new" / "cohort.csv", index=False)
    for name in found["accession"]:
        shutil.copytree(folder / "radiographs" / "images" / name, folder / "new" / "images" / name)
    return folder / "new"


@pytest.mark.parametrize(
    ("experiment", "new", "classes"),
    [
        ("dermatology", new_lesions, ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"]),
        pytest.param("chest_xray", new_films, [], marks=pytest.mark.slow),
    ],
)
def test_images_without_labels_are_predicted_under_a_strict_policy_and_nothing_leaves(
    experiment, new, classes, tmp_path, tmp_path_factory
):
    arguments = [f"experiment={experiment}", *TINY[experiment](tmp_path / "data"), "strategy.rounds=1"]
    arguments, run = trained(arguments, tmp_path_factory)
    root, model = new(tmp_path / "data"), load_model(run)
    person = "patient_id" if classes else "person"
    out = predicted(arguments, run, tmp_path / "out", at_hospital(tmp_path, root, model.whole_digest, person=person))
    found = pd.read_csv(out / "sites" / "own" / "predictions.csv")
    columns = [f"probability_{name}" for name in classes] or ["probability"]
    assert len(found) == len(pd.read_csv(next(root.glob("*.csv"))))
    assert found[columns].notna().all(axis=None)
    assert ((found[columns] > 0) & (found[columns] < 1)).all(axis=None)
    if classes:
        assert found[columns].sum(axis=1).to_numpy() == pytest.approx(1)
        assert found["predicted"].tolist() == [
            each.removeprefix("probability_") for each in found[columns].idxmax(axis=1)
        ]
    (line,) = [json.loads(each) for each in (out / "rounds.jsonl").read_text().splitlines() if '"predict"' in each]
    assert (line["metrics"], line["bytes_up"]) == ({}, 0)
    own = [*found.iloc[:, 0].astype(str), str(root)]
    left = [each for each in out.rglob("*") if each.is_file() and out / "sites" not in each.parents]
    left = [each for each in left if each.suffix != ".safetensors"]  # arrays: any two bytes occur
    assert not [(each.name, word) for each in left for word in own if word in each.read_text(errors="ignore")]
