"""Headers of images, whole enough for an object that is made from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, validate_value

# What an object takes over from its images and may be empty in it (DICOM PS3.3 C.7.1.1, C.7.2.1). Some images lack it.
TAKEN_OVER = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
NAMED_BY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# What it takes over as well, and is whole without; besides all of the patient's group.
OPTIONAL = ("StudyDescription", "ReferringPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy")
PATIENT = 0x0010
SEXES = ("", "M", "F", "O")
NO_FRAME = "the images name no frame of reference (FrameOfReferenceUID), so nothing can be placed on them"
INVALID = "the images' {} is no valid value in DICOM, and no SEG or SR of the study can be made without it"


def whole(image: Dataset, affine: NDArray[np.float64]) -> Dataset:
    """The header of an image with all that a DICOM SEG or SR takes over, empty where it was not there, and in UTF-8.

    What it may leave out and is not valid (PS3.5 6.2) is left out.

    `affine`: 4 x 4 of the scan; a slice that does not say how thick it is has the distance of the slices. Raises
    ValueError for an image that names no frame of reference, or whose study or person an object could not name alike,
    as one with an accession number of 17 characters.
    """
    if not image.get("FrameOfReferenceUID"):
        raise ValueError(NO_FRAME)
    for keyword in TAKEN_OVER:
        if keyword not in image:
            setattr(image, keyword, "")
    _in_unicode(image)
    for keyword in (*TAKEN_OVER, *NAMED_BY):
        if not _valid(image[keyword]):
            raise ValueError(INVALID.format(keyword))
    optional = [*image.group_dataset(PATIENT), *(image[name] for name in OPTIONAL if name in image)]
    for element in optional:
        if not _valid(element):
            del image[element.tag]
    if "NumberOfFrames" not in image and not image.get("SliceThickness"):
        image.SliceThickness = f"{np.linalg.norm(affine[:3, 2]):.6g}"
    return image


def _in_unicode(image: Dataset) -> None:
    """Texts decoded by the header's character sets, and UTF-8 named in their place: highdicom takes few of them.

    Raises ValueError for a character set that DICOM does not have.
    """
    named = image.get("SpecificCharacterSet")
    sets: list[Any] = [named] if isinstance(named, str) else list(named or [])
    if any(each not in python_encoding for each in sets):
        raise ValueError(INVALID.format("SpecificCharacterSet"))
    if any(sets):
        image.decode()
        image.SpecificCharacterSet = "ISO_IR 192"
    elif "SpecificCharacterSet" in image:
        del image.SpecificCharacterSet


def _valid(element: DataElement) -> bool:
    """Whether a value is one of its kind; of a sequence nothing is said. Of what is taken over none has two values."""
    if element.VR == "SQ":
        return True
    if element.VM > 1:
        return element.keyword not in TAKEN_OVER and all(_valid_value(element.VR, each) for each in element.value)
    if element.keyword == "PatientSex":
        return element.value in SEXES
    return _valid_value(element.VR, element.value)


def _valid_value(kind: str, value: object) -> bool:
    """Whether a value is as PS3.5 6.2 has it, and a date or time one that there is."""
    if value is None or str(value) == "":
        return True
    try:
        validate_value(kind, str(value), config.RAISE)
        made = {"DA": DA, "TM": TM}.get(kind)
        return made is None or made(str(value)) is not None
    except ValueError:
        return False
