"""Files that a site reads, and the query of a study, whatever their bytes: one of the known mistakes, or none."""

import contextlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from datamodules.dicom import Unreadable, read_series
from datamodules.labels import read_labels
from datamodules.nifti import read_nifti_volume
from datamodules.sources.cohort_sql import parse
from flip.config.policy import Policy
from flip.config.site_file import load_site
from flip.config.site_template import SITE_TEMPLATE
from flip.errors import UserError
from tests.datamodules.ct_files import body, save, slices_of
from tests.fuzz.cases import JSON, TEXTS, cases, spoiled

FILLED = SITE_TEMPLATE.replace("???", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.mark.slow
@cases()
@given(
    some.one_of(
        spoiled(FILLED.encode()), some.binary(max_size=80), JSON.map(lambda each: repr(each).encode("utf-8", "replace"))
    )
)
def test_a_sites_file(folder, content):
    path = folder / "site.yaml"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        Policy.read("kings", load_site(path).policy, deployed=True)


WORDS = [
    "SELECT", "WITH", "AS", "(", ")", "FROM", "person", "WHERE", "1", "=", "'x'", ",", "UNION", "LATERAL", "*", ";",
    "--", "/*", "JOIN", "ON", "NULL", "::", "TEXT", "ORDER BY", "[", "CASE", "END", "$1", "pg_read_file", ".", "INSERT",
]  # fmt: skip
QUERY = (
    b"SELECT p.person_id, min(v.visit_start_date) AS index_date FROM person p JOIN visit_occurrence v USING (person_id)"
)


def read_query(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


@cases()
@given(
    some.one_of(
        some.lists(some.sampled_from(WORDS), max_size=30).map(" ".join),
        spoiled(QUERY).map(lambda each: each.decode("utf-8", "replace")),
        TEXTS,
    )
)
def test_the_query_of_a_study(text):
    read_query(text)


@pytest.fixture(scope="module")
def volume(folder: Path):
    return read_series(save(folder / "whole", slices_of(body())))


@cases(150)
@given(some.data())
def test_an_image_in_dicom(folder, volume, data):
    files = sorted((folder / "whole").iterdir())
    place = folder / "spoiled"
    place.mkdir(exist_ok=True)
    for path in files:
        (place / path.name).write_bytes(path.read_bytes())
    (place / files[1].name).write_bytes(data.draw(spoiled(files[1].read_bytes())))
    with contextlib.suppress(Unreadable):
        read_series(place)


@pytest.fixture(scope="module")
def whole_nifti(volume) -> bytes:
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    return nib.Nifti1Image(np.ones(volume.voxels.shape[::-1], np.int16), affine).to_bytes()


@pytest.mark.parametrize("reader", ["volume", "labels"])
@cases(150)
@given(some.data())
def test_an_image_in_nifti(folder, volume, whole_nifti, reader, data):
    path = folder / f"{reader}.nii"
    # the header is 348 bytes of the file: it is spoiled more often than the voxels
    head = data.draw(spoiled(whole_nifti[:352]))
    path.write_bytes(head + whole_nifti[352:])
    with contextlib.suppress(Unreadable):
        read_nifti_volume(path) if reader == "volume" else read_labels(path, volume)


@cases(100)
@given(some.data())
def test_a_segmentation(folder, volume, data):
    path = folder / "seg.dcm"
    path.write_bytes(data.draw(some.one_of(spoiled(whole_segmentation(folder)), some.binary(max_size=300))))
    with contextlib.suppress(Unreadable):
        read_labels(path, volume)


def whole_segmentation(folder: Path) -> bytes:
    """A DICOM SEG of the whole images, written once."""
    from pydicom import dcmread

    from tests.datamodules.test_labels import segmentation

    path = folder / "whole_seg.dcm"
    if not path.exists():
        images = [dcmread(each) for each in sorted((folder / "whole").iterdir())]
        images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
        segmentation(images, {"liver": body() > -100}).save_as(path)
    return path.read_bytes()
