"""`job=measure` of scans without labels: two finished runs, a folder of DICOM, and what comes of it at the site."""

import dataclasses
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pydicom import dcmread

from datamodules.phantom import PROFILES, generate
from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.checks.study import check
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.messages.model_file import load_model, model_of, save_model
from flip.messages.weights import to_arrays
from flip.site.silo import Silo
from models.body_composition import RESEARCH_USE
from models.body_composition.whole_scans import CUT_LEVEL, CUT_MUSCLE, NO_FINDER, NO_LEVEL, NO_MUSCLE
from tests.cohorts.studies import TINY
from tests.studies import compose_study

SMALL = ["dataset.grid.spacing_mm=5.0", "dataset.grid.size=96", "strategy.rounds=2", "trainer.steps=2",
         "trainer.centralized.max_epochs=1"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the sarcopenia study."""
    folder = tmp_path_factory.mktemp("run")
    study = compose_study("experiment=sarcopenia", *TINY["sarcopenia"](folder / "data"), "federation=inprocess")
    assert execute(study, folder / "run")["status"] == "ok"
    return folder / "run"


@pytest.fixture
def folder(tmp_path):
    """Two studies in folders of any name, without a table and without labels."""
    profile = dataclasses.replace(PROFILES["west"], pixels=96)
    generate(tmp_path / "west", profile=profile, patients=2)
    shutil.copytree(tmp_path / "west" / "dicom", tmp_path / "in" / "some" / "where")
    return tmp_path / "in"


def measured(run, folder, out, *more):
    study = compose_study(
        "experiment=sarcopenia_scans", *SMALL, f"model_from={run}", f"sites.here.root={folder}", *more
    )
    check(study)
    return execute(study, out)


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    """A model's file of one that finds L3 somewhere in every scan: it is not trained."""
    study = compose_study("dataset=levels", "model=level_finder", "sites=scans", "name=level", "model.confidence=0.0")
    path = tmp_path_factory.mktemp("finder") / "level.safetensors"
    weights = to_arrays(initial_module(study.manifest))
    save_model(path, model_of(weights, {}, study.manifest_text, pooled=False))
    return path


def rows(out):
    return pd.read_csv(out / "sites" / "here" / "biomarkers.csv").set_index("accession_id")


def test_a_folder_becomes_a_table_a_page_and_dicom_objects_that_only_the_owner_reads(run, folder, tmp_path):
    some = next(path for path in folder.rglob("*.dcm"))
    accession = str(dcmread(some).AccessionNumber)
    z = sorted(float(dcmread(path).ImagePositionPatient[2]) for path in some.parent.iterdir())
    (folder / "levels.csv").write_text(f"accession,level_mm\n{accession},{z[len(z) // 2]}\n")
    assert measured(run, folder, tmp_path / "out")["status"] == "ok"
    found, home = rows(tmp_path / "out"), tmp_path / "out" / "sites" / "here"
    assert len(found) == 2 and set(found.use) == {RESEARCH_USE}
    assert found.reason.isna()[accession] and (found.reason.drop(accession) == NO_FINDER).all()
    one, known = found.loc[accession], json.loads((run / "result.json").read_text())["metrics"]
    assert one.muscle_index_error == pytest.approx(known["test/pooled/index_mae"], rel=1e-4)
    assert one.visceral_fat_cm2_error == pytest.approx(known["test/pooled/visceral_fat_cm2_mae"], rel=1e-4)
    assert RESEARCH_USE in (home / "overlays.html").read_text()
    written = [home / "biomarkers.csv", home / "overlays.html", *home.glob("s*/*.dcm")]
    assert len(written) == 4 and {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert (tmp_path / "out" / "run.yaml").read_text().count(str(folder)) == 0


def test_two_scans_are_measured_by_their_own_hospital_whatever_cohort_its_policy_asks_of_others(run, folder, tmp_path):
    """As `job=predict` has it: no number leaves. For a coordinator the same site answers nothing of so few."""
    named, file = load_model(run).whole_digest, tmp_path / "here.yaml"
    policy = {"minimum_persons": 20, "minimum_cell": 5, "models": [named]}
    file.write_text(json.dumps({"root": str(folder), "policy": policy, "trains": False}))
    study = compose_study("experiment=sarcopenia_scans", *SMALL, f"model_from={run}", f"site_file={file}")
    check(study)
    result = execute(study, tmp_path / "out")
    assert result["status"] == "ok", result
    assert len(rows(tmp_path / "out")) == 2
    (site,) = study.sites.values()
    site = replace(site, policy={**policy, "approval": "none"}, secret=None)
    asked = Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text)
    assert Silo("here", site, tmp_path / "home", deployed=True).answer(asked).fault is Fault.REFUSED_COHORT


def test_the_model_that_finds_the_level_is_asked_where_no_reader_says(run, folder, finder, tmp_path):
    assert measured(run, folder, tmp_path / "out", f"companions.level={finder}")["status"] == "ok"
    found = rows(tmp_path / "out")
    assert NO_FINDER not in set(found.reason)
    assert set(found.reason.dropna()) <= {NO_LEVEL, CUT_LEVEL, CUT_MUSCLE, NO_MUSCLE}
    assert (found.level_by.dropna() == "model").all()


@pytest.mark.slow
def test_an_outcome_is_learned_from_muscle_that_was_measured_at_the_sites_in_whole_scans_without_labels(run, tmp_path):
    demo = tmp_path / "demo"
    for name, person in (("north", None), ("west", "two scans")):
        root = demo / "abdomen" / name
        generate(root, profile=dataclasses.replace(PROFILES[name], pixels=96), patients=8)
        shutil.rmtree(root / "labels")
        table = pd.read_csv(root / "cohort.csv").rename(columns={"accession_id": "accession"})
        table.loc[:1, "person_id"] = person or table.person_id[:2]
        table.to_csv(root / "cohort.csv", index=False)
        z = {path.name: [float(dcmread(each).ImagePositionPatient[2]) for each in path.iterdir()]
             for path in (root / "dicom").iterdir()}  # fmt: skip
        levels = [f"{name},{sorted(heights)[len(heights) // 2]}" for name, heights in z.items()]
        (root / "levels.csv").write_text("\n".join(["accession,level_mm", *levels]))
    two = ["~sites.east", "~sites.coast", f"paths.demo_dir={demo}"]
    words = ["experiment=sarcopenia_scans", "sites=abdomen_scans", *SMALL, f"model_from={run}", *two]
    study = compose_study(*words)
    check(study)
    assert execute(study, demo / "scans")["status"] == "ok"
    found = {name: pd.read_csv(demo / "scans" / "sites" / name / "biomarkers.csv") for name in ("north", "west")}
    assert all(each.muscle_index.notna().any() and each.event.isin([0, 1]).all() for each in found.values())
    cohort = pd.read_csv(demo / "abdomen" / "west" / "cohort.csv")
    assert found["west"][["person_id", "followup_days"]].equals(cohort[["person_id", "followup_days"]])
    outcome = ["experiment=sarcopenia_outcome", "sites=measured_scans", "federation=inprocess", "strategy.rounds=2"]
    study = compose_study(*outcome, *two)
    check(study)
    result = execute(study, tmp_path / "outcome")
    assert result["status"] == "ok", result
    persons = json.loads((tmp_path / "outcome" / "cohort.json").read_text())
    assert 0 <= result["metrics"]["test/pooled/c_index_weighted"] <= 1
    assert {name: persons[name]["persons"] for name in persons} == {"north": 8, "west": 7}


@pytest.mark.parametrize(
    ("more", "mistake"),
    [(["companions.level=nowhere"], "companions.level: nowhere is no file"),
     (["companions.level=RUN", "job=check", "model_from=null"], "is read by job=measure alone"),
     (["dataset.grid.size=64"], "was trained with another dataset.grid")],
)  # fmt: skip
def test_a_mistake_is_named_before_anything_runs(run, folder, tmp_path, more, mistake):
    with pytest.raises(UserError) as refused:
        measured(run, folder, tmp_path / "out", *(each.replace("RUN", str(run)) for each in more))
    assert mistake in str(refused.value).replace(f"{Path.cwd()}/", "")


def test_a_companion_of_code_that_the_site_does_not_allow_is_refused(run, folder, finder, tmp_path):
    model = load_model(finder)
    manifest = {**model.manifest, "model": {"_target_": "os.system", "command": "true"}}
    save_model(tmp_path / "bad.safetensors", replace(model, manifest=manifest))
    result = measured(run, folder, tmp_path / "out", f"companions.level={tmp_path / 'bad.safetensors'}")
    assert result["status"] == "refused"
    assert not (tmp_path / "out" / "sites" / "here" / "biomarkers.csv").exists()
