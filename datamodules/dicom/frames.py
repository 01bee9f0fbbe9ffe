"""The frames of an enhanced multi-frame object (CT, MR, also converted ones), each as the header of a single image."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from datamodules.dicom.files import PixelValue, is_compressed
from datamodules.dicom.volume import MAX_FILES, Reason, Unreadable

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Of each functional group: the attribute that holds for a frame, and its name in a single image.
_GROUPS = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTAcquisitionDetailsSequence": {"GantryDetectorTilt": "GantryDetectorTilt"},
    "ContrastBolusUsageSequence": {"ContrastBolusAgentAdministered": "ContrastBolusAgent"},
    "FrameContentSequence": {
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
    },
}


def is_enhanced(data: Dataset) -> bool:
    """Whether an object says of each of its frames where it lies; others of many frames are films or captures."""
    return bool(data.get(PER_FRAME)) and len(data.get(PER_FRAME)) == int(data.get("NumberOfFrames") or 1)


def single_images(data: Dataset) -> Iterator[Dataset]:
    """The header of each frame as that of a single image; what the groups of the frame do not say, the shared ones do.

    Raises `Unreadable`: TOO_LARGE; and as pydicom.
    """
    frames = data.get(PER_FRAME)
    if len(frames) > MAX_FILES:
        raise Unreadable(Reason.TOO_LARGE)
    left_out = {int(tag_for_keyword(name) or 0) for name in (SHARED, PER_FRAME, "NumberOfFrames")}
    common = Dataset({element.tag: element for element in data.values() if int(element.tag) not in left_out})
    for item in (data.get(SHARED) or ())[:1]:
        _take(common, item)
    for index, item in enumerate(frames):
        image = Dataset(dict(common.items()))
        image.InstanceNumber = index + 1
        _take(image, item)
        yield image


def _take(image: Dataset, groups: Dataset) -> None:
    for group, names in _GROUPS.items():
        for item in (groups.get(group) or ())[:1]:
            for name, single in names.items():
                if name in item:
                    tag = tag_for_keyword(single) or 0
                    image[tag] = DataElement(tag, dictionary_VR(tag_for_keyword(name) or 0), item[name].value)


def place_of(index: int, data: Dataset, pixels: PixelValue | None) -> PixelValue | None:
    """Where the pixels of a frame lie in a file that is not compressed; None where only parsing it tells."""
    bits = int(data.get("BitsAllocated") or 0)
    size = int(data.Rows) * int(data.Columns) * bits // 8
    frames = int(data.get("NumberOfFrames") or 1)
    if pixels is None or is_compressed(pixels.syntax) or bits % 8 or pixels.length < size * frames:
        return None
    return PixelValue(pixels.offset + index * size, size, pixels.vr, pixels.syntax)
