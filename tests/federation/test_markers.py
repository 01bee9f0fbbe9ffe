"""Nothing of a patient leaves a site: marks in every field of every kind of input, searched in all that others hold."""

import base64
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cohorts.studies import TINY
from tests.federation.markers import MARK, MARKED, NUMBER, TAP, marked_files, marks_in, watched
from tests.studies import in_rounds

POLICY = "{minimum_persons: 10, minimum_cell: 5}"
SITES = {
    "heart_disease": ("cleveland", "hungarian", "switzerland", "va"),
    "dermatology": ("clinic_0", "clinic_1"),
    "clinical_notes": ("notes_0", "notes_1"),
    "chest_xray": ("xray_0", "xray_1", "radiographs"),
    "icu_outcome": ("unit_0", "unit_1"),
}
PRIVATE = ("sites/", "paths/")  # in a simulation the sites' own homes, and where their roots are


@pytest.mark.parametrize(
    "blob",
    [
        MARK.encode(),
        b"a" + base64.b64encode(b"xx" + MARK.encode() + b"yyy"),
        base64.b64encode(b"x" + MARK.encode() + b"y"),
        MARK.encode().hex().encode(),
        MARK.encode("utf-16"),
        gzip.compress(b"some" + MARK.encode()),
        np.float32(NUMBER).tobytes(),
        json.dumps({"age": NUMBER}).encode(),
    ],
    ids=["plain", "base64", "base64 in another phase", "hex", "utf-16", "gzip", "float32", "a number as text"],
)
def test_the_search_sees_a_mark_in_disguise(blob):
    assert marks_in(blob)


def test_the_search_sees_a_mark_in_an_archive_of_arrays():
    file = io.BytesIO()
    np.savez_compressed(file, ages=np.array([40.0, NUMBER]), names=np.array([MARK]))
    assert {"number <d"} <= set(marks_in(file.getvalue()))
    assert marks_in(b"nothing of the kind") == []


def run_marked(folder: Path, experiment: str, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run an experiment on marked data at sites with a policy, with W&B and a tap at the coordinator."""
    words = in_rounds([word for word in TINY[experiment](folder / MARK) if not word.startswith("paths.")])
    MARKED[experiment](folder / MARK)
    (folder / "demo").symlink_to(folder / MARK)
    (folder / "packages").mkdir()
    (folder / "packages" / "tap.py").write_text(TAP)
    (folder / "conf" / "privacy").mkdir(parents=True)
    tap = f"tap:\n  _target_: tap.Tap\n  folder: {folder / 'tapped'}\n"
    (folder / "conf" / "privacy" / "tap.yaml").write_text(tap)
    own = ["--config-dir", "conf", f"experiment={experiment}", "privacy=tap", "allow_targets=[tap.]", "tracking=wandb"]
    policies = [f"sites.{site}.policy={POLICY}" for site in SITES[experiment]]
    environment = {**os.environ, "FLIP_DATA_DIR": str(folder / MARK), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(folder / "packages")
    return subprocess.run(
        [sys.executable, "-P", "-m", "flip", *own, *words, *policies, *more, f"hydra.run.dir={folder / 'run'}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "job"), [*((name, "train") for name in MARKED), ("dermatology", "check"), ("icu_outcome", "check")]
)
def test_nothing_of_a_patient_leaves_a_site(experiment, job, tmp_path):
    with watched() as commands:
        done = run_marked(tmp_path, experiment, "federation=inprocess", f"job={job}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert marks_in(done.stdout.encode()) == marks_in(done.stderr.encode()) == []
    assert len(list((tmp_path / "tapped").iterdir())) >= 4  # tasks and replies
    assert marked_files(tmp_path / "tapped") == {}
    assert marked_files(tmp_path / "run", PRIVATE) == {}
    assert commands == set()


@pytest.mark.slow
@pytest.mark.parametrize("federation", ["flower", "nvflare"])
def test_nothing_of_a_patient_leaves_a_site_over_a_backend(federation, tmp_path):
    with watched() as commands:
        done = run_marked(tmp_path, "dermatology", f"federation={federation}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert marks_in(done.stdout.encode()) == marks_in(done.stderr.encode()) == []
    assert marked_files(tmp_path / "tapped") == marked_files(tmp_path / "run", PRIVATE) == {}
    assert commands == set()


@pytest.mark.slow
def test_the_marks_are_in_what_a_site_keeps(tmp_path):
    """Else the search above would find nothing anywhere."""
    run_marked(tmp_path, "heart_disease", "federation=inprocess", "job=check")
    found = marked_files(tmp_path / MARK)
    assert {name for names in found.values() for name in names} >= {"plain", "number as text"}
    assert marked_files(tmp_path / "run")  # the roots in its private folder
