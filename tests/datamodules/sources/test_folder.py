"""Images in folders, by accession."""

import pytest

from datamodules.dicom.series import read_series
from datamodules.sources.folder import Folder
from tests.datamodules.ct_files import body, save, slices_of


def dicom(folder, accession, person, slices=2):
    images = slices_of(body(slices))
    for image in images:
        image.AccessionNumber, image.PatientID = accession, person
    save(folder, images)


def test_a_folder_or_a_file_is_named_after_its_accession(tmp_path):
    dicom(tmp_path / "ct" / "A-1", "x", "p")
    for name in ("A-2.nii.gz", "A-3.png", "notes.txt", ".A-4.png"):
        (tmp_path / "ct" / name).touch()
    source = Folder("ct", root=str(tmp_path))
    assert source.accessions().to_numpy().tolist() == [[None, "A-1"], [None, "A-2"], [None, "A-3"]]
    assert source.open("A-2") == tmp_path / "ct" / "A-2.nii.gz"
    assert read_series(source.open("A-1")).voxels.shape[0] == 2


def test_folders_of_persons_say_whose_an_image_is(tmp_path):
    for name in ("p1/A-1.png", "p1/A-2.png", "p2/A-3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = Folder(".", layout="person/accession", root=str(tmp_path)).accessions()
    assert found.to_numpy().tolist() == [["p1", "A-1"], ["p1", "A-2"], ["p2", "A-3"]]


def test_headers_say_it_where_names_do_not(tmp_path):
    dicom(tmp_path / "1.2.3" / "series1", "A-1", "p1")
    dicom(tmp_path / "1.2.3" / "series2", "A-1", "p1")
    dicom(tmp_path / "1.2.4", "A-2", "p2")
    (tmp_path / "DICOMDIR").write_bytes(b"no image")
    source = Folder(".", layout="header", root=str(tmp_path))
    assert source.accessions().to_numpy().tolist() == [["p1", "A-1"], ["p2", "A-2"]]
    assert source.open("A-1") == tmp_path / "1.2.3"


def test_accessions_that_share_a_folder_are_not_mixed(tmp_path):
    dicom(tmp_path / "a" / "one", "A-1", "p1")
    dicom(tmp_path / "a" / "two", "A-2", "p1")
    dicom(tmp_path / "a" / "three", "A-1", "p1")
    with pytest.raises(ValueError, match="give each a folder"):
        Folder("a", layout="header", root=str(tmp_path)).accessions()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda root: Folder("none", root=root).accessions(), FileNotFoundError, "no folder"),
        (lambda root: Folder(".", root=root).accessions(), ValueError, "holds no images"),
        (lambda root: Folder("twice", root=root).accessions(), ValueError, "accession A twice"),
        (lambda root: Folder("one", root=root).open("../one/A"), FileNotFoundError, "no images of accession"),
        (lambda root: Folder("one", layout="flat", root=root), ValueError, "`layout` is one of"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, make, error, message):
    root = tmp_path / "root"
    for name in ("twice/A.png", "twice/A.jpg", "one/A.png"):
        path = (tmp_path if name.startswith("x") else root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if "holds no" in message:
        root = tmp_path / "empty"
        root.mkdir()
    with pytest.raises(error, match=message):
        make(str(root))
