"""What a network found of a structure in parts that are too small to be it: taken away before masks are used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_parts
from torch import Tensor

ROUNDING = 1 - 1e-5  # of a voxel's size in single precision


def without_small_parts(
    classes: Tensor, structures: Sequence[str], least_part: Mapping[str, float], spacing_mm: Sequence[float]
) -> Tensor:
    """Class map int16 [*P] on the CPU, of which small parts are made background, in place.

    A part is what hangs together of one class, over corners too. A voxel that is found far from everything would
    make the Dice of a scan that lacks the structure 0, and its volume more than none.

    Args:
        classes: 0 background, then the structures in order.
        structures: their names.
        least_part: by name the size of the smallest part that is kept, mL, in two dimensions cm2; others keep all.
        spacing_mm: of the map, by axis, mm.
    """
    if not least_part:
        return classes
    unit = math.prod(spacing_mm) / 10 ** len(spacing_mm)
    boxes = find_objects(classes.numpy(), len(structures))
    for index, name in enumerate(structures):
        if boxes[index] is None or not least_part.get(name):
            continue
        inside = classes.numpy()[boxes[index]]
        parts, number = label_parts(inside == index + 1, np.ones([3] * inside.ndim))
        small = np.bincount(parts.ravel(), minlength=number + 1) * unit < least_part[name] * ROUNDING
        small[0] = False
        inside[small[parts]] = 0
    return classes
