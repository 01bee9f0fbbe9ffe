"""What parts the scans that lie in one series: acquisition, time, phase and contrast of an image."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from datamodules.dicom.values import Values, number


@dataclass(frozen=True)
class Acquisition:
    """Of one image: numbers are None and texts empty where they are absent.

    `times`: of acquisition, with its date where the file has it, and of content. `study`: StudyInstanceUID.
    """

    acquisition_number: float | None
    temporal_position: float | None
    times: tuple[str, str]
    contrast: str
    instance_number: float | None
    study: str

    @classmethod
    def of(cls, data: Dataset | Values) -> Acquisition:
        """From a header; a number that is none counts as absent, since an image can be read without it."""
        return cls(
            _number(data, "AcquisitionNumber"),
            _number(data, "TemporalPositionIdentifier"),
            (_text(data, "AcquisitionDateTime") or _moment(data), _text(data, "ContentTime")),
            _text(data, "ContrastBolusAgent").lower(),
            _number(data, "InstanceNumber"),
            _text(data, "StudyInstanceUID"),
        )


def _number(data: Dataset | Values, name: str) -> float | None:
    try:
        return number(data, name)
    except (ValueError, TypeError, OverflowError):
        return None


def _moment(data: Dataset | Values) -> str:
    """Date and time of acquisition, written as AcquisitionDateTime is; empty without a time."""
    time = _text(data, "AcquisitionTime")
    return _text(data, "AcquisitionDate") + time if time else ""


def _text(data: Dataset | Values, name: str) -> str:
    return str(data.get(name) or "").strip()
