"""The study of whole abdomens: checked for every backend, under noise, on phantoms, and on a real CT."""

import csv
import resource
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.errors import UserError
from tests.cohorts.abdomen_3d import abdomen_3d
from tests.studies import compose_study

HALF = ("muscle", "vertebra_L1", "vertebra_L3", "vertebra_L5")  # of what west does not label


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of the study on tiny scans."""
    return ["experiment=abdomen_3d", *abdomen_3d(tmp_path_factory.mktemp("abdomen"))]


@pytest.mark.parametrize("federation", ["none", "inprocess", "flower", "nvflare"])
def test_the_study_is_sound_on_every_backend(tiny, federation):
    check(compose_study(*tiny, f"federation={federation}"))


@pytest.mark.slow
def test_who_labels_half_is_scored_by_that_half_and_who_never_trains_by_all(tiny, tmp_path):
    found = execute(compose_study(*tiny, "federation=inprocess"), tmp_path / "run")["metrics"]
    assert all(found.get(f"test/site/west/dice_{name}") is None for name in HALF)
    assert all(found.get(f"test/site/coast/dice_{name}") is not None for name in HALF)
    assert found.get("test/site/west/dice_liver") is not None


@pytest.mark.slow
def test_workers_begin_although_their_parent_has_used_several_threads(tiny, tmp_path):
    torch.set_num_threads(2)
    torch.ones(10**6).exp()  # starts OpenMP's threads, which a fork lacks
    words = ["federation=inprocess", "federation.workers=2", "federation.timeout=60", "strategy.rounds=1"]
    assert execute(compose_study(*tiny, *words), tmp_path / "run")["status"] == "ok"


def test_under_noise_the_study_is_sound_without_mixing_patients(tiny):
    check(compose_study(*tiny, "federation=inprocess", "privacy=dp_sgd"))
    mixed = ["privacy=dp_sgd", "model.network.norm=BATCH"]
    with pytest.raises(UserError, match=r"(?i)batch"):
        check(compose_study(*tiny, "federation=inprocess", *mixed))


CT = "patientA_ct_3mm.nii.gz", "patientA_seg_v1_multilabel.nii.gz"


def real_sites(data: Path, folder: Path, present: list[int]) -> Path:
    """One patient at a hospital that trains, and at one that is tested; structures by number."""
    root = folder / "ct"
    for kind, name in zip(("images", "labels"), CT, strict=True):
        (root / kind).mkdir(parents=True)
        shutil.copyfile(data / "ct_patient_a" / name, root / kind / "A1.nii.gz")
    with (root / "cohort.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["person_id", "accession"], ["P1", "A1"]])
    numbers = ", ".join(f"s{number}: {number}" for number in present)
    sites = folder / "conf" / "sites" / "patient.yaml"
    sites.parent.mkdir(parents=True)
    site = f"root: {root}, columns: {{{numbers}}}, policy: public_data"
    sites.write_text(f"# @package sites\nhere: {{{site}, trains: true}}\nthere: {{{site}, trains: false}}\n")
    return folder / "conf"


@pytest.mark.slow
def test_a_real_ct_is_trained_on_and_scored_on_its_own_grid(data_dir, tmp_path):
    # Of the 104 classes those that this patient's scan shows: a study of one that nobody has is refused.
    numbers = np.unique(np.asarray(nib.load(data_dir / "ct_patient_a" / CT[1]).dataobj))
    present = [int(number) for number in numbers if number > 0]
    conf = real_sites(data_dir, tmp_path, present)
    structures = "[" + ",".join(f"s{number}" for number in present) + "]"
    words = [
        "experiment=abdomen_3d", "sites=[patient]", f"dataset.structures={structures}", "strategy.rounds=1",
        "trainer.steps=10", "dataset.split={train: 0.99, validate: 0.0}", "dataset.batch_size=1",
    ]  # fmt: skip
    started = time.monotonic()
    result = execute(compose_study(*words, "federation=inprocess", config_dir=conf), tmp_path / "run")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(present)} structures, {time.monotonic() - started:.1f} s, peak {peak:.2f} GiB")
    assert result["status"] == "ok", (result["reason"], (tmp_path / "run" / "log.txt").read_text()[-1500:])
    found = result["metrics"]
    assert all(found.get(f"test/site/there/dice_s{number}") is not None for number in (1, 5, 20))  # spleen, liver, L3
    assert peak < 6
