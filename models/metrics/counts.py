"""Counts that the report's figures are made of: who was taken for what, and when events were seen.

Their states sum over sites and have no value of their own (NaN), so that none stands among a study's metrics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from models.metrics.bins import Counted
from models.metrics.groups import short

Counts = NDArray[np.int64]


class Tally(Metric):
    """Counts without a value. State: `counts`, int64 of the given shape."""

    full_state_update = False
    higher_is_better = None
    counts: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """None: NaN."""
        return torch.tensor(math.nan)

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The counts that may leave a site with this minimum cell."""
        raise NotImplementedError

    def thin(self, cell: int) -> bool:
        """Whether nothing may leave of rows that there are: zeros would read as none."""
        return bool(self.counts.any()) and not self.coarse(cell)["counts"].any()


class Confusion(Tally):
    """Rows by true class (rows) and most probable class (columns); the last column is "another class, not told".

    Under a minimum cell, cells of too few rows go to that column, and others with them, so that none follows from the
    sums of a row or a column: what is hidden of each is nothing, or holds the cell.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, classes + 1)
        self.classes = classes

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, classes] and classes [n]."""
        place = label.long() * (self.classes + 1) + predicted.argmax(1)
        self.counts += torch.bincount(place, minlength=self.counts.numel()).reshape(self.counts.shape)

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The counts that may leave a site with this minimum cell."""
        return {"counts": torch.from_numpy(told(self.counts[:, :-1].cpu().numpy(), cell)).to(self.counts)}


def told(counts: Counts, cell: int) -> Counts:
    """Counts [k, k] with what is not told in a last column: of each row and column nothing, or `cell` rows at least.

    A class with fewer rows than that in all is left out whole, and others with it until they hold as many together.
    """
    hidden, rows = (counts > 0) & (counts < cell), counts.sum(1)
    whole = (rows > 0) & (rows < cell)
    for other in np.argsort(rows, kind="stable"):
        if not 0 < rows[whole].sum() < cell:
            break
        whole[other] = True
    hidden[whole] = True
    if cell > 1:
        for _ in range(counts.size):
            kept = np.where(hidden | (counts == 0), np.iinfo(np.int64).max, counts)
            rows, columns = (np.where(hidden, counts, 0).sum(axis) for axis in (1, 0))
            short = [("row", at) for at in np.flatnonzero((rows > 0) & (rows < cell))]
            short += [("column", at) for at in np.flatnonzero((columns > 0) & (columns < cell))]
            line = next((each for each in short if _least(kept, *each) is not None), None)
            if line is None:
                break
            hidden[_least(kept, *line)] = True
    shown = np.where(hidden, 0, counts)
    rest = np.where(whole, 0, (counts - shown).sum(1))
    return np.concatenate([shown, np.where(rest >= cell, rest, 0)[:, None]], 1)


def _least(kept: Counts, way: str, at: int) -> tuple[int, int] | None:
    """Place of the smallest count that is still told in a row or column; None where there is none."""
    line = kept[at] if way == "row" else kept[:, at]
    other = int(line.argmin())
    if line[other] == np.iinfo(np.int64).max:
        return None
    return (at, other) if way == "row" else (other, at)


class LabelDecisions(Tally):
    """Of each label [labels, 4]: rows rightly no, wrongly yes, wrongly no and rightly yes at probability .5.

    Under a minimum cell a label with a thin count is left out, and with it another, so that sums over labels do not
    tell it.
    """

    def __init__(self, labels: int) -> None:
        super().__init__(labels, 4)

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, labels] and labels [n, labels], -1 where not known."""
        kind = 2 * (label > 0).long() + (predicted >= 0.5).long()
        for each in range(4):
            self.counts[:, each] += ((kind == each) & (label >= 0)).sum(0).to(self.counts)

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The counts that may leave a site with this minimum cell."""
        counts = self.counts.clone()
        hidden = ((counts > 0) & (counts < cell)).any(1)
        if int(hidden.sum()) == 1 and len(hidden) > 1:
            hidden[torch.where(hidden, torch.iinfo(torch.long).max, counts.min(1).values).argmin()] = True
        counts[hidden] = 0
        return {"counts": counts}


STEP, FIRST, LAST = 0.02, 1e-3, 1e6  # of the time bins: two in a hundred wide, from 86 seconds to 2,700 years in days
TIMES = FIRST * np.exp(np.arange(0, math.ceil(math.log(LAST / FIRST) / STEP) + 1) * STEP)
"""Upper ends of the time bins; what lies beyond is in the last. Those of a hazard's intervals come in between."""


