"""What was measured at L3, as a DICOM structured report: an imaging measurement report, TID 1500 of PS3.16.

It refers to the image and to the segmentation that it was measured on. Quantities that DICOM has no code for are in a
coding scheme of their own (99FLIP).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from models.body_composition import RESEARCH_USE
from models.body_composition.dicom_seg import SEGMENTS
from models.body_composition.origin import MANUFACTURER, MODEL_NAME, Origin

_HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
_CM2 = Code("cm2", "UCUM", "cm2")
# By column of `biomarkers.csv`: segment, what it is, its unit, and of what statistic.
MEASURES: Mapping[str, tuple[str, Code, Code, Code | None]] = {
    "muscle_area_cm2": ("skeletal_muscle", codes.SCT.Area, _CM2, None),
    "muscle_index": (
        "skeletal_muscle",
        Code("SMI", "99FLIP", "Skeletal muscle index at L3"),
        Code("cm2/m2", "UCUM", "cm2/m2"),
        None,
    ),
    "muscle_density_hu": ("skeletal_muscle", codes.DCM.AttenuationCoefficient, _HU, codes.SCT.Mean),
    "subcutaneous_fat_cm2": ("subcutaneous_fat", codes.SCT.Area, _CM2, None),
    "visceral_fat_cm2": ("visceral_fat", codes.SCT.Area, _CM2, None),
    "intermuscular_fat_cm2": ("intermuscular_fat", codes.SCT.Area, _CM2, None),
}
_POSITION = Code("L3Z", "99FLIP", "Position of L3 along the body axis")
_CONFIDENCE = Code("L3P", "99FLIP", "Probability that L3 is within 10 mm")
_LEVEL_METHOD = {
    True: Code("L3READER", "99FLIP", "Level given by a reader"),
    False: Code("L3MODEL", "99FLIP", "Level found by a model"),
}


def structured_report(
    image: Dataset, segmentation: Dataset, row: Mapping[str, Any], origin: Origin
) -> sr.Comprehensive3DSR:
    """A DICOM SR of one study.

    Args:
        image: the header of the image that was measured.
        segmentation: the SEG of its tissues, of that image alone.
        row: the study's row of `biomarkers.csv`; a quantity that is NaN or absent is not in the report, nor is one of a
            tissue that the segmentation does not have.
        origin: the model that found the tissues.
    """
    report = sr.MeasurementReport(
        observation_context=_by_software(),
        procedure_reported=_CT,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[_level(image, row, origin), *_tissues(image, segmentation, row, origin)],
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(_ENGLISH),
    )
    for item in report:
        _name_segments_alone(item)
    return sr.Comprehensive3DSR(
        evidence=[image, segmentation],
        content=report,
        series_instance_uid=generate_uid(),
        series_number=9002,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_verified=False,
        series_description=RESEARCH_USE,
    )


_CT = Code("77477000", "SCT", "Computed tomography")
_ENGLISH = Code("en", "RFC5646", "English")


def _by_software() -> sr.ObservationContext:
    """Who has measured: no person, and no device either, but DICOM has no other word."""
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(), manufacturer_name=MANUFACTURER, name=MODEL_NAME
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)
    return sr.ObservationContext(observer_device_context=observer)


def _level(image: Dataset, row: Mapping[str, Any], origin: Origin) -> sr.MeasurementsAndQualitativeEvaluations:
    """Where L3 is, who says so, and how surely."""
    measured = [sr.Measurement(_POSITION, float(row["level_mm"]), codes.UCUM.Millimeter)]
    if not math.isnan(row["level_confidence"]):
        measured.append(sr.Measurement(_CONFIDENCE, float(row["level_confidence"]), codes.UCUM.NoUnits))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="L3"),
        finding_type=codes.SCT.L3Vertebra,
        finding_sites=[sr.FindingSite(codes.SCT.L3Vertebra)],
        method=_LEVEL_METHOD[row["level_by"] == "reader"],
        algorithm_id=_algorithm(origin, []),
        measurements=measured,
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(image)],
    )


def _tissues(
    image: Dataset, segmentation: Dataset, row: Mapping[str, Any], origin: Origin
) -> Iterator[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """One group of measurements for each segment."""
    kinds = {label: (kind, region) for _, label, kind, region in SEGMENTS}
    source = sr.SourceImageForSegmentation.from_source_image(image)
    for segment in segmentation.SegmentSequence:
        label, number = str(segment.SegmentLabel), int(segment.SegmentNumber)
        kind, region = kinds[label]
        site = sr.FindingSite(region or kind, topographical_modifier=codes.SCT.L3Vertebra)
        columns = [
            name for name, (of, *_) in MEASURES.items() if of == label and not math.isnan(row.get(name, math.nan))
        ]
        yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=label),
            referenced_segment=sr.ReferencedSegmentationFrame(
                segmentation.SOPClassUID, segmentation.SOPInstanceUID, _frame(segmentation, number), number, source
            ),
            finding_category=codes.SCT.Tissue,
            finding_type=kind,
            finding_sites=[site],
            algorithm_id=_algorithm(origin, columns),
            measurements=[
                sr.Measurement(
                    name=MEASURES[name][1], value=float(row[name]), unit=MEASURES[name][2], derivation=MEASURES[name][3]
                )
                for name in columns
            ],
        )


def _name_segments_alone(item: Any) -> None:
    """Leave a segment's number as the only reference to it, of which the frame is the only one.

    highdicom writes both, which PS3.3 10.3 does not permit (ReferencedSegmentNumber is 1C).
    """
    for child in item.get("ContentSequence", ()):
        for reference in child.get("ReferencedSOPSequence", ()):
            if "ReferencedSegmentNumber" in reference and "ReferencedFrameNumber" in reference:
                del reference.ReferencedFrameNumber
        _name_segments_alone(child)


def _frame(segmentation: Dataset, number: int) -> int:
    """The number of the frame of a segment, of which each has one."""
    frames = segmentation.PerFrameFunctionalGroupsSequence
    return 1 + [int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for frame in frames].index(number)


def _algorithm(origin: Origin, columns: Sequence[str]) -> sr.AlgorithmIdentification:
    """The model, with what it may be used for, and how far off it was in its own evaluation."""
    known = [
        f"{name}: mean absolute error {origin.errors[name]:.3g} in the model's own evaluation"
        for name in columns
        if name in origin.errors
    ]
    return sr.AlgorithmIdentification(name=origin.model, version=origin.version, parameters=[RESEARCH_USE, *known])
