"""Headers of images, whole enough for an object that is made from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

# What an object takes over from its images and may be empty in it (DICOM PS3.3 C.7.1.1, C.7.2.1). Some images lack it.
TAKEN_OVER = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
NO_FRAME = "the images name no frame of reference (FrameOfReferenceUID), so nothing can be placed on them"


def whole(image: Dataset, affine: NDArray[np.float64]) -> Dataset:
    """The header of an image with all that a DICOM SEG or SR takes over, empty where it was not there.

    `affine`: 4 x 4 of the scan; a slice that does not say how thick it is has the distance of the slices. Raises
    ValueError for an image that names no frame of reference.
    """
    if not image.get("FrameOfReferenceUID"):
        raise ValueError(NO_FRAME)
    for keyword in TAKEN_OVER:
        if keyword not in image:
            setattr(image, keyword, "")
    if "NumberOfFrames" not in image and not image.get("SliceThickness"):
        image.SliceThickness = f"{np.linalg.norm(affine[:3, 2]):.6g}"
    return image
