"""Scans of the whole synthetic abdomen: what is on disk, and that its truth lies where the table says."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.dicom import Volume, read_series
from datamodules.labels import read_labels
from datamodules.nifti import read_nifti_volume
from datamodules.phantom.abdomen import PROFILES, generate
from datamodules.phantom.abdomen.board import STRUCTURES
from datamodules.phantom.abdomen.sites import VIEWS

Masks = dict[str, NDArray[np.bool_]]


def only(site: str, view: str = "whole", *, prone: float = 0.0, metal: float = 0.0) -> object:
    """A site all of whose patients are alike in what is in view."""
    shares = tuple(float(each == view) for each in VIEWS)
    return replace(PROFILES[site], views=shares, prone=prone, metal=metal, narrow=0.0)


def made(root: Path, profile: object, *, patients: int = 1, seed: int = 5) -> list[dict[str, str]]:
    generate(root, profile=profile, patients=patients, pixels=48, seed=seed)  # type: ignore[arg-type]
    with (root / "cohort.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read(root: Path, accession: str) -> tuple[Volume, Masks]:
    """A scan by the readers of real data."""
    if (root / "images" / accession).is_dir():
        volume = read_series(root / "images" / accession)
        return volume, read_labels(root / "labels" / f"{accession}.dcm", volume)
    volume = read_nifti_volume(root / "images" / f"{accession}.nii.gz")
    numbers = dict(enumerate(STRUCTURES, start=1))
    return volume, read_labels(root / "labels" / f"{accession}.nii.gz", volume, numbers)


def fingerprint(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("site", "prone"), [("north", 0.0), ("north", 1.0), ("south", 0.0), ("south", 1.0)])
def test_the_level_of_the_table_is_the_center_of_l3(tmp_path: Path, site: str, prone: float) -> None:
    row = made(tmp_path / site, only(site, prone=prone))[0]
    volume, masks = read(tmp_path / site, row["accession"])
    slices, *_ = np.nonzero(masks["vertebra_L3"])
    found = volume.affine[2, 3] + slices.mean() * volume.spacing[0]
    assert found == pytest.approx(float(row["level_mm"]), abs=6)


@pytest.mark.parametrize("site", ["north", "south"])
def test_structures_lie_where_they_do_in_people_also_prone(tmp_path: Path, site: str) -> None:
    for prone in (0.0, 1.0):
        root = tmp_path / f"{site}{prone:g}"
        _, masks = read(root, made(root, only(site, prone=prone))[0]["accession"])
        assert tuple(masks) == STRUCTURES and all(mask.any() for mask in masks.values())
        heights = [np.nonzero(masks[f"vertebra_L{number}"])[0].mean() for number in range(1, 6)]
        assert heights == sorted(heights, reverse=True)
        # Slices run to the head, rows to the back, columns to the left.
        middle = {name: np.argwhere(mask).mean(axis=0) for name, mask in masks.items()}
        assert middle["liver"][2] < middle["vertebra_L1"][2] < middle["spleen"][2]
        assert middle["liver"][1] < middle["vertebra_L3"][1]


def test_vertebrae_have_their_bodies(tmp_path: Path) -> None:
    volume, masks = read(tmp_path / "s", made(tmp_path / "s", only("south"))[0]["accession"])
    voxel = float(np.prod(volume.spacing)) / 1000
    volumes = [masks[f"vertebra_L{number}"].sum() * voxel for number in range(1, 6)]
    assert min(volumes) > 35 and max(volumes) < 120  # mL; a body alone has about 35
    assert 400 < masks["liver"].sum() * voxel < 2500 and 40 < masks["spleen"].sum() * voxel < 500


@pytest.mark.slow
def test_liver_and_spleen_overlap_in_hounsfield_units(tmp_path: Path) -> None:
    hu: dict[str, list[float]] = {"liver": [], "spleen": []}
    for row in made(tmp_path / "north", only("north"), patients=4):
        volume, masks = read(tmp_path / "north", row["accession"])
        for name, found in hu.items():
            found.extend(volume.voxels[masks[name]])
    low, high = np.percentile(hu["liver"], (10, 90))
    assert np.mean((np.array(hu["spleen"]) > low) & (np.array(hu["spleen"]) < high)) > 0.4


@pytest.mark.parametrize("view", ["above_l3", "below_l3"])
def test_without_l3_in_view_there_is_no_level_and_no_voxel_of_its_body(tmp_path: Path, view: str) -> None:
    for row in made(tmp_path / "north", only("north", view), patients=2):
        volume, masks = read(tmp_path / "north", row["accession"])
        assert row["level_mm"] == "" and row["view"] == view
        assert masks["vertebra_L3"].sum() * np.prod(volume.spacing) < 15_000  # processes of L3 at most, mm3


def test_metal_is_brighter_than_bone(tmp_path: Path) -> None:
    brightest = []
    for metal in (0.0, 1.0):
        root = tmp_path / f"{metal:g}"
        brightest.append(read(root, made(root, only("north", metal=metal))[0]["accession"])[0].voxels.max())
    assert brightest[0] < 1200 < brightest[1]


def test_a_site_segments_only_what_it_labels(tmp_path: Path) -> None:
    row = made(tmp_path / "west", only("west"))[0]
    assert tuple(read(tmp_path / "west", row["accession"])[1]) == PROFILES["west"].labels


@pytest.mark.parametrize("site", ["north", "south"])
def test_the_same_seed_gives_the_same_files_and_another_gives_others(tmp_path: Path, site: str) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        made(tmp_path / name, PROFILES[site], seed=seed)
    first, second, other = (fingerprint(tmp_path / name) for name in "abc")
    assert first == second
    assert not set(first.values()) & set(other.values())


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"seed": -1}, {"pixels": 31}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="patients has to be"):
        generate(tmp_path / "north", profile=PROFILES["north"], **wrong)
    assert not list(tmp_path.iterdir())
