"""The demo study at its full size: what the README says of it."""

import re
from pathlib import Path

import pytest

from datamodules.phantom.cohort import main
from flip.runs.folder import RunFolder
from tests.commands import Finished, flip
from tests.conf.stated import TOLERANCE, stated
from tests.conftest import ROOT

NAMES = ("dice_muscle", "index_mae", "index_bias")
ROW = r"^\| \**(\w+) \(\d+\)[^|]*\| \**(\.\d+)\** \| \**([\d.]+)\** \| ([+-][\d.]+) \|$"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sites of 24 phantoms."""
    folder = tmp_path_factory.mktemp("demo")
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return flip(
        tmp_path_factory.mktemp("trained"), "experiment=sarcopenia", "federation=inprocess", "federation.workers=2",
        f"paths.demo_dir={demo}",
    )  # fmt: skip


def test_muscle_is_found_in_patients_of_a_site_that_never_trained(trained):
    assert trained.status == 0, trained.err
    west = trained.result["metrics"]["test/site/west/dice_muscle"]
    assert west == pytest.approx(stated("sarcopenia").federated, abs=TOLERANCE)


def test_every_row_of_the_page_on_sites_is_what_the_study_gives(trained):
    rows = re.findall(ROW, (ROOT / "conf" / "experiment" / "README.md").read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == ["north", "south", "east", "west"]
    for site, dice, error, bias in rows:
        scores = {name: trained.result["metrics"][f"test/site/{site}/{name}"] for name in NAMES}
        assert scores["dice_muscle"] == pytest.approx(float(dice), abs=TOLERANCE)
        assert scores["index_mae"] == pytest.approx(float(error), abs=0.3)
        assert scores["index_bias"] == pytest.approx(float(bias), abs=0.3)


@pytest.mark.long
def test_trained_in_one_place_it_is_as_good_as_the_readme_states(demo, tmp_path):
    ran = flip(tmp_path, "experiment=sarcopenia", "federation=none", f"paths.demo_dir={demo}")
    assert ran.status == 0, ran.err
    west = ran.result["metrics"]["test/site/west/dice_muscle"]
    assert west == pytest.approx(stated("sarcopenia").centralized, abs=TOLERANCE)


def test_the_muscle_index_there_is_right_to_3_cm2_m2(trained):
    assert trained.result["metrics"]["test/site/west/index_mae"] <= 3.0


def test_a_round_at_full_size_gives_the_same_weights_over_flower(demo, trained, tmp_path):
    one = ["experiment=sarcopenia", "strategy.rounds=1", "federation=flower", f"paths.demo_dir={demo}"]
    ran = flip(tmp_path, *one, "federation.workers=2")
    assert ran.status == 0, ran.err
    assert RunFolder(trained.runs[0], []).digests()[0] == ran.result["digest"]
