"""Nothing of a patient leaves a site: marks in every field of every kind of input, searched in all that others hold."""

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.cohorts.studies import TINY
from tests.federation.markers import (
    MARK,
    MARKED,
    NUMBER,
    OWN,
    TAP,
    marked_files,
    marks_in,
    watched,
)  # fmt: skip
from tests.studies import in_rounds

POLICY, SMALL = "{minimum_persons: 10, minimum_cell: 5}", "{minimum_persons: 5, minimum_cell: 3}"
SITES = {
    "heart_disease": ("cleveland", "hungarian", "switzerland", "va"),
    "dermatology": ("clinic_0", "clinic_1"),
    "clinical_notes": ("notes_0", "notes_1"),
    "chest_xray": ("xray_0", "xray_1", "radiographs"),
    "icu_outcome": ("unit_0", "unit_1"),
    "level_finder": ("north", "south", "east", "west", "coast"),
}
NUMBERS = ("heart_disease", "dermatology", "icu_outcome", "level_finder")  # kinds with a marked column of numbers
WITHOUT_PERSONS = ("heart_disease", "clinical_notes")  # no column says whose a row is: nobody can be on a list
SUMMED = ("heart_disease",)  # whose weights leave in sums of the sites alone
PRIVATE = ("sites/", "paths/")  # in a simulation the sites' own homes, and where their roots are


@pytest.mark.parametrize(
    "blob",
    [
        MARK.encode(),
        b"a" + base64.b64encode(b"xx" + MARK.encode() + b"yyy"),
        base64.b64encode(b"x" + MARK.encode() + b"y"),
        MARK.encode().hex().encode(),
        MARK.encode("utf-16"),
        MARK.encode("utf-32-be"),
        gzip.compress(b"some" + MARK.encode()),
        b"head" + zlib.compress(b"some" + MARK.encode()) + b"tail",
        b'{"a": "' + base64.b64encode(gzip.compress(b"some" + MARK.encode())) + b'"}',
        np.float32(NUMBER).tobytes(),
        json.dumps({"age": NUMBER}).encode(),
        (np.frombuffer(MARK.encode(), np.uint8) / 255).astype(np.float32).tobytes(),
    ],
    ids=[
        "plain", "base64", "base64 in another phase", "hex", "utf-16", "utf-32", "gzip", "zlib amid others",
        "gzip in base64", "float32", "a number as text", "pixels",
    ],
)  # fmt: skip
def test_the_search_sees_a_mark_in_disguise(blob):
    assert marks_in(blob)
    assert marks_in(b"x" * 5 + blob)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_search_sees_a_mark_in_an_archive_of_arrays(save):
    file = io.BytesIO()
    save(file, ages=np.array([40.0, NUMBER]), names=np.array([MARK]))
    assert {"number <d", "utf-32le"} <= set(marks_in(file.getvalue()))
    assert marks_in(b"nothing of the kind") == []


def run_marked(folder: Path, temporary: Path, experiment: str, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run an experiment on marked data at sites with a policy, with W&B and a tap at the coordinator."""
    words = in_rounds([word for word in TINY[experiment](folder / MARK) if not word.startswith("paths.")])
    MARKED[experiment](folder / MARK)
    (folder / "demo").symlink_to(folder / MARK)
    (folder / "packages").mkdir()
    (folder / "packages" / "tap.py").write_text(TAP)
    (folder / "conf" / "privacy").mkdir(parents=True)
    sums = "secure_aggregation: {_target_: flip.privacy.secure_aggregation.SecureAggregation}\n"
    tap = f"tap:\n  _target_: tap.Tap\n  folder: {folder / 'tapped'}\n"
    (folder / "conf" / "privacy" / "tap.yaml").write_text((sums if experiment in SUMMED else "") + tap)
    own = ["--config-dir", "conf", f"experiment={experiment}", "privacy=tap", "allow_targets=[tap.]", "tracking=wandb"]
    (folder / MARK / "own.safetensors").write_text(f"{MARK} model")
    if experiment not in WITHOUT_PERSONS:
        (folder / MARK / OWN["opt_out"]).write_text(f"{MARK}PAT_3\n{MARK}nobody\n")
    policy = SMALL if experiment == "level_finder" else POLICY  # of nine persons a site
    policies = [f"sites.{site}.policy={policy}" for site in SITES[experiment]]
    environment = {**os.environ, "FLIP_DATA_DIR": str(folder / MARK), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(folder / "packages"), "TMPDIR": str(temporary)}
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
    ("experiment", "job", "federation"),
    [
        *((name, "train", "inprocess") for name in MARKED if name != "level_finder"),
        *((name, "check", "inprocess") for name in ("dermatology", "icu_outcome", "level_finder")),
        ("dermatology", "train", "flower"),
        pytest.param("dermatology", "train", "nvflare", marks=pytest.mark.long),  # live: test_live_multimodal.py
    ],
)
def test_nothing_of_a_patient_leaves_a_site(experiment, job, federation, tmp_path, short):
    with watched(short) as seen:
        done = run_marked(tmp_path, short, experiment, f"federation={federation}", f"job={job}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert marks_in(done.stdout.encode()) == marks_in(done.stderr.encode()) == []
    run, tapped = tmp_path / "run", tmp_path / "tapped"
    assert len(list(tapped.iterdir())) >= 4  # tasks and replies
    assert marked_files(tapped) == marked_files(run, PRIVATE) == {}
    assert {path.suffix for path in run.rglob("*")} >= {".html", ".json", ".jsonl", ".wandb"}
    assert seen == set()
    journals = [*run.glob("sites/*/journal.jsonl"), *run.glob("sites/*/persons/*")]
    assert len(journals) >= len(SITES[experiment])
    assert [path for path in journals if marks_in(path.read_bytes())] == []
    kept = {name for names in marked_files(tmp_path / MARK).values() for name in names}
    assert kept >= {"plain"} | ({"number as text"} if experiment in NUMBERS else set())  # the search would find them
    assert marked_files(run / "sites" / "approvals")
