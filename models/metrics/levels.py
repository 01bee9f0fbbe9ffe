"""How far a found level lies from the true one, in bins, so that the median and other quantiles sum over sites."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

BIN_MM, BINS = 0.5, 201  # up to 100 mm, and what lies beyond in the last bin


class BinnedErrorQuantile(Metric):
    """A quantile of the absolute error, mm: the upper end of the bin of BIN_MM that holds it; infinite beyond 100 mm.

    State: `counts` int64 [BINS]. Under a minimum cell neighboring bins are merged at the upper end of each group, which
    holds as many examples, so that a quantile is rather too large than too small.
    """

    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    unit = "mm"
    counts: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.add_state("counts", torch.zeros(BINS, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, error: Tensor) -> None:
        """Add absolute errors [n], mm; NaN ones do not count."""
        known = error[~error.isnan()].cpu()
        place = (known / BIN_MM).ceil().sub(1).clamp(0, BINS - 1).long()
        self.counts += torch.bincount(place, minlength=BINS).to(self.counts)

    def compute(self) -> Tensor:
        """The quantile; NaN of none."""
        total = int(self.counts.sum())
        if not total:
            return torch.tensor(math.nan)
        place = int((self.counts.cumsum(0) >= self.share * total).nonzero()[0])
        return torch.tensor(math.inf if place == BINS - 1 else (place + 1) * BIN_MM)

    def thin(self, cell: int) -> bool:
        """Whether there are examples, but fewer than `cell`."""
        return 0 < int(self.counts.sum()) < cell

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The counts that may leave a site with this minimum cell."""
        merged, carried, last = torch.zeros_like(self.counts), 0, -1
        for place, count in enumerate(self.counts.tolist()):
            carried += count
            if count and carried >= cell:
                merged[place], carried, last = carried, 0, place
        if carried and last >= 0:  # the thin rest, with the last group, at the upper end of both
            top = int(self.counts.nonzero().max())
            rest, merged[last] = merged[last] + carried, 0
            merged[top] = rest
        return {"counts": merged}
