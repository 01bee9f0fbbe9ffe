"""The demo cohort: what is on disk, that it is repeatable, whole or absent, and hard enough to be worth a network."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from datamodules.dicom import read_series
from datamodules.labels import read_labels
from datamodules.phantom import cohort as phantom
from datamodules.phantom.scanner import scan
from datamodules.phantom.sites import LOW_SMI, draw_person

LABELS = ("skeletal_muscle", "subcutaneous_fat", "visceral_fat", "vertebra_L3")
SITES = ("north", "south", "east", "west")


def small(site: str) -> phantom.SiteProfile:
    """The site's profile at fewer pixels and slices, so that a test takes a fraction of a second."""
    return dataclasses.replace(phantom.PROFILES[site], pixels=96, slices=5, thickness=12.0)


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "cohort.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def fingerprint(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(root: Path, accession: str) -> tuple[list[pydicom.Dataset], NDArray[np.float64], NDArray[np.bool_]]:
    """Slices from head to feet, their HU, and the masks (segment, slice, row, column)."""
    slices = [pydicom.dcmread(path) for path in (root / "dicom" / accession).glob("*.dcm")]
    slices.sort(key=lambda s: -s.ImagePositionPatient[2])
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    segmentation = highdicom.seg.segread(root / "labels" / f"{accession}.dcm")
    uids = [s.SOPInstanceUID for s in slices]
    masks = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return slices, hu, np.moveaxis(masks, -1, 0).astype(bool)


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / request.param
    phantom.generate(root, profile=small(request.param), patients=2, seed=3)
    return root


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "north"
    phantom.generate(root, profile=small("north"), patients=2, seed=3)
    return root


def test_four_sites_are_known_by_name() -> None:
    assert tuple(phantom.PROFILES) == SITES
    assert all(profile.name == name for name, profile in phantom.PROFILES.items())