class FollowUp(Counted):
    """When follow-up ended: counts int64 [2 (censored, event), 1, bins] over `ends`, in the study's unit of time.

    A Kaplan-Meier curve of these differs from the rows' by the width of a bin, 2 % of the time. Under a minimum cell
    bins are merged until each holds that many of either kind, or none, and stand at their group's last time. Beside a
    `BaselineHazard` they are merged to its intervals, since other borders would tell the few between, and from the
    first interval with few of a kind on to one: the hazard of that one and later ones stays at its site.

    Args:
        times: ends of the intervals of a hazard that leaves too, ascending; none: there is no hazard.
    """

    tolerance = math.inf
    higher_is_better = None
    seen: Tensor

    def __init__(self, times: Sequence[float] = ()) -> None:
        super().__init__()
        self.ends = np.union1d(TIMES, np.asarray(times, np.float64))
        self.until = [int(np.searchsorted(self.ends, time)) + 1 for time in times]  # how many bins end by each
        self.add_state("seen", torch.zeros(2, 1, len(self.ends), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, risk: Tensor, time: Tensor, event: Tensor, *_: Any) -> None:
        """Add rows: follow-up time [n], event [n] (1, or 0 censored)."""
        bins = len(self.ends)
        bin_ = torch.bucketize(time.double().cpu(), torch.from_numpy(self.ends)).clamp(max=bins - 1)
        place = (event > 0).long().cpu() * bins + bin_
        self.seen += torch.bincount(place, minlength=self.seen.numel()).reshape(self.seen.shape).to(self.seen)

    def counts(self) -> Tensor:
        """As `Counted.counts`."""
        return self.seen.cpu()

    def slices(self, curve: int, cell: int) -> list[slice]:
        """As `Counted.slices`."""
        if not self.until:
            return super().slices(curve, cell)
        borders = [0, *self.until, len(self.ends)]
        found = [slice(*each) for each in itertools.pairwise(borders)]
        few = [short(self.counts()[:, :, each], cell) for each in found]
        first = few.index(True) if True in few else len(found) - 1
        rest = slice(found[first].start, len(self.ends))
        if short(self.counts()[:, :, rest], cell):
            raise ValueError(f"fewer than {cell} of a kind are left after the last interval of the hazard")
        return [*found[:first], rest]

    def merged(self, cell: int) -> dict[str, Tensor]:
        """As `Counted.merged`."""
        seen = torch.zeros_like(self.seen, device="cpu")
        for group in self.slices(0, cell):
            held = self.counts()[:, 0, group]
            last = group.start + int(held.sum(0).nonzero().max()) if held.any() else group.start
            seen[:, 0, last] += held.sum(1)
        return {"seen": seen}

    def compute(self) -> Tensor:
        """None: NaN."""
        return torch.tensor(math.nan)


class BaselineHazard(Metric):
    """Cumulative baseline hazard of a Cox model at the last of some times, constant between each two.

    States of each interval: deaths and persons under observation, int64, and the sum over persons of relative hazard
    times time in it. So it needs no row of another site. Under a minimum cell all stay where an interval has fewer
    deaths, persons or persons last seen, but some. Source: Breslow N, Biometrics 1974;30:89-99 (its piecewise constant
    hazard).

    Args:
        times: ends of the intervals, ascending, in the unit of the follow-up time; the first begins at 0.
    """

    higher_is_better = None
    full_state_update = False
    deaths: Tensor
    persons: Tensor
    exposure: Tensor

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        self.ends = torch.tensor([float(each) for each in times], dtype=torch.float64)
        for name in ("deaths", "persons"):
            self.add_state(name, torch.zeros(len(self.ends), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("exposure", torch.zeros(len(self.ends), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, risk: Tensor, time: Tensor, event: Tensor, *_: Any) -> None:
        """Add rows: logarithm of the relative hazard [n], follow-up time [n], event [n] (1, or 0 censored)."""
        risk, time, died = risk.detach().cpu().double(), time.cpu().double()[:, None], event.cpu()[:, None] > 0
        starts = torch.cat([self.ends.new_zeros(1), self.ends[:-1]])
        within = (time.minimum(self.ends) - starts).clamp(min=0)
        for name, added in {
            "deaths": (died & (time > starts) & (time <= self.ends)).sum(0),
            "persons": (time > starts).sum(0),
            "exposure": (risk.exp()[:, None] * within).sum(0),
        }.items():
            setattr(self, name, getattr(self, name) + added.to(getattr(self, name)))

    def thin(self, cell: int) -> bool:
        """Whether some interval has deaths or persons, or persons who were last seen in it, but fewer than `cell`.

        The last are what is left of its persons without its deaths and the next one's persons: told by subtraction.
        """
        later = torch.cat([self.persons[1:], self.persons.new_zeros(1)])
        counts = (self.deaths, self.persons, self.persons - self.deaths - later)
        return any(bool(((each > 0) & (each < cell)).any()) for each in counts)

    def compute(self) -> Tensor:
        """The cumulative hazard; NaN where an interval has nobody."""
        widths = torch.diff(self.ends, prepend=self.ends.new_zeros(1))
        return (self.deaths.cpu() / self.exposure.cpu() * widths).sum()


FOR_FIGURES: tuple[type[Metric], ...] = (Tally, FollowUp, BaselineHazard)  # no metric to log, or to score a subgroup by
