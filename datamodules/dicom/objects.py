"""What a DICOM object is: an image of the wanted modality, something else, or an image whose file was cut."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from datamodules.dicom.values import Values
from datamodules.dicom.volume import Reason, Unreadable

# Of the storage classes of slices, the modality, which an anonymizer may have emptied.
_MODALITY_OF = {
    CTImageStorage: "CT",
    EnhancedCTImageStorage: "CT",
    LegacyConvertedEnhancedCTImageStorage: "CT",
    MRImageStorage: "MR",
    EnhancedMRImageStorage: "MR",
    LegacyConvertedEnhancedMRImageStorage: "MR",
}

# Values of ImageType of what is no slice: localizers by the standard and by vendors' habit, and projections of many
# slices into one. An axial reformat (MPR) is a slice and is kept, behind the original images.
_NO_SLICE = frozenset(
    ("LOCALIZER", "SCOUT", "TOPOGRAM", "MIP", "MINIP", "PROJECTION IMAGE", "VRT", "SCREEN SAVE", "SCREEN_SAVE")
)

# Words of ImageType of CT that was computed from several energies (by DICOM PS3.3 C.8.15.3 and by vendors' habit) or
# from several phases. Some of it is in HU, but not in those of the scan: contrast is gone, or the energy is another.
_COMPUTED = re.compile(
    r"\b(IODINE|CALCIUM|URIC ACID|WATER|Z ?EFF\w*|EFFECTIVE Z|EFF(ECTIVE)? ATOMIC NUM\w*|E(LECTRON|LEC)? ?DENSITY|"
    r"VNC\w*|VUE|VIRTUAL \w+|MONO( ?E\w*)?|VMI|MAT (SPECIFIC|REMOVED|FRACTIONAL|MODIFIED|VALUE BASED)|MATERIAL \w+|"
    r"PERFUSION|CBF|CBV|MTT|TTP|TMAX|PBV|SUBTRACTION|SUBTRACTED)\b"
)


def is_map(image_type: Sequence[str]) -> bool:
    """Whether a CT of these values of ImageType maps a material, another energy than the scan's, or flow."""
    return any(_COMPUTED.search(re.sub(r"[_\W]+", " ", each)) for each in image_type[2:])


def is_image(data: Values, modality: str) -> bool:
    """Whether it is an image of the modality: no report or plan that says CT, and no screenshot.

    Screenshots, such as the dose report of most scanners, are secondary captures (of one frame or, by classes below
    that UID, of several) without a place in space. Raises `Unreadable`: CORRUPT for a header that ends before it says
    what it is, which nothing but the index of a medium (DICOMDIR) leaves open.
    """
    storage = str(data.get("SOPClassUID") or "")
    stated = str(data.get("Modality") or "").strip().upper()
    known = UID(storage).name != storage
    sized = int(data.get("Rows") or 0) > 0 and int(data.get("Columns") or 0) > 0
    cut = not sized and storage in _MODALITY_OF
    nameless = not stated and not known and "FileSetID" not in data
    if cut or nameless:
        raise Unreadable(Reason.CORRUPT)
    if not sized or (stated or _MODALITY_OF.get(storage)) != modality.upper():
        return False
    return not (storage.startswith(SecondaryCaptureImageStorage) and "ImagePositionPatient" not in data)


def is_slice(image_type: Sequence[str]) -> bool:
    """Whether an image of these values of ImageType is one slice of a scan."""
    return not _NO_SLICE.intersection(image_type)


def is_original(image_type: Sequence[str]) -> bool:
    """Whether it is as the scanner reconstructed it, and not made from other images."""
    return image_type[:1] != ("DERIVED",) and image_type[1:2] != ("SECONDARY",)
