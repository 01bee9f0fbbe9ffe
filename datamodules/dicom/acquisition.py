"""What parts the scans that lie in one series: acquisition, time, phase and contrast of an image."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from datamodules.dicom.values import Values, number


@dataclass(frozen=True)
class Acquisition:
    """Of one image: numbers are None and texts empty where they are absent."""

    acquisition_number: float | None
    temporal_position: float | None
    acquisition_time: str
    contrast: str
    instance_number: float | None

    @classmethod
    def of(cls, data: Dataset | Values) -> Acquisition:
        """From a header; a number that is none counts as absent, since an image can be read without it."""
        return cls(
            _number(data, "AcquisitionNumber"),
            _number(data, "TemporalPositionIdentifier"),
            str(data.get("AcquisitionTime") or "").strip(),
            str(data.get("ContrastBolusAgent") or "").strip().lower(),
            _number(data, "InstanceNumber"),
        )


def _number(data: Dataset | Values, name: str) -> float | None:
    try:
        return number(data, name)
    except (ValueError, TypeError, OverflowError):
        return None
