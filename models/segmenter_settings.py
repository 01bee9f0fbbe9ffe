"""What a segmentation's settings may be, named by their keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence


def check_settings(
    structures: Sequence[str],
    roi: Sequence[int],
    *,
    overlap: float,
    tolerance_mm: float,
    lesions: Sequence[str],
    least_part: Mapping[str, float],
) -> None:
    """Raises ValueError for settings of `models.segmenter.Segmenter` that are out of range or of no structure."""
    for name in structures:
        if not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(f"model.structures: {name!r} must be letters, digits and _ alone, as left_kidney")
    for key, names in (("lesions", lesions), ("least_part", least_part)):
        if other := [each for each in names if each not in structures]:
            raise ValueError(f"model.{key}: {other[0]} is none of model.structures, {', '.join(structures)}")
    for name, least in least_part.items():
        if not 0 <= least < math.inf:
            raise ValueError(f"model.least_part.{name}={least}: takes mL (2D: cm2), 0 or more, as 5.0")
    if len(roi) not in (2, 3) or min(roi) < 1:
        raise ValueError(f"model.roi={[*roi]}: takes two or three sizes in voxels, as dataset.patches.size")
    if not 0 <= overlap < 1 or tolerance_mm < 0:
        raise ValueError("model: overlap is from 0 to below 1, and tolerance_mm not below 0")
