"""Tissues found in a CT series, as a DICOM segmentation that opens on that series.

DICOM PS3.3 A.51. The frames have the rows and columns of the images that they refer to, whatever orientation the scan
was read in.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from models.body_composition import RESEARCH_USE
from models.body_composition.origin import MANUFACTURER, SERIAL, Origin

# Class, label, type and place of each segment, the place where SNOMED CT names no such tissue.
Segment = tuple[int, str, hd.sr.CodedConcept, hd.sr.CodedConcept | None]
SEGMENTS: tuple[Segment, ...] = (
    (1, "skeletal_muscle", codes.SCT.SkeletalMuscle, None),
    (2, "subcutaneous_fat", codes.SCT.AdiposeTissue, codes.SCT.SubcutaneousTissue),
    (3, "visceral_fat", codes.SCT.AdiposeTissue, codes.SCT.AbdominalCavityStructure),
    (4, "intermuscular_fat", codes.SCT.AdiposeTissue, codes.SCT.SkeletalMuscle),
)


def segmentation(
    images: Sequence[Dataset],
    mask: NDArray[np.uint8],
    affine: NDArray[np.float64],
    origin: Origin,
    *,
    segments: Sequence[Segment] = SEGMENTS,
    category: hd.sr.CodedConcept = codes.SCT.Tissue,
    label: str = "BODY_COMPOSITION",
) -> hd.seg.Segmentation:
    """A DICOM SEG of the classes in `mask`; a slice without any is left out of it, and so is a class without a pixel.

    Args:
        images: the header of the image of each slice, in the order of the slices; of an enhanced multi-frame object
            that object, once for each of its slices.
        mask: uint8 (slice, row, column): 0 nothing, else the number of one of the segments.
        affine: 4 x 4, voxel (column, row, slice, 1) of `mask` to the patient's LPS coordinates, mm.
        origin: the model that found them.
        segments: what may be marked.
        category: what all of it is.
        label: of the content, in capitals and _.

    Raises ValueError for a mask with nothing in it, or one of another number of slices than there are images.
    """
    if len(images) != len(mask):
        raise ValueError(f"the mask has {len(mask)} slices, of which {len(images)} have an image")
    if not mask.any():
        raise ValueError("nothing is marked, so there is no segmentation to write")
    sources, planes, place = _placed(images, mask, affine)
    found = [each for each in segments if (mask == each[0]).any()]
    places = np.zeros(256, np.uint8)  # of a class among the segments; a plane of each would be many times a map
    places[[number for number, *_ in found]] = range(1, len(found) + 1)
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=places[planes],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(at, category, each, origin) for at, each in enumerate(found, start=1)],
        **_about(origin, label),
        **place,
    )


def _about(origin: Origin, label: str) -> dict[str, object]:
    """Who made an object, and what it is."""
    return {
        "series_instance_uid": generate_uid(),
        "series_number": 9001,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": origin.model,
        "software_versions": origin.version,
        "device_serial_number": SERIAL,
        "content_label": label,
        "content_description": RESEARCH_USE,
        "series_description": RESEARCH_USE,
    }


def _placed(
    images: Sequence[Dataset], mask: NDArray[np.uint8], affine: NDArray[np.float64]
) -> tuple[Sequence[Dataset], NDArray[np.uint8], dict[str, object]]:
    """The source images, the marked planes, and where these lie if not as the images do."""
    marked = np.flatnonzero(mask.any(axis=(1, 2)))
    kept, planes = [images[index] for index in marked], mask[marked]
    if "NumberOfFrames" in kept[0]:
        return kept[:1], planes, _geometry(affine, marked.tolist())
    turned = [_as_stored(plane, image, affine) for plane, image in zip(planes, kept, strict=True)]
    return kept, np.stack(turned), {}


def _described(number: int, category: hd.sr.CodedConcept, segment: Segment, origin: Origin) -> object:
    _, label, kind, region = segment
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=origin.model, family=codes.DCM.ArtificialIntelligence, version=origin.version
        ),
        anatomic_regions=[region] if region else None,
        tracking_uid=generate_uid(),
        tracking_id=label,
    )


def _as_stored(plane: NDArray[np.uint8], image: Dataset, affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A plane (row, column) of the scan with the rows and columns of its image."""
    axes = np.array(image.ImageOrientationPatient, float).reshape(2, 3)  # along a stored row, along a stored column
    column, row = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (0, 1))
    along = axes @ np.stack([column, row], axis=1)
    if abs(along[0, 0]) < abs(along[0, 1]):
        plane, along = plane.T, along[:, ::-1]
    turned = plane[:: 1 if along[1, 1] > 0 else -1, :: 1 if along[0, 0] > 0 else -1]
    return np.ascontiguousarray(turned)


def _geometry(affine: NDArray[np.float64], slices: Sequence[int]) -> dict[str, object]:
    """Where planes of the scan's own orientation lie."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = (affine[:3, :2] / lengths[:2]).T
    positions = [affine[:3, 3] + index * affine[:3, 2] for index in slices]
    return {
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=[float(lengths[1]), float(lengths[0])], slice_thickness=float(lengths[2])
        ),
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", axes.ravel().tolist()),
        "plane_positions": [hd.PlanePositionSequence("PATIENT", position.tolist()) for position in positions],
    }
