"""Tiny CT studies as true DICOM files, for the tests of the readers.

`slices_of` makes the images of one series in memory, so that a test may spoil what it is about; `save` writes them.
"""

from collections.abc import Sequence
from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from datamodules.dicom import Unreadable, read_series

AIR = -1000
ORIGIN = (-20.0, -30.0, 100.0)
SPACING = (3.0, 0.8, 0.7)  # slice, row, column, mm


def body(slices: int = 4, rows: int = 10, columns: int = 8) -> NDArray[np.int16]:
    """HU (slice, row, column) of a body in air, no two slices and no two quadrants alike."""
    hu = np.full((slices, rows, columns), AIR, np.int16)
    inside = np.arange((rows - 4) * (columns - 3)).reshape(rows - 4, columns - 3)
    for index in range(slices):
        hu[index, 1 : rows - 3, 2 : columns - 1] = -60 + inside * 2 + 7 * index
    return hu


def slices_of(
    hu: NDArray[np.int16],
    *,
    transpose: bool = False,
    flip_rows: bool = False,
    flip_columns: bool = False,
    series: str | None = None,
    step: Sequence[float] = (0.0, 0.0, SPACING[0]),
    slope: float = 1,
    intercept: float = -1024,
) -> list[FileDataset]:
    """One CT image a slice of `hu`, from feet to head, stored unsigned; the same patient however it is turned."""
    right, back = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    rows, columns = hu.shape[1:]
    origin = np.array(ORIGIN)
    if flip_columns:
        hu, origin, right = hu[:, :, ::-1], origin + right * SPACING[2] * (columns - 1), -right
    if flip_rows:
        hu, origin, back = hu[:, ::-1], origin + back * SPACING[1] * (rows - 1), -back
    axes, spacing = (right, back), (SPACING[1], SPACING[2])
    if transpose:
        hu, axes, spacing = hu.swapaxes(1, 2), axes[::-1], spacing[::-1]
    series, frame_of_reference = series or generate_uid(), "1.2.826.0.1.3680043.8.498.1"
    made = []
    for index, plane in enumerate(hu):
        image = blank(series)
        image.FrameOfReferenceUID = frame_of_reference
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = [float(v) for v in origin + index * np.array(step)]
        image.ImageOrientationPatient = [float(v) for v in np.concatenate(axes)]
        image.PixelSpacing = [float(v) for v in spacing]
        image.SliceThickness = SPACING[0]
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        store(image, np.round((plane - intercept) / slope).astype(np.uint16))
        made.append(image)
    return made


def blank(series: str) -> FileDataset:
    """A CT image with identifiers and no picture yet."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.PatientName, image.PatientID, image.AccessionNumber = "Secret^Name", "secret-id", "secret-accession"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SeriesNumber = "1.2.3.4", series, 2
    image.PatientBirthDate = image.StudyDate = image.StudyTime = image.PatientSex = image.StudyID = ""
    image.ReferringPhysicianName = image.Manufacturer = ""
    image.Modality, image.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    return image


def store(image: Dataset, stored: NDArray[np.generic], *, bits: int = 16, photometric: str = "MONOCHROME2") -> None:
    """Put a picture of integers into an image, signed or not as the array is."""
    image.Rows, image.Columns = stored.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.BitsAllocated, image.BitsStored, image.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    image.PixelRepresentation = int(stored.dtype.kind == "i")
    image.PixelData = stored.tobytes()


def save(folder: Path, images: Sequence[FileDataset]) -> Path:
    """Write the images under names whose order has nothing to do with that of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        image.save_as(folder / f"{(index * 7 + 3) % 101:03d}-{index}.dcm", enforce_file_format=True)
    return folder


def transcode(folder: Path, syntax: int) -> None:
    """Compress all files of a folder in place with GDCM."""
    for path in folder.iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def outcomes_of_damage(path: Path, rng: np.random.Generator, *, times: int, first: int) -> set[str]:
    """How the only file of a folder is read after damage to up to five random bytes from `first` on, so many times."""
    whole, outcomes = path.read_bytes(), set()
    for _ in range(times):
        damaged = bytearray(whole)
        for place in rng.integers(first, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_series(path.parent)
            outcomes.add("read")
        except Unreadable as refusal:
            outcomes.add(refusal.reason.name)
    return outcomes
