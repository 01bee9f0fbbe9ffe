"""CT slices at L3, from a site's folder of DICOM and DICOM SEG."""

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import phantom
from datamodules.ct.cohort import UNREAD_NUMBER, read_cohort, unread
from datamodules.ct.grid import Grid
from datamodules.ct.planes import Plane, planes_at_level
from datamodules.ct_slices import CTSlices
from datamodules.splits import ByHash
from tests.datamodules.ct_files import body
from tests.datamodules.ct_sites import SHAPE, nifti, numbered, structures
from tests.datamodules.ct_sites import site as ct_site
from tests.datamodules.suite import DataModuleSuite

SMALL = {"grid": Grid(8.0, 56, 192), "batch_size": 2, "slices_per_person": 3}
PERSONS = 4


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """A site of four SYNTHETIC persons."""
    root = tmp_path_factory.mktemp("demo") / "north"
    phantom.generate(root, profile=phantom.PROFILES["north"], patients=PERSONS)
    return root


@pytest.fixture
def site(cohort, tmp_path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(cohort, tmp_path / "site")


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(root: Path, table: list[dict[str, str]]) -> None:
    with (root / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def loaded(root: Path, **arguments) -> CTSlices:
    datamodule = CTSlices(str(root), **{**SMALL, **arguments})
    datamodule.setup()
    return datamodule


class TestCTSlices(DataModuleSuite):
    @pytest.fixture
    def make(self, cohort):
        return lambda **arguments: CTSlices(**{"root": str(cohort), **SMALL, **arguments})


def test_trains_on_slices_around_the_level_and_tests_on_one_a_person(cohort):
    datamodule = loaded(cohort)
    assert len(datamodule.train_dataloader().dataset) == 3 * 3
    assert len(datamodule.test_dataloader().dataset) == 1


def test_a_test_batch_holds_the_scanners_own_grid_and_the_row_of_the_table(cohort):
    batch = next(iter(loaded(cohort, trains=False).test_dataloader()))
    table = rows(cohort)
    assert batch["image"].shape == (2, 1, 56, 56) and batch["hu"].shape == batch["label"].shape == (2, 192, 192)
    assert batch["index"].tolist() == [0, 1]
    assert batch["sex"].tolist() == [int(row["sex"] == "M") for row in table[:2]]
    torch.testing.assert_close(batch["height_m"], torch.tensor([float(row["height_m"]) for row in table[:2]]))
    assert batch["image"].abs().max() <= 1


def test_the_reference_area_is_that_of_the_labels_on_the_scanners_grid(cohort):
    batch = next(iter(loaded(cohort, trains=False).test_dataloader()))
    counted = (batch["label"] == 1).sum((1, 2)) * batch["pixel_area_cm2"]
    torch.testing.assert_close(batch["reference_area_cm2"][:, 0], counted)
    assert (counted > 50).all() and (counted < 300).all()


def test_a_person_is_in_one_split_alone(site):
    table = rows(site)
    for number, row in enumerate(table):
        row["person_id"] = ("one", "other")[number % 2]
    rewrite(site, table)
    datamodule = loaded(site, split=ByHash(validate=0.0, test=0.5))
    assert datamodule.persons() == 2
    assert len(datamodule.train_dataloader().dataset) == 2 * 3  # both studies of the one person
    assert len(datamodule.test_dataloader().dataset) == 1  # the first study of the other


def test_the_split_does_not_depend_on_the_order_of_the_table(site):
    before = {loaded(site).accessions[int(i)] for batch in loaded(site).test_dataloader() for i in batch["index"]}
    rewrite(site, rows(site)[::-1])
    datamodule = loaded(site)
    assert {datamodule.accessions[int(i)] for batch in datamodule.test_dataloader() for i in batch["index"]} == before


def test_what_cannot_be_read_is_skipped_with_a_reason_and_the_rest_is_used(site):
    table = rows(site)
    first, second, third = (row["accession_id"] for row in table[:3])
    shutil.rmtree(site / "dicom" / first)
    (site / "labels" / f"{second}.dcm").write_bytes(b"not a segmentation")
    table[2]["height_m"] = "171"
    rewrite(site, table)
    datamodule = loaded(site, trains=False)
    assert len(datamodule.test_dataloader().dataset) == 1
    assert [accession for accession, _ in datamodule.skipped_accessions] == [first, second, third]
    assert sum(datamodule.skipped.values()) == 3
    assert any("height_m" in reason for reason in datamodule.skipped)
    assert not any(accession in reason for reason in datamodule.skipped for accession in (first, second, third))


def test_an_accession_that_leads_out_of_the_folder_is_not_followed(site):
    table = rows(site)
    table[0]["accession_id"] = "../" + table[0]["accession_id"]
    rewrite(site, table)
    assert any("plain name" in reason for reason in loaded(site, trains=False).skipped)


def test_a_site_with_nothing_to_read_says_why(site):
    shutil.rmtree(site / "dicom")
    with pytest.raises(ValueError, match=r"no study to train on: 4 x "):
        loaded(site)


def test_a_site_names_its_columns_and_segments_as_it_likes(site):
    rewrite(
        site,
        [{("patient" if name == "person_id" else name): value for name, value in row.items()} for row in rows(site)],
    )
    with pytest.raises(ValueError, match=r"no column person_id; map it .*`columns`"):
        loaded(site)
    assert loaded(site, columns={"person_id": "patient"}).persons() == PERSONS


def test_without_dicom_the_folder_images_is_read_a_nifti_too(tmp_path):
    root = ct_site(tmp_path, ["A", "B"])
    (root / "dicom").rename(root / "images")
    shutil.rmtree(root / "images" / "B")
    nifti(root / "images" / "B.nii.gz", body(*SHAPE))
    for accession in ("A", "B"):
        nifti(root / "labels" / f"{accession}.nii.gz", numbered(structures()))
    datamodule = loaded(root, trains=False)
    assert datamodule.skipped == {}
    first, second = next(iter(datamodule.test_dataloader()))["hu"]
    assert torch.equal(first, second)


def test_a_segment_that_is_not_in_the_labels_is_named(site):
    with pytest.raises(ValueError, match="4 x the labels have no segment visceral_fat"):
        loaded(site, columns={"visceral_fat": "torso_fat"})


def test_the_demo_is_generated_where_it_is_absent(tmp_path):
    datamodule = CTSlices(str(tmp_path / "south"), demo=True, demo_patients=1, **SMALL)
    assert datamodule.persons() == 1 and datamodule.synthetic


@pytest.mark.parametrize(
    ("column", "text"), [("age", "sixty"), ("age", "999"), ("weight_kg", "75 kg"), ("event", "no")]
)
def test_a_number_of_the_table_that_is_none_counts_as_missing_and_is_said(tmp_path, column, text):
    rows = [("p1", "A", "60", "70", "1"), ("p1", "B", "61", "", "0"), ("p2", "C", "", " ", "1")]
    names = ["age", "weight_kg", "event"]
    table = [
        dict(zip(["person_id", "accession_id", *names], row, strict=True)) | {"sex": "F", "height_m": "1.6"}
        for row in rows
    ]
    table[1][column] = text
    with (tmp_path / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    studies, _ = read_cohort(tmp_path, {})
    assert math.isnan(getattr(studies[1], column))
    assert unread(studies, ()) == ({UNREAD_NUMBER: 1}, {UNREAD_NUMBER: 1})
    assert unread(studies, ["doubt"]) == ({UNREAD_NUMBER: 1, "doubt": 3}, {UNREAD_NUMBER: 1, "doubt": 2})
    assert unread([studies[0], studies[2]], ()) == ({}, {})  # an empty cell is missing, and nothing to say
    assert UNREAD_NUMBER in CTSlices.REMARKS


def test_augmentation_changes_image_and_label_alike(cohort):
    plain, moved = (loaded(cohort, augment=strength).train_dataloader().dataset for strength in (0.0, 1.0))
    torch.manual_seed(0)
    image, label = plain[0]["image"], moved[0]["label"]
    assert not torch.equal(plain[0]["label"], label) and set(label.unique().tolist()) <= {0, 1, 2, 3}
    assert torch.equal(plain[0]["image"], image)


def square(side: int = 60, spacing: float = 1.0) -> Plane:
    label = np.zeros((side, side), np.uint8)
    label[side // 3 : 2 * side // 3, side // 6 : 5 * side // 6] = 1
    return Plane(np.where(label, 50, -100).astype(np.int16), label, (spacing, spacing))


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.5, 4.0])
def test_another_grid_keeps_areas(spacing):
    plane = square(side=126)
    _, label = plane.resampled(spacing, round(140 / spacing))
    assert (label == 1).sum() * spacing**2 / 100 == pytest.approx(plane.areas_cm2()[0], rel=0.1)


def test_a_plane_that_is_too_large_is_thinned_out_and_keeps_its_size():
    thin = square(side=60).within(32)
    assert thin.hu.shape == (30, 30) and thin.areas_cm2()[0] == square().areas_cm2()[0]


def test_the_level_is_the_center_of_the_vertebra_and_unlabeled_planes_are_left_out():
    masks = {
        name: np.zeros((9, 4, 4), bool)
        for name in ("skeletal_muscle", "subcutaneous_fat", "visceral_fat", "vertebra_L3")
    }
    masks["vertebra_L3"][2:5] = True
    masks["skeletal_muscle"][3:5, 1, 1:3] = True
    voxels = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None, None], (9, 4, 4))
    planes = planes_at_level(voxels, (2.0, 1.0, 1.0), masks, count=3, step_mm=2.0)
    assert [int(plane.hu[0, 0]) for plane in planes] == [3, 4]
