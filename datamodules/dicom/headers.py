"""What is needed of each image to choose a series and order it, as plain checked values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword

from datamodules.dicom.acquisition import Acquisition
from datamodules.dicom.files import PixelValue, malformed_is, read_head
from datamodules.dicom.frames import PER_FRAME, SHARED, is_enhanced, place_of, single_images
from datamodules.dicom.objects import is_image, is_map, is_original, is_slice
from datamodules.dicom.rescale import Rescale, is_doubtful
from datamodules.dicom.stored import Stored
from datamodules.dicom.values import Values, number, several
from datamodules.dicom.volume import MAX_SIDE, Reason, Unreadable

Floats = NDArray[np.float64]

_TAGS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "FileSetID",
    "PatientID",
    "ContrastBolusAgent",
    "SliceThickness",
    "ReconstructionDiameter",
    "GantryDetectorTilt",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "TemporalPositionIdentifier",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    SHARED,
    PER_FRAME,
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
_TAG_NUMBERS = [int(tag_for_keyword(name) or 0) for name in _TAGS]

NO_NUMBER = 2**31  # SeriesNumber of a series without one: behind all others
_HOUNSFIELD = ("HU", "US")  # RescaleType: US is "unspecified"

# No scanner comes near; more would overflow float32.
_MAX_RESCALE = 1e6


@dataclass(frozen=True)
class Header:
    """One image, or one frame of an enhanced one. `problem` is why its series cannot be used, or None; the geometry is
    then valid.

    `position`: of the first pixel's center, LPS mm. `orientation`: (2, 3) unit vectors, the direction in which the
    column index and the row index grow. `spacing`: (between rows, between columns), mm. `thickness`: mm, or None.
    `patient`: PatientID, maybe empty. `intensities`: False for a color picture and for a
    map of another unit than the modality's.
    `tilt`: of the gantry as the file says, degrees. `field`: diameter of the reconstruction, mm, or None.
    `frame`: its index in the file. `pixels`: where they lie, or None where only parsing the whole file tells.
    """

    path: Path
    frame: int
    sop_instance: str
    series: str
    series_number: int
    frame_of_reference: str
    patient: str
    acquisition: Acquisition
    original: bool
    slice_like: bool
    intensities: bool
    rows: int
    columns: int
    problem: Reason | None
    position: Floats
    orientation: Floats
    spacing: tuple[float, float]
    thickness: float | None
    tilt: float
    field: float | None
    pixels: Stored | None
    rescale: Rescale

    @property
    def placeless(self) -> bool:
        """Whether it says neither where it lies nor how it is turned."""
        return not self.position.size and not self.orientation.any()

    @property
    def normal(self) -> Floats:
        """Unit vector from slice to slice: columns x rows."""
        return np.cross(self.orientation[0], self.orientation[1])


def read_headers(path: Path, modality: str) -> list[Header]:
    """The header of an image of `modality`, or those of its frames; none for another modality or an object without an
    image in space.

    Raises `Unreadable`: those of `read_head`, and NO_DICOM (a file of another kind).
    """
    found = read_head(path, _TAG_NUMBERS)
    if found is None:
        raise Unreadable(Reason.NO_DICOM)
    parsed, place = found
    with malformed_is(Reason.CORRUPT):
        data = Values(parsed)
        if not is_image(data, modality):
            return []
        if max(int(data.get("Rows")), int(data.get("Columns"))) > MAX_SIDE:
            raise Unreadable(Reason.TOO_LARGE)
        if PER_FRAME not in data or not is_enhanced(parsed):
            return [_header(path, data, place, modality)]
        return [
            _header(path, Values(image), place_of(index, parsed, place), modality, frame=index)
            for index, image in enumerate(single_images(parsed))
        ]


def _header(path: Path, data: Values, place: PixelValue | None, modality: str, *, frame: int = 0) -> Header:
    """What an image's header says; `place` is where its pixels are, or None. Raises as pydicom."""
    kinds = tuple(str(value).strip().upper() for value in several(data.get("ImageType")))
    gray, computed = int(data.get("SamplesPerPixel") or 1) == 1, modality.upper() == "CT" and is_map(kinds)
    series_number, thickness = number(data, "SeriesNumber"), number(data, "SliceThickness")
    position, orientation, spacing = (
        _vector(data, name, count)
        for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    pixels = Stored.of(path, data, place) if place is not None else None
    return Header(
        path=path,
        frame=frame,
        sop_instance=str(data.get("SOPInstanceUID") or ""),
        series=str(data.get("SeriesInstanceUID") or ""),
        series_number=int(series_number) if series_number is not None else NO_NUMBER,
        frame_of_reference=str(data.get("FrameOfReferenceUID") or ""),
        patient=str(data.get("PatientID") or "").strip(),
        acquisition=Acquisition.of(data),
        original=is_original(kinds),
        slice_like=is_slice(kinds),
        intensities=gray and not computed and _unit(data, modality) in _HOUNSFIELD,
        rows=int(data.get("Rows")),
        columns=int(data.get("Columns")),
        problem=_problem(data, modality, computed) or _geometry_problem(position, orientation, spacing),
        position=position,
        orientation=orientation.reshape(2, 3) if orientation.size == 6 else np.zeros((2, 3)),
        spacing=(float(spacing[0]), float(spacing[1])) if spacing.size == 2 else (0.0, 0.0),
        thickness=thickness if thickness is not None and thickness > 0 else None,
        tilt=number(data, "GantryDetectorTilt") or 0.0,
        field=number(data, "ReconstructionDiameter"),
        pixels=pixels,
        rescale=Rescale.of(data),
    )


def _problem(data: Values, modality: str, computed: bool) -> Reason | None:
    """Why the image cannot be read, of what the header says besides geometry; `computed`: see `objects.is_map`."""
    if int(data.get("NumberOfFrames") or 1) > 1 or SHARED in data:
        return Reason.MULTIFRAME
    if int(data.get("SamplesPerPixel") or 1) != 1:
        return Reason.NOT_GRAYSCALE
    if computed or data.get("ModalityLUTSequence"):
        return Reason.MATERIAL_MAP if computed else Reason.MODALITY_LUT
    slope, intercept = number(data, "RescaleSlope"), number(data, "RescaleIntercept")
    if modality.upper() == "CT" and (not slope or intercept is None or _unit(data, modality) not in _HOUNSFIELD):
        return Reason.NOT_HOUNSFIELD
    if modality.upper() == "CT" and is_doubtful(slope or 1.0):
        return Reason.DOUBTFUL_SCALE
    if abs(slope or 1) > _MAX_RESCALE or abs(intercept or 0) > _MAX_RESCALE:
        return Reason.NOT_HOUNSFIELD
    return None


def _unit(data: Values, modality: str) -> str:
    """Of the rescaled values. Spectral CT stores maps of iodine or of atomic numbers as CT too, and says so here."""
    return str(data.get("RescaleType") or "HU").strip().upper() if modality.upper() == "CT" else "HU"


def _geometry_problem(position: Floats, orientation: Floats, spacing: Floats) -> Reason | None:
    """Why an image cannot be placed in space."""
    if position.size != 3 or orientation.size != 6 or spacing.size != 2:
        return Reason.MISSING_GEOMETRY
    (a, b, c), (d, e, f) = orientation.reshape(2, 3).tolist()  # in plain numbers: of such few, numpy is slower
    apart = (abs(a * a + b * b + c * c - 1), abs(d * d + e * e + f * f - 1), abs(a * d + b * e + c * f))
    near, sized = all(each <= 1e-2 for each in apart), all(0.01 < each < 100 for each in spacing.tolist())
    if not (near and sized and all(map(math.isfinite, position.tolist()))):
        return Reason.INVALID_GEOMETRY
    return None


def _vector(data: Values, name: str, count: int) -> Floats:
    """A decimal string of `count` values; empty if it is absent or has another number of values."""
    values = [value for value in several(data.get(name)) if value not in (None, "")]
    return np.array([float(str(value)) for value in values] if len(values) == count else [], np.float64)
