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
from flip.messages.model_file import load_model, model_of, save_model
from flip.messages.weights import to_arrays
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


def test_the_model_that_finds_the_level_is_asked_where_no_reader_says(run, folder, finder, tmp_path):
    assert measured(run, folder, tmp_path / "out", f"companions.level={finder}")["status"] == "ok"
    found = rows(tmp_path / "out")
    assert NO_FINDER not in set(found.reason)
    assert set(found.reason.dropna()) <= {NO_LEVEL, CUT_LEVEL, CUT_MUSCLE, NO_MUSCLE}
    assert (found.level_by.dropna() == "model").all()


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
