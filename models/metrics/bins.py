"""Counts in bins of the predicted probability, which sum over sites, and what of them may leave one.

**The grid** is the same everywhere, so that no site has to be asked: even in the inverse hyperbolic sine of the logit.
About .002 of a logit wide at probability .5 and a fiftieth of the logit in the tails, it resolves a model that hardly
knows yet, a rare outcome and a confident model, where bins that are even in probability do not. Probabilities of
exactly 0 and 1 have bins of their own.

**Groups.** A site whose policy has a minimum cell puts neighboring bins together until each group holds that many rows
of a class, or none: one set of groups for both classes, of all such sets the one with the fewest pairs within groups.
A group's rows are sent twice, all at its lower end and all at its upper end; the ends tile the grid, so that none is a
person's own value. Groups are a function of the histogram and the decision's threshold alone, and of a subgroup's level
of the histograms that it stands beside: metrics of the same rows send the same groups, and nothing follows from their
difference. Decisions that leave too are counts on the two sides of the threshold, an edge of the grid: no group has few
rows on one of them, since subtraction would tell these.

**What is lost** is the order within a group. In the curve each group is a pair of points: a share s of its negatives
lies at its lower end and the rest at the upper one, of its positives the share s at the upper one. A negative and a
positive of that group are then in the right order with chance s (s^2 + 2 s (1 - s) / 2 = s). With s the share of the
pairs within groups that are in the right order, a sum over sites like the rest, a site's own area is kept exactly; rows
of different sites are compared as if s were theirs. Ties that count half would pull every area towards a half instead,
and the mean of each class apart away from it. Moving all negatives up and all positives down, and the reverse, bounds
what any order within groups could give (the least and the largest Mann-Whitney statistic of grouped data: Lehmann EL,
Nonparametrics, 1975, 1.4; of an area from few groups: Hanley JA, McNeil BJ, Radiology 1982;143:29-36).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torchmetrics import Metric

from models.metrics.groups import LEAST_CELLS, Levels, groups, short

STEP, WIDTH, LOWEST, HIGHEST = 0.02, 0.1, -87.0, 17.0  # logits beyond are 0 and 1 as float32


def _edges() -> Tensor:
    ends = (math.asinh(logit / WIDTH) / STEP for logit in (LOWEST, HIGHEST))
    places = torch.arange(math.ceil(next(ends)), math.floor(next(ends)) + 1, dtype=torch.float64) * STEP
    inner = (WIDTH * places.sinh()).sigmoid().float()
    return torch.cat([torch.zeros(1), inner, torch.ones(1)]).unique()


EDGES = _edges()
"""The lowest probability of each bin, float32 ascending: 0 first, 1 last."""
BINS = len(EDGES)


def bins(predicted: Tensor) -> Tensor:
    """Which bin probabilities lie in."""
    place = torch.bucketize(predicted.float().contiguous(), EDGES.to(predicted.device), right=True) - 1
    return place.clamp(0, BINS - 1)


def histogram(predicted: Tensor, label: Tensor) -> Tensor:
    """Counts int64 [2, curves, bins] of negatives and positives.

    `predicted` [n, curves] are probabilities, `label` [n, curves] is 0 or 1, and below 0 where it is not known.
    """
    curves = label.shape[1]
    place = (label.long() * curves + torch.arange(curves, device=label.device)) * BINS + bins(predicted)
    return torch.bincount(place[label >= 0], minlength=2 * curves * BINS).reshape(2, curves, BINS)


def edge(threshold: float) -> int:
    """Which edge of the grid is nearest to a probability."""
    return int((EDGES - threshold).abs().argmin())


def on_grid(threshold: float) -> float:
    """The edge of the grid that is nearest to a probability, at most .0022 away."""
    return float(EDGES[edge(threshold)])


def in_order(negatives: Tensor, positives: Tensor) -> Tensor:
    """Pairs [...] of a negative below a positive in counts [..., bins], those in one bin as half a pair."""
    below = negatives.double().cumsum(-1) - negatives.double() / 2
    return (below * positives.double()).sum(-1)


class Counted(Metric):
    """A metric of counts in bins that may leave a site once its thin bins are merged, and says where they may not.

    `tolerance` is how far merging may move the site's own value, which it knows both ways. `threshold` is where the
    decisions on the same rows are made, None where none are; `levels` are those that this one stands beside.
    """

    full_state_update = False
    higher_is_better: bool | None = True
    tolerance: float
    threshold: float | None = None
    levels: Levels | None = None

    def counts(self) -> Tensor:
        """Counts int64 [2, curves, bins] of the rows of this site, on the processor."""
        raise NotImplementedError

    def merged(self, cell: int) -> dict[str, Tensor]:
        """States in groups of `cell` rows of a class or none. Raises ValueError where there are no such groups."""
        raise NotImplementedError

    def slices(self, curve: int, cell: int) -> list[slice]:
        """The groups of a curve's bins. Raises ValueError where there are none."""
        parted = None if self.threshold is None else edge(self.threshold)
        if self.levels is not None:
            return self.levels.slices(curve, cell, parted)
        return groups(self.counts()[:, curve].numpy(), cell, parted=parted)

    def thin(self, cell: int) -> bool:
        """Whether a class has fewer than `cell` rows, but some: then nothing of these rows may leave a site."""
        return short(self.counts(), cell)

    def withheld(self, cell: int) -> str:
        """The rule by which a site with this minimum cell keeps the states, in words; "" where they may leave.

        With a minimum of 1 nothing is merged, and nothing kept.
        """
        return self._leaving(cell)[0]

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The states that may leave a site with this minimum cell. Raises ValueError where they are `withheld`."""
        rule, states = self._leaving(cell)
        if rule:
            raise ValueError(rule)
        return states

    def _leaving(self, cell: int) -> tuple[str, dict[str, Tensor]]:
        own = {name: getattr(self, name) for name in self._defaults}
        if cell <= 1:
            return "", own
        if short(self.counts(), LEAST_CELLS * cell):
            return f"a class has fewer than {LEAST_CELLS} minimum cells ({LEAST_CELLS * cell} examples)", {}
        try:
            states = self.merged(cell)
        except ValueError as rule:
            return str(rule), {}
        before = self._value(own)
        if not math.isnan(before) and not abs(self._value(states) - before) <= self.tolerance:
            return f"merged bins of {cell} examples move the site's own value by more than {self.tolerance}", {}
        return "", states

    def _value(self, states: dict[str, Tensor]) -> float:
        other = copy.copy(self)
        for name, state in states.items():
            setattr(other, name, state)
        return float(type(self).compute(other))


class Binned(Counted):
    """Counts of one curve or several, as the head of this file says.

    States: `ends` int64 [2, 2, curves, bins], rows at the lower and the upper end of their group, of negatives and
    positives; `within` float32 [2, curves], the pairs within groups that are in the right order, and all of these.
    Before a merge each bin is a group: both ends are the histogram and `within` is 0.

    Args:
        curves: how many; one of each class, or of each label.
    """

    tolerance = 0.02
    ends: Tensor
    within: Tensor

    def __init__(self, curves: int = 1) -> None:
        super().__init__()
        self.add_state("ends", torch.zeros(2, 2, curves, BINS, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(2, curves), dist_reduce_fx="sum")

    def add(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, curves] and labels [n, curves], below 0 where not known."""
        self.ends += histogram(predicted, label)

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n] and labels [n]."""
        self.add(predicted[:, None], label[:, None])

    def counts(self) -> Tensor:
        """As `Counted.counts`."""
        return self.ends[0].cpu()

    def merged(self, cell: int) -> dict[str, Tensor]:
        """As `Counted.merged`."""
        ends, within = torch.zeros_like(self.ends, device="cpu"), torch.zeros_like(self.within, device="cpu")
        for curve, counts in enumerate(self.counts().unbind(1)):
            for group in self.slices(curve, cell):
                inside = counts[:, group]
                low, high = self.places(inside, group)
                ends[0, :, curve, low] += inside.sum(1)
                ends[1, :, curve, high] += inside.sum(1)
                if low < high:
                    within[0, curve] += in_order(*inside)
                    within[1, curve] += inside.sum(1).prod()
        return {"ends": ends, "within": within}

    def places(self, inside: Tensor, group: slice) -> tuple[int, int]:
        """The bins of the lower and the upper end of a group, whose counts are `inside` [2, bins of it]."""
        return group.start, group.stop - 1

    def expected(self) -> tuple[Tensor, Tensor]:
        """Negatives and positives [curves, bins] where they are expected to lie."""
        (low, high), (right, pairs) = self.ends.cpu().double(), self.within.cpu().double()
        share = torch.where(pairs > 0, (right / pairs).clamp(0, 1), 0.5)[:, None]
        return share * low[0] + (1 - share) * high[0], (1 - share) * low[1] + share * high[1]

    def bounds(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """As `expected`, in the worst order within groups that there can be, and in the best."""
        low, high = self.ends.cpu().double()
        return (high[0], low[1]), (low[0], high[1])

    def known(self) -> Tensor:
        """Which curves [curves] there are: those with rows of both classes."""
        return self.ends[0].cpu().any(-1).all(0)