def test_the_cohort_table_has_exactly_the_columns_of_a_site(cohort: Path) -> None:
    header = (cohort / "cohort.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "person_id,accession_id,sex,age,height_m,weight_kg,followup_days,event"


def test_the_rows_of_the_table_are_plausible_persons(site: Path) -> None:
    table = rows(site)
    assert len({row["person_id"] for row in table}) == len({row["accession_id"] for row in table}) == 2
    for row in table:
        assert row["sex"] in {"M", "F"} and row["event"] in {"0", "1"} and int(row["followup_days"]) >= 1
        assert 30 <= int(row["age"]) <= 92 and 1.3 < float(row["height_m"]) < 2.1
        assert 17 < float(row["weight_kg"]) / float(row["height_m"]) ** 2 < 41


def test_each_accession_has_a_series_and_a_segmentation_and_nothing_else_lies_about(site: Path) -> None:
    accessions = {row["accession_id"] for row in rows(site)}
    assert {path.name for path in site.iterdir()} == {"cohort.csv", "README.txt", "dicom", "labels"}
    assert {path.name for path in (site / "dicom").iterdir()} == accessions
    assert {path.stem for path in (site / "labels").iterdir()} == accessions


def test_headers_and_readme_say_that_it_is_synthetic(site: Path) -> None:
    accession = rows(site)[0]["accession_id"]
    first = read(site, accession)[0][0]
    segmentation = pydicom.dcmread(site / "labels" / f"{accession}.dcm")
    assert "SYNTHETIC" in first.SeriesDescription and "SYNTHETIC" in first.ImageComments
    assert first.PatientIdentityRemoved == "YES"
    assert "SYNTHETIC" in segmentation.SeriesDescription
    assert "SYNTHETIC" in (site / "README.txt").read_text(encoding="utf-8")


def test_headers_agree_with_the_table(site: Path) -> None:
    for row in rows(site):
        first = read(site, row["accession_id"])[0][0]
        assert (first.PatientID, first.AccessionNumber, first.PatientSex) == (
            row["person_id"],
            row["accession_id"],
            row["sex"],
        )
        assert first.PatientAge == f"{int(row['age']):03d}Y"
        assert float(first.PatientSize) == float(row["height_m"])


def test_each_site_encodes_its_pixels_in_its_own_way_and_they_decode(site: Path) -> None:
    slices, hu, _ = read(site, rows(site)[0]["accession_id"])
    assert slices[0].file_meta.TransferSyntaxUID == phantom.PROFILES[site.name].transfer_syntax
    assert hu.min() < -900 and hu.max() > 200
    assert len({phantom.PROFILES[name].transfer_syntax for name in SITES}) == 4


def test_the_encoding_changes_no_pixel(tmp_path: Path) -> None:
    plain = dataclasses.replace(small("west"), transfer_syntax=pydicom.uid.ExplicitVRLittleEndian)
    phantom.generate(tmp_path / "plain", profile=plain, patients=1)
    reference = read(tmp_path / "plain", rows(tmp_path / "plain")[0]["accession_id"])[1]
    for number, name in enumerate(("south", "east", "west")):
        profile = dataclasses.replace(plain, transfer_syntax=phantom.PROFILES[name].transfer_syntax)
        root = tmp_path / str(number)
        phantom.generate(root, profile=profile, patients=1)
        assert np.array_equal(read(root, rows(root)[0]["accession_id"])[1], reference)


def test_slices_are_contiguous_on_one_grid(site: Path) -> None:
    slices = read(site, rows(site)[0]["accession_id"])[0]
    z = [float(s.ImagePositionPatient[2]) for s in slices]
    assert np.allclose(-np.diff(z), float(slices[0].SliceThickness), atol=1e-3)
    assert len({tuple(s.PixelSpacing) for s in slices}) == 1
    assert len({s.SeriesInstanceUID for s in slices}) == 1 and len({s.SOPInstanceUID for s in slices}) == len(slices)


def test_the_readers_of_real_data_give_back_what_was_written(site: Path) -> None:
    for row in rows(site):
        _, hu, masks = read(site, row["accession_id"])
        volume = read_series(site / "dicom" / row["accession_id"])
        labels = read_labels(site / "labels" / f"{row['accession_id']}.dcm", volume)
        # A volume runs from feet to head, the files of the phantom from head to feet.
        assert np.array_equal(volume.voxels, hu[::-1])
        assert tuple(labels) == LABELS
        assert all(np.array_equal(labels[label], masks[index][::-1]) for index, label in enumerate(LABELS))


def test_segments_have_the_agreed_labels_and_snomed_codes(site: Path) -> None:
    segmentation = highdicom.seg.segread(site / "labels" / f"{rows(site)[0]['accession_id']}.dcm")
    descriptions = [segmentation.get_segment_description(number) for number in segmentation.segment_numbers]
    assert tuple(d.segment_label for d in descriptions) == LABELS
    assert [d.segmented_property_type.value for d in descriptions] == ["127954009", "55603005", "55603005", "36470004"]
    assert all(d.segmented_property_type.scheme_designator == "SCT" for d in descriptions)


def test_tissues_are_in_all_slices_and_the_vertebra_only_where_it_is(site: Path) -> None:
    _, _, masks = read(site, rows(site)[0]["accession_id"])
    present = masks.any(axis=(2, 3))
    assert present[:3].all()
    assert present[3, 2] and not present[3, 0] and not present[3, -1]
    assert not (masks[:, None] & masks[None]).any(axis=(2, 3, 4))[~np.eye(4, dtype=bool)].any(), "segments overlap"


def test_tissues_keep_the_hounsfield_windows_of_the_field(site: Path) -> None:
    _, hu, masks = read(site, rows(site)[0]["accession_id"])
    for index, (low, high) in enumerate(((-29, 150), (-190, -30), (-150, -50))):
        values = hu[masks[index]]
        assert low <= values.min() and values.max() <= high


def test_the_muscle_drawn_is_the_muscle_wanted(tmp_path: Path) -> None:
    profile = dataclasses.replace(small("west"), pixels=160, slices=1)
    for number in range(3):
        rng = np.random.default_rng(number)
        person = draw_person(profile, rng)
        assert scan(person, profile, 0, rng).muscle_cm2() == pytest.approx(person.physique.muscle_cm2, rel=0.08)


def test_the_same_seed_gives_the_same_files(cohort: Path, tmp_path: Path) -> None:
    phantom.generate(tmp_path / "north", profile=small("north"), patients=2, seed=3)
    assert fingerprint(tmp_path / "north") == fingerprint(cohort)


def test_another_seed_gives_other_persons(cohort: Path, tmp_path: Path) -> None:
    phantom.generate(tmp_path / "north", profile=small("north"), patients=2, seed=4)
    assert rows(tmp_path / "north") != rows(cohort)
    assert not set(fingerprint(tmp_path / "north").values()) & set(fingerprint(cohort).values())


def test_more_patients_leave_the_first_as_they_were(cohort: Path, tmp_path: Path) -> None:
    phantom.generate(tmp_path / "north", profile=small("north"), patients=3, seed=3)
    assert rows(tmp_path / "north")[:2] == rows(cohort)


def test_a_cohort_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "cohort.csv").write_text("mine\n", encoding="utf-8")
    phantom.ensure(tmp_path / "north")
    phantom.generate(tmp_path / "north", profile=small("north"))
    assert (tmp_path / "north" / "cohort.csv").read_text(encoding="utf-8") == "mine\n"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"no cohort\.csv"):
        phantom.ensure(tmp_path / "north")
    assert (tmp_path / "north" / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_ensure_generates_the_site_that_the_folder_is_named_for(tmp_path: Path) -> None:
    phantom.ensure(str(tmp_path / "deep" / "east"), patients=1)
    assert rows(tmp_path / "deep" / "east")[0]["person_id"].startswith("east")


def test_ensure_names_the_sites_it_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="north, south, east, west"):
        phantom.ensure(tmp_path / "norht")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="patients has to be"):
        phantom.ensure(tmp_path / "north", **wrong)


