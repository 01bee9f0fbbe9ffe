"""Writes a SYNTHETIC scan as a DICOM CT series and a DICOM segmentation.

Unique identifiers derive from the seed and no element holds a date of today: the same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gdcm
import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, generate_uid

from datamodules.phantom.sites import Person, SiteProfile

SYNTHETIC = "SYNTHETIC PHANTOM"
_INTERCEPT = -1024
_NO_DATE, _NO_TIME = "19000101", "000000"  # SEG demands a date; none is true of a drawing

# Category, type and place of each segment, as SNOMED CT codes; in the order of `scanner.SEGMENTS`.
Codes = Mapping[str, tuple[Any, Any, Any]]
CODES: Codes = {
    "skeletal_muscle": (codes.SCT.Tissue, codes.SCT.SkeletalMuscle, None),
    "subcutaneous_fat": (codes.SCT.Tissue, codes.SCT.AdiposeTissue, codes.SCT.SubcutaneousTissue),
    "visceral_fat": (codes.SCT.Tissue, codes.SCT.AdiposeTissue, codes.SCT.AbdominalCavityStructure),
    "vertebra_L3": (codes.SCT.AnatomicalStructure, codes.SCT.L3Vertebra, None),
}


class Slices(Protocol):
    """What is written of a scan: slices from head to feet, (slice, row, column)."""

    @property
    def hu(self) -> NDArray[np.int16]:
        """HU as stored."""

    @property
    def heights(self) -> list[float]:
        """Of the slices, mm above the middle of L3."""

    @property
    def spacing(self) -> float:
        """Of the pixels, mm."""


def level_mm(accession_id: str) -> float:
    """Where the middle of L3 lies along the body, z of the patient's coordinates, mm: another place in each scan."""
    return -400.0 - 10 * (int(hashlib.sha256(accession_id.encode()).hexdigest(), 16) % 40)


def uid(*parts: object) -> UID:
    """A unique identifier that is a function of `parts`."""
    return generate_uid(entropy_srcs=["flip phantom", *map(str, parts)])


