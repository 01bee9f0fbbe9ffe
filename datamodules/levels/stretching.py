"""Which parts of whole scans are trained on."""

from __future__ import annotations


class Stretching:
    """Which parts of scans are trained on.

    Args:
        length_mm: longest part.
        least_mm: shortest part, at least as high as a vertebra and its neighbors.
        clear_mm: how near to the level a part may end.
        absent: share of the parts without the level in view, of a scan that has it.
        each: parts of a scan in an epoch.
        augment: strength of size, place, lean, mirroring, contrast and noise; 0 is none, 1 the usual.
    """

    def __init__(
        self,
        length_mm: float = 480.0,
        least_mm: float = 100.0,
        clear_mm: float = 6.0,
        *,
        absent: float = 0.3,
        each: int = 4,
        augment: float = 1.0,
    ) -> None:
        if not 0 < clear_mm < least_mm <= length_mm or not 0 <= absent < 1 or each < 1 or augment < 0:
            raise ValueError(
                "dataset.stretches: clear_mm above 0 and below least_mm, that at most length_mm; absent from 0 to "
                "below 1, each 1 or more, augment not below 0"
            )
        self.length_mm, self.least_mm, self.clear_mm = length_mm, least_mm, clear_mm
        self.absent, self.each, self.augment = absent, each, augment
