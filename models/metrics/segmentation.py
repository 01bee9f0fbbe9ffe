"""Scores of segmentations by case: Dice, surface Dice, Hausdorff distance and error of volume, as sums over cases."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_parts
from torch import Tensor

from models.metrics.intervals import Bounds, Mean, spread

NONE = math.nan
TOUCHES = 0.1  # share of a lesion's voxels


class CaseMean(Mean):
    """Mean over cases of one number of each; a case whose number is NaN has none, and is not counted.

    States are sums (cases, numbers, their squares), so that those of many sites add up and give mean and spread;
    torchmetrics' own DiceScore keeps one entry a case, which must not leave a site.
    """

    method = "normal, from the spread over cases"

    def __init__(self) -> None:
        super().__init__()
        self.lacking = 0

    def add(self, numbers: Tensor) -> None:
        """Add cases [n]."""
        super().add(numbers)
        self.lacking += int(numbers.isnan().sum())

    def reset(self) -> None:
        """Forget states and cases without a number."""
        super().reset()
        self.lacking = 0

    def thin(self, cell: int) -> bool:
        """Whether fewer than `cell` cases have no number, but some: the cases and all examples tell of them."""
        return 0 < self.lacking < cell

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors, within what a number can be; unknown for fewer than two cases."""
        low, high = self.plot_lower_bound, self.plot_upper_bound
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        return spread(int(self.count), float(self.total), float(self.squares), low, high)


class CaseOverlap(CaseMean):
    """Mean over cases of a share of overlap, from 0 to 1, as Dice."""

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0


class CaseDistance(CaseMean):
    """Mean over cases of a distance, mm."""

    unit = "mm"
    plot_lower_bound = 0.0


class CaseError(CaseMean):
    """Mean over cases of an error with its sign, of which 0 is best."""

    higher_is_better = None


class CaseVolumeError(CaseError):
    """Mean over cases of the predicted volume less the labeled one, mL."""

    unit = "mL"


class CaseAreaError(CaseError):
    """Mean over cases of the predicted area less the labeled one, cm2."""

    unit = "cm2"


class CaseTotal(CaseMean):
    """Sum over cases of a count of each."""

    plot_lower_bound = 0.0
    method = "normal, from the spread over cases, of their sum"

    def compute(self) -> Tensor:
        """The sum; NaN without a case."""
        return self.total if self.count else torch.tensor(NONE)

    def interval(self) -> Bounds:
        """Sum -/+ z standard errors, 0 or more; unknown for fewer than two cases."""
        low, high = super().interval()
        return low * int(self.count), high * int(self.count)


class CaseHits(CaseTotal):
    """Sum over cases of what was found in each, of which more is better."""

    higher_is_better = True


