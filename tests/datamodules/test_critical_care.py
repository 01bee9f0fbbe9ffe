"""The simulated critical care: reproducible, and a study that looks past its index date gives itself away."""

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from datamodules.sources.notes import OMOPNotes
from datamodules.sources.omop import OMOP

ROOT = Path(__file__).resolve().parents[2]
QUERY = yaml.safe_load((ROOT / "conf/dataset/icu.yaml").read_text())["records"]["query"]
TOO_LATE = {**QUERY, "cohort": QUERY["cohort"].replace("+ INTERVAL '24 hours' AS", "+ INTERVAL '36 hours' AS")}


def generate(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "datamodules.critical_care", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icu") / "export"
    assert generate(folder).returncode == 0
    return folder


def test_the_files_are_the_same_each_time_and_never_overwritten(export, tmp_path):
    assert generate(tmp_path / "again").returncode == 0
    names = [file.name for file in export.iterdir()]
    assert filecmp.cmpfiles(export, tmp_path / "again", names, shallow=False)[0] == names
    refused = generate(export)
    assert refused.returncode == 2 and "File exists" in refused.stderr and "Traceback" not in refused.stderr


def test_the_study_finds_everybody_who_is_still_there_after_a_day(export):
    table = OMOP(str(export)).read(**QUERY)
    assert len(table) > 1000 and table["person"].is_unique
    assert 0.1 < table["died"].mean() < 0.2
    assert table[list(QUERY["features"])].notna().all(axis=None)


def test_what_is_known_after_a_day_predicts_death_less_well_than_what_is_known_later(export):
    known, later = (OMOP(str(export)).read(**query) for query in (QUERY, TOO_LATE))
    at_a_day, too_late = (roc_auc_score(table["died"], table["lactate"]) for table in (known, later))
    assert 0.6 < at_a_day < 0.85
    assert too_late > at_a_day + 0.05


def test_no_note_says_how_the_stay_ended(export):
    notes = OMOPNotes(str(export)).read(cohort=QUERY["cohort"])["text"]
    assert len(notes) > 1000 and not notes.str.contains("Died|Discharged").any()
    ended = QUERY["cohort"].replace("v.visit_start_datetime + INTERVAL '24 hours' AS", "v.visit_end_datetime AS")
    assert OMOPNotes(str(export)).read(cohort=ended)["text"].str.contains("Died|Discharged").mean() > 0.9


def test_deaths_of_a_database_that_writes_days_alone_are_found(export, tmp_path):
    shutil.copytree(export, tmp_path / "days")
    deaths = pd.read_csv(export / "DEATH.csv", dtype=str)
    deaths.assign(death_datetime="").to_csv(tmp_path / "days" / "DEATH.csv", index=False)
    days, times = (OMOP(str(folder)).read(**QUERY) for folder in (tmp_path / "days", export))
    pd.testing.assert_frame_equal(days, times)