def _generate(root: Path, patients: int) -> None:
    phantom.generate(root, profile=small("north"), patients=patients, seed=3)


def test_a_killed_writer_leaves_no_half_cohort_and_the_next_one_succeeds(cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "north"
    writer = multiprocessing.get_context("spawn").Process(target=_generate, args=(root, 500))
    writer.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".north.partial/labels/*.dcm")):
        assert time.monotonic() < deadline and writer.is_alive()
        os.sched_yield()
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert not root.exists()
    _generate(root, 2)
    assert fingerprint(root) == fingerprint(cohort)
    assert not (tmp_path / ".north.partial").exists()


@pytest.mark.slow
def test_two_processes_at_once_give_one_whole_cohort(cohort: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_generate, args=(tmp_path / "north", 2)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert fingerprint(tmp_path / "north") == fingerprint(cohort)


def test_the_command_line_writes_the_sites_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom.main([str(tmp_path), "--patients", "1", "--sites", "south"]) == 0
    assert len(rows(tmp_path / "south")) == 1 and not (tmp_path / "north").exists()
    assert capsys.readouterr().out.startswith("south: 1 synthetic patients in ")
    phantom.main([str(tmp_path), "--patients", "1", "--sites", "south"])
    assert capsys.readouterr().out.startswith("south: left as it was")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The whole demo cohort and the seconds of processor that it took: others may share the machine."""
    root = tmp_path_factory.mktemp("demo")
    started = time.process_time()
    phantom.main([str(root)])
    return root, time.process_time() - started


@pytest.mark.long
def test_the_demo_cohort_fits_its_budget(demo: tuple[Path, float]) -> None:
    root, seconds = demo
    assert seconds < 60
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 200e6


@pytest.mark.slow
@pytest.mark.parametrize("name", SITES)
def test_thresholding_does_not_find_the_muscle(demo: tuple[Path, float], name: str) -> None:
    scores = []
    for row in rows(demo[0] / name):
        _, hu, masks = read(demo[0] / name, row["accession_id"])
        window = (hu >= -29) & (hu <= 150)
        scores.append(2 * (window & masks[0]).sum() / (window.sum() + masks[0].sum()))
    assert np.mean(scores) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", SITES)
def test_muscle_area_and_low_index_are_as_common_as_in_patients(demo: tuple[Path, float], name: str) -> None:
    low, areas = [], {"M": [], "F": []}
    for row in rows(demo[0] / name):
        slices, _, masks = read(demo[0] / name, row["accession_id"])
        middle = round(np.flatnonzero(masks[3].any(axis=(1, 2))).mean())
        area = masks[0, middle].sum() * float(slices[0].PixelSpacing[0]) ** 2 / 100
        areas[row["sex"]].append(area)
        low.append(area / float(row["height_m"]) ** 2 < LOW_SMI[row["sex"]])
    assert 0.15 <= np.mean(low) <= 0.55
    assert 140 < np.mean(areas["M"]) < 180 and 90 < np.mean(areas["F"]) < 130
