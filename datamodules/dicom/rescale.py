"""From stored values to those of the modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from datamodules.dicom.values import Values, number

# A scanner's slope is 1, and one that makes the most of 8 or 16 bits is far from it. What lies between is a mistake of
# a few percent, which moves muscle by tens of HU and leaves air, at an intercept of -1024, where it is.
_NEAR, _ROUNDED = (0.8, 1.25), 1e-3


def is_doubtful(slope: float) -> bool:
    """Whether a slope of CT is near 1 and not 1."""
    return _NEAR[0] <= slope <= _NEAR[1] and abs(slope - 1) > _ROUNDED


@dataclass(frozen=True)
class Rescale:
    """From stored values to those of the modality: value = stored * slope + intercept.

    `padding`: lowest and highest stored value that mark padding, or None. `inverse`: for MONOCHROME1, the sum of a
    value and of the value of the same pixel stored inverted; NaN for MONOCHROME2. `hounsfield`: whether the values are
    of CT.
    """

    slope: float
    intercept: float
    padding: tuple[int, int] | None
    inverse: float
    hounsfield: bool

    @property
    def meant_by_padding(self) -> tuple[float, float] | None:
        """Lowest and highest value that padding stands for; None without any. MONOCHROME1 leaves open which it is."""
        if self.padding is None or not np.isnan(self.inverse):
            return (-np.inf, np.inf) if self.padding else None
        low, high = sorted(each * self.slope + self.intercept for each in self.padding)
        return low, high

    @classmethod
    def of(cls, data: Dataset | Values) -> Rescale:
        """As the header says; slope 1 and intercept 0 where a modality other than CT has none. Raises as pydicom."""
        slope, intercept = number(data, "RescaleSlope") or 1.0, number(data, "RescaleIntercept") or 0.0
        bits, signed = int(data.get("BitsStored")), int(data.get("PixelRepresentation")) == 1
        # The stored value v inverted is lowest + highest - v.
        ends = -1 if signed else 2**bits - 1
        inverted = str(data.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
        inverse = slope * ends + 2 * intercept if inverted else np.nan
        hounsfield = str(data.get("Modality") or "CT").strip().upper() == "CT"
        return cls(slope, intercept, _padding(data, signed), inverse, hounsfield)


def _padding(data: Dataset | Values, signed: bool) -> tuple[int, int] | None:
    """Lowest and highest stored value that mark padding; None without the tag.

    Files exist that write -2000 as the unsigned 63536: both mean the same bits.
    """
    value = data.get("PixelPaddingValue")
    if value is None:
        return None
    span = 2 ** int(data.get("BitsAllocated"))
    limit = data.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit is None else limit)]
    low, high = sorted((end + span // 2) % span - span // 2 if signed else end % span for end in ends)
    return low, high