def write_series(
    folder: Path,
    scan: Slices,
    person: Person,
    profile: SiteProfile,
    names: tuple[str, str, int],
    *,
    prone: bool = False,
) -> list[Dataset]:
    """Write a file per slice, from head to feet, and return what was written, uncompressed.

    Args:
        folder: is created.
        scan: what to write.
        person: for the patient's module.
        profile: for the scanner's.
        names: person id, accession id and seed.
        prone: the scan's rows go to the front and its columns to the right, as of a patient who lies on the belly.
    """
    folder.mkdir(parents=True)
    written = []
    for number, (plane, height) in enumerate(zip(scan.hu, scan.heights, strict=True), start=1):
        dataset = _header(scan, person, profile, names)
        dataset.SOPInstanceUID = uid(*names, "slice", number)
        dataset.InstanceNumber = number
        x = -(profile.pixels - 1) / 2 * scan.spacing
        z = level_mm(names[1]) + height
        if prone:
            x, dataset.PatientPosition, dataset.ImageOrientationPatient = -x, "HFP", [-1, 0, 0, 0, -1, 0]
        dataset.ImagePositionPatient = [round(x, 4), round(x, 4), round(z, 4)]
        dataset.SliceLocation = round(z, 4)
        pixels = (plane.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OW"
        written.append(dataset)
        _save(dataset, pixels, profile, folder / f"{number:04d}.dcm")
    return written


def _save(dataset: Dataset, pixels: bytes, profile: SiteProfile, path: Path) -> None:
    stored = Dataset(dataset)
    stored.file_meta = FileMetaDataset()
    stored.file_meta.MediaStorageSOPClassUID = CTImageStorage
    stored.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stored.file_meta.TransferSyntaxUID = UID(profile.transfer_syntax)
    if stored.file_meta.TransferSyntaxUID.is_compressed:
        stored.PixelData = encapsulate([_encode(pixels, profile.pixels, profile.transfer_syntax)])
        stored["PixelData"].VR = "OB"
    stored.save_as(path, enforce_file_format=True)


def _encode(pixels: bytes, size: int, syntax: str) -> bytes:
    """One frame of 12-bit pixels in a lossless transfer syntax, by GDCM."""
    writer = gdcm.ImageWriter()  # owns the image: it has to outlive it
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((size, size, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels)
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"GDCM could not encode a phantom slice as {UID(syntax).name}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    encoded: str = fragments.GetFragment(0).GetByteValue().GetBuffer()
    return encoded.encode("utf-8", "surrogateescape")


def _header(scan: Slices, person: Person, profile: SiteProfile, names: tuple[str, str, int]) -> Dataset:
    """All of a CT image but what differs by slice."""
    person_id, accession_id, _ = names
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    d.SOPClassUID = CTImageStorage
    d.StudyDate = d.StudyTime = d.SeriesDate = d.ContentDate = d.ContentTime = ""
    d.AccessionNumber, d.Modality, d.Manufacturer = accession_id, "CT", "FLIP phantom"
    d.ReferringPhysicianName = ""
    d.StudyDescription = d.SeriesDescription = SYNTHETIC
    d.ManufacturerModelName = profile.name
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Synthetic^Phantom", person_id, "", person.sex
    d.PatientAge, d.PatientSize, d.PatientWeight = f"{person.age:03d}Y", person.height_m, person.weight_kg
    d.PatientIdentityRemoved, d.DeidentificationMethod = "YES", "Synthetic: there never was a patient"
    d.ImageComments = f"{SYNTHETIC}, not a patient"
    if profile.contrast.phase:
        d.ContrastBolusAgent = "IODINE, SIMULATED"
        d.AcquisitionContrast = profile.contrast.phase
    d.SliceThickness, d.KVP, d.ConvolutionKernel = profile.thickness, profile.kvp, profile.kernel
    d.SpacingBetweenSlices = profile.thickness
    d.GantryDetectorTilt, d.PatientPosition = 0, "HFS"
    d.ReconstructionDiameter = round(scan.spacing * profile.pixels, 4)
    d.StudyInstanceUID, d.SeriesInstanceUID = uid(*names, "study"), uid(*names, "series")
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = uid(*names, "frame"), ""
    d.StudyID, d.SeriesNumber, d.AcquisitionNumber = "1", 1, 1
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.PixelSpacing = [round(scan.spacing, 6)] * 2
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows = d.Columns = profile.pixels
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.WindowCenter, d.WindowWidth = 40, 400
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = _INTERCEPT, 1, "HU"
    return d


def _segment(number: int, label: str, codes_of: Codes, names: tuple[str, str, int]) -> hd.seg.SegmentDescription:
    """What the SEG says of a segment."""
    category, kind, place = codes_of[label]
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        anatomic_regions=[place] if place else None,
        tracking_uid=uid(*names, "segment", number),
        tracking_id=label,
    )


def write_labels(
    path: Path,
    masks: NDArray[np.bool_],
    series: Sequence[Dataset],
    names: tuple[str, str, int],
    *,
    codes_of: Codes = CODES,
) -> None:
    """Write the masks (segment, slice, row, column; in the order of `codes_of`) as a DICOM SEG on the series' grid."""
    segmentation = hd.seg.Segmentation(
        source_images=series,
        pixel_array=np.moveaxis(masks, 0, -1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, label, codes_of, names) for number, label in enumerate(codes_of, start=1)
        ],
        series_instance_uid=uid(*names, "labels"),
        series_number=2,
        sop_instance_uid=uid(*names, "labels", 1),
        instance_number=1,
        manufacturer="FLIP phantom",
        manufacturer_model_name="datamodules.phantom",
        software_versions="1",
        device_serial_number="0",
        content_label="SYNTHETIC",
        content_description="Synthetic phantom: ground truth as drawn",
        series_description=SYNTHETIC,
    )
    for what in ("Content", "Series", "InstanceCreation"):
        setattr(segmentation, f"{what}Date", _NO_DATE)
        setattr(segmentation, f"{what}Time", _NO_TIME)
    for item in segmentation.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = _NO_DATE + _NO_TIME
    organization = uid(*names, "dimensions")
    for item in [*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence]:
        item.DimensionOrganizationUID = organization
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
