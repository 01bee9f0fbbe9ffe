"""Images from a real PACS (Orthanc), over DICOMweb and over DICOM's own protocol, into a cache."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from datamodules.dicom import Reason
from datamodules.dicom.series import read_series
from datamodules.segmentation.forms import Volumes
from datamodules.segmentation.intensity import Range
from datamodules.segmentation.patching import Patching
from datamodules.segmentation_images import SegmentationImages
from datamodules.sources.dicomweb import DICOMweb
from datamodules.sources.dimse import DIMSE, Move
from tests.datamodules.ct_files import AIR, SPACING, body, slices_of
from tests.datamodules.ct_sites import nifti
from tests.services import orthanc
from tests.services.installed import free_port

pytestmark = pytest.mark.slow

SLICES = 5


def study(accession: str, person: str, uid: str, date: str = "20200101") -> list[Dataset]:
    """A CT study with a structured report."""
    report = slices_of(body(1))[0]
    report.Modality = "SR"
    images = [*slices_of(body(SLICES)), report]
    for image in images:
        image.AccessionNumber, image.PatientID, image.StudyInstanceUID, image.StudyDate = accession, person, uid, date
    return images


@pytest.fixture(scope="module")
def pacs() -> Iterator[orthanc.Orthanc]:
    """A PACS with two studies of one person, A-17 and A-18, and A-170 of another, a year later."""
    with orthanc.running() as server:
        studies = study("A-17", "P1", "1.2.1"), study("A-18", "P1", "1.2.2"), study("A-170", "P2", "1.2.3", "20210101")
        for image in (image for images in studies for image in images):
            server.store(image)
        yield server


Make = Callable[..., DICOMweb | DIMSE]


@pytest.fixture(params=["dicomweb", "get", "move"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[orthanc.Orthanc], Make]:
    """Makes sources of each kind at a PACS, with their cache below `tmp_path`."""
    secret = tmp_path / "secret"
    secret.write_text(orthanc.PASSWORD)
    secret.chmod(0o600)
    common = {"cache": "cache", "root": str(tmp_path)}

    def of(pacs: orthanc.Orthanc) -> Make:
        if request.param == "dicomweb":
            return partial(DICOMweb, pacs.url, user=orthanc.USER, secret_file="secret", **common)
        move = Move(pacs.receiver, "127.0.0.1") if request.param == "move" else None
        return partial(DIMSE, "127.0.0.1", pacs.dicom, orthanc.AET, move=move, tls=False, **common)

    return of


@pytest.fixture
def source(at: Callable[[orthanc.Orthanc], Make], pacs: orthanc.Orthanc) -> Make:
    """Makes sources of each kind at the PACS."""
    return at(pacs)


def test_the_studies_of_a_pacs_are_listed_by_person_and_accession(source):
    assert source().accessions().to_numpy().tolist() == [["P1", "A-17"], ["P1", "A-18"], ["P2", "A-170"]]
    assert source(filters={"StudyDate": "20200101-20201231"}).accessions()["accession"].tolist() == ["A-17", "A-18"]


def test_a_study_is_fetched_as_it_is_stored_and_read_like_any_other(source):
    folder = source().open("A-17")
    volume = read_series(folder)
    assert np.array_equal(np.sort(volume.voxels, axis=None), np.sort(body(SLICES), axis=None))
    assert {pydicom.dcmread(file).AccessionNumber for file in folder.iterdir()} == {"A-17"}


def test_only_series_of_the_modality_are_fetched(source):
    assert len(list(source().open("A-17").iterdir())) == SLICES
    assert len(list(source(modality="SR").open("A-17").iterdir())) == 1


def test_a_study_is_fetched_once(source, monkeypatch):
    first = source().open("A-17")
    closed = source()
    monkeypatch.setattr(socket, "create_connection", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    assert closed.open("A-17") == first


@pytest.mark.parametrize("accession", ["A-1", "A-1*", "*", "A-1?", ""])
def test_an_accession_stands_for_itself_alone(source, accession):
    with pytest.raises((FileNotFoundError, ValueError), match="accession"):
        source().open(accession)


def test_a_study_that_does_not_arrive_in_full_is_not_kept(at, tmp_path):
    with orthanc.running(MaximumStorageCacheSize=0) as damaged:
        images = study("B-1", "P1", "1.2.4")
        for image in images:
            damaged.store(image)
        damaged.lose(images[2])
        with pytest.raises((ValueError, ConnectionError), match=r"did not arrive|does not answer|C-FIND"):
            at(damaged)().open("B-1")
    assert not list(tmp_path.glob("cache/*/files"))


def test_a_study_that_the_pacs_lists_in_part_is_fetched_in_full_or_not_at_all(at, tmp_path):
    with orthanc.running(LimitFindInstances=3) as limited:
        for image in study("B-2", "P1", "1.2.5"):
            limited.store(image)
        with suppress(ValueError, ConnectionError):
            at(limited)().open("B-2")
    assert len(list(tmp_path.glob("cache/*/files/*"))) in (0, SLICES)


def test_a_study_larger_than_the_cache_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="raise `cache_gb`"):
        source(cache_gb=1e-6).open("A-17")
    assert not list(tmp_path.glob("cache/*/files"))


def test_a_pacs_that_is_not_there_is_named(tmp_path):
    port = free_port()
    with pytest.raises(ConnectionError, match=str(port)):
        DIMSE("127.0.0.1", port, "PACS", tls=False, cache="cache", root=str(tmp_path)).open("A-17")
    with pytest.raises(ConnectionError, match=str(port)):
        DICOMweb(f"http://127.0.0.1:{port}/dicom-web", cache="cache", root=str(tmp_path)).open("A-17")


def test_a_pacs_that_does_not_know_us_is_said(pacs, tmp_path):
    with pytest.raises(ConnectionError, match="knows us by that name"):
        DIMSE("127.0.0.1", pacs.dicom, "OTHER", tls=False, cache="cache", root=str(tmp_path)).open("A-17")
    (tmp_path / "secret").write_text("wrong")
    (tmp_path / "secret").chmod(0o600)
    web = DICOMweb(pacs.url, cache="c", user=orthanc.USER, secret_file="secret", root=str(tmp_path))
    with pytest.raises(ConnectionError, match="401") as raised:
        web.open("A-17")
    assert "wrong" not in str(raised.value)


def test_scans_to_segment_come_from_the_pacs_and_their_masks_from_the_sites_folder(source, tmp_path):
    (tmp_path / "cohort.csv").write_text("person_id,accession\nP1,A-17\nP1,A-18\nP2,A-170\nP3,A-99\n")
    body_mask = (body(SLICES) > AIR).astype(np.uint8)
    for accession in ("A-17", "A-18", "A-170", "A-99"):
        nifti(tmp_path / "labels" / f"{accession}.nii.gz", body_mask)
    data = SegmentationImages(
        str(tmp_path),
        {"body": 1},
        False,
        structures=["body"],
        image=Volumes([SPACING[2], SPACING[1], SPACING[0]], orientation="SPL"),
        intensity=Range(-1000, 1000),
        patches=Patching([4, 4, 4]),
        sources={"images": source()},
    )
    data.setup()
    assert data.skipped == {Reason.NO_IMAGE.value: 1}
    batches = list(data.test_dataloader())
    assert len(batches) == 2  # the first scan of each of two persons
    assert int(batches[0]["label"].sum()) == int(body_mask.sum())
    assert float(batches[0]["image"].min()) == -1.0