class CaseDice(CaseOverlap):
    """Mean over cases of the Dice coefficient of one class, from class maps.

    A case in which neither label nor prediction has the class is not counted. `compute` is NaN without a case.
    """

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add cases; both are integer class maps [B, H, W]."""
        ours, theirs = (predicted == self.label).flatten(1), (label == self.label).flatten(1)
        self.add(2 * (ours & theirs).sum(1) / (ours.sum(1) + theirs.sum(1)))


class CaseHD95(CaseDistance):
    """Mean over cases of the 95th percentile of the Hausdorff distance of one class, mm, by MONAI.

    A case where label or prediction lacks the class has no distance and is not counted: read it beside Dice. Source:
    Huttenlocher DP et al., IEEE Trans Pattern Anal Mach Intell 1993;15:850-863.
    """

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def update(self, predicted: Tensor, label: Tensor, pixel_mm: Tensor) -> None:
        """Add cases; integer class maps [B, H, W], and [B] the side of a pixel, mm."""
        ours, theirs = (each == self.label for each in (predicted, label))
        both = ours.flatten(1).any(1) & theirs.flatten(1).any(1)
        distance = torch.full((len(both),), NONE, device=both.device)
        if both.any():
            pixels = compute_hausdorff_distance(
                ours[both][:, None], theirs[both][:, None], include_background=True, percentile=95
            )
            distance[both] = (pixels[:, 0] * pixel_mm[both].to(pixels)).to(distance)
        self.add(distance)


@dataclass(frozen=True)
class Cut:
    """Of a class, its number from 0, and both masks within the box that holds them."""

    index: int
    predicted: Tensor
    label: Tensor


def cut(predicted: Tensor, label: Tensor, structures: int) -> list[Cut]:
    """Each of the classes 1, 2, ... that either map of one case has.

    Both are int16 class maps on the CPU, of the same shape, two- or three-dimensional. A whole scan is read once a map,
    not once a class.
    """
    boxes = [find_objects(each.numpy(), structures) for each in (predicted, label)]
    found = []
    for index in range(structures):
        both = [each[index] for each in boxes if each[index] is not None]
        if both:
            sides = zip(*both, strict=True)
            box = tuple(slice(min(each.start for each in axis), max(each.stop for each in axis)) for axis in sides)
            found.append(Cut(index, predicted[box] == index + 1, label[box] == index + 1))
    return found


def overlaps(cuts: Sequence[Cut], structures: int) -> Tensor:
    """Dice [structures] of the classes of one case; NaN where neither map has the class."""
    found = [NONE] * structures
    for each in cuts:
        both, ours, theirs = each.predicted & each.label, each.predicted, each.label
        found[each.index] = 2 * int(both.sum()) / int(ours.sum() + theirs.sum())
    return torch.tensor(found)


def surfaces(
    cuts: Sequence[Cut], structures: int, *, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the classes of one case, [structures] each: HD95, normalized surface Dice, and error of the volume.

    HD95, mm, is NaN where either map lacks the class. Surface Dice, the share of both surfaces that lies within
    `tolerance_mm` of the other, is 0 where one does and NaN where both do. The error is that of the prediction, with
    its sign: mL, or cm2 in two dimensions. Sources: Huttenlocher 1993, as above; Nikolov S et al., J Med Internet Res
    2021;23:e26151; both by MONAI.
    """
    hausdorff, surface, error = (torch.full((structures,), value) for value in (NONE, NONE, 0.0))
    unit = math.prod(spacing_mm) / 10 ** len(spacing_mm)
    for each in cuts:
        index, ours, theirs = each.index, each.predicted, each.label
        error[index] = (int(ours.sum()) - int(theirs.sum())) * unit
        surface[index] = 0.0
        if ours.any() and theirs.any():
            pair, of_case = (ours[None, None], theirs[None, None]), {"spacing": list(spacing_mm)}
            hausdorff[index] = compute_hausdorff_distance(*pair, include_background=True, percentile=95, **of_case)
            surface[index] = compute_surface_dice(*pair, [tolerance_mm], include_background=True, **of_case)
    return hausdorff, surface, error


def lesions(cuts: Sequence[Cut], structures: int, which: Collection[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Lesions of the classes of one case, [structures] each: labeled ones that were found, that were missed, and
    predicted ones that are false; of classes, from 0, that are not among `which`, 0.

    A lesion is a connected part of a mask, over corners too. A labeled one is found where at least a tenth of its
    voxels is predicted, a predicted one is false where less than a tenth of its voxels is labeled: so one large part
    can find several. Source: Commowick O et al., Sci Rep 2018;8:13650, the first condition, with its share.
    """
    hits, missed, false = (torch.zeros(structures) for _ in range(3))
    for each in cuts:
        if each.index in which:
            true = _touched(each.label, each.predicted)
            hits[each.index], missed[each.index] = int(true.sum()), int((~true).sum())
            false[each.index] = int((~_touched(each.predicted, each.label)).sum())
    return hits, missed, false


def _touched(mask: Tensor, other: Tensor) -> NDArray[np.bool_]:
    """Of each part of a mask, whether at least TOUCHES of its voxels lie in the other."""
    parts, number = label_parts(mask.numpy(), np.ones([3] * mask.ndim))
    sizes, inside = (np.bincount(each.ravel(), minlength=number + 1)[1:] for each in (parts, parts[other.numpy()]))
    return np.asarray(inside >= TOUCHES * sizes)
