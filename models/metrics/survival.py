"""Metrics of survival. Pairs of patients are compared within a site alone: no time of a patient leaves it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from models.metrics.intervals import UNKNOWN, Bounds, Mean, around, spread


class Rows(Metric):
    """Keeps a site's rows of risk, time and event."""

    full_state_update = False

    def keep(self, risk: Tensor, time: Tensor, event: Tensor) -> None:
        """Add rows [n]."""
        self.risk.append(risk.detach())
        self.time.append(time)
        self.event.append(event)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Time, risk, event of all rows."""
        time, risk, event = (dim_zero_cat(each).cpu().double().numpy() for each in (self.time, self.risk, self.event))
        return time, risk, event


class CIndex(Rows):
    """Harrell's C-index of one site, by lifelines; NaN without a pair that can be compared.

    Source: Harrell FE et al., Stat Med 1996;15:361-387.
    """

    higher_is_better = True
    risk: list[Tensor]
    time: list[Tensor]
    event: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("risk", "time", "event"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, risk: Tensor, time: Tensor, event: Tensor, *_: Tensor) -> None:
        """Add rows: risk [n], follow-up time [n], event [n] (1, or 0 censored)."""
        self.keep(risk, time, event)

    def compute(self) -> Tensor:
        """The share of comparable pairs whose riskier one had the event first."""
        from lifelines.utils import concordance_index

        if not self.time:
            return torch.tensor(math.nan)
        time, risk, event = self.arrays()
        try:
            return torch.tensor(float(concordance_index(time, -risk, event)))
        except ZeroDivisionError:  # lifelines' word for no comparable pair
            return torch.tensor(math.nan)


class WeightedCIndex(Rows):
    """C-index over sites: each site's, weighted by its comparable pairs. At one site it is that site's own.

    States: pairs, concordant ones (ties half), sites with a pair, and over sites the sums of squares and products that
    the delta method needs. The number of pairs is that of lifelines.
    """

    higher_is_better = True
    method = "delta, over sites"
    STATES = ("concordant", "concordant_squared", "product", "pairs_squared")
    pairs: Tensor
    sites: Tensor
    concordant: Tensor
    concordant_squared: Tensor
    product: Tensor
    pairs_squared: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pairs", torch.tensor(0), dist_reduce_fx="sum")
        for name in ("sites", *self.STATES):  # sites: no count of persons, so not a whole number
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        self._clear()

    def _clear(self) -> None:
        self.risk, self.time, self.event = list[Tensor](), list[Tensor](), list[Tensor]()

    def reset(self) -> None:
        """Forget rows and states."""
        super().reset()
        self._clear()

    def update(self, risk: Tensor, time: Tensor, event: Tensor, *_: Tensor) -> None:
        """Add rows of one site: risk [n], follow-up time [n], event [n]."""
        from lifelines.utils.concordance import _concordance_summary_statistics

        self.keep(risk, time, event)
        when, risks, events = self.arrays()
        right, tied, pairs = _concordance_summary_statistics(when, -risks, events)
        concordant = float(right) + float(tied) / 2
        self.pairs = torch.as_tensor(int(pairs), device=self.device)
        numbers = [float(pairs > 0), concordant, concordant**2, concordant * float(pairs), float(pairs) ** 2]
        for name, number in zip(("sites", *self.STATES), numbers, strict=True):
            setattr(self, name, torch.tensor(number, device=self.device))

    def thin(self, cell: int) -> bool:
        """Whether fewer than `cell` rows, or events, made the pairs: one event in many rows is one person's rank."""
        numbers = (sum(map(len, self.event)), sum(int((each > 0).sum()) for each in self.event))
        return any(0 < number < cell for number in numbers)

    def withheld(self, cell: int) -> str:
        """The rule by which a site with this minimum cell keeps the states, in words; "" where they may leave."""
        return f"fewer than {cell} examples, or events among them" if self.thin(cell) else ""

    def compute(self) -> Tensor:
        """Concordant pairs of all."""
        return self.concordant / self.pairs

    def interval(self) -> Bounds:
        """Of a ratio of sums over sites (Cochran, Sampling Techniques, 1977, 6.4); unknown for one site."""
        if self.sites < 2:
            return UNKNOWN
        value, sites = float(self.compute()), float(self.sites)
        squares, product, pairs = (float(each) for each in (self.concordant_squared, self.product, self.pairs_squared))
        variance = max(squares - 2 * value * product + value**2 * pairs, 0.0) * sites / (sites - 1)
        return around(value, math.sqrt(variance) / float(self.pairs), 0.0, 1.0)


class IntegratedBrier(Mean):
    """Integrated Brier score over the declared times, censoring weighted by each site's own Kaplan-Meier curve.

    Over sites it is the mean over rows. Source: Graf E et al., Stat Med 1999;18:2529-2545; the curve is lifelines'.

    Args:
        times: where survival is predicted, ascending, in the unit of the follow-up time.
    """

    method = "normal, from the spread over examples, weights taken as known"

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        self.times = np.asarray(times, dtype=np.float64)
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def reset(self) -> None:
        """Forget rows and states."""
        super().reset()
        self._rows = []

    def update(self, risk: Tensor, time: Tensor, event: Tensor, survival: Tensor) -> None:
        """Add rows of one site: follow-up time [n], event [n], predicted survival [n, times]; NaN ones do not count."""
        known = ~survival.isnan().any(1)
        self._rows.append((time[known], event[known], survival[known].detach()))
        time, event, survival = (torch.cat(each) for each in zip(*self._rows, strict=True))
        for name in ("count", "total", "squares"):
            setattr(self, name, torch.zeros_like(getattr(self, name)))
        if len(time):
            self.add(torch.from_numpy(self._scores(*(each.cpu().double().numpy() for each in (time, event, survival)))))

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors, not below 0."""
        return spread(int(self.count), float(self.total), float(self.squares), 0.0)

    def _scores(self, time: np.ndarray, event: np.ndarray, survival: np.ndarray) -> np.ndarray:
        """The integral of each row's weighted squared error, by its range of times; NaN where the weight is none."""
        from lifelines import KaplanMeierFitter

        censoring = KaplanMeierFitter().fit(time, event_observed=1 - event)
        just_before = censoring.survival_function_at_times(np.nextafter(time, 0)).to_numpy()[:, None]
        at = censoring.survival_function_at_times(self.times).to_numpy()[None]
        died = (time[:, None] <= self.times) & (event[:, None] > 0)
        alive = time[:, None] > self.times
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(died, survival**2 / just_before, 0) + np.where(alive, (1 - survival) ** 2 / at, 0)
        if len(self.times) == 1:
            return np.asarray(error[:, 0])
        return np.asarray(np.trapezoid(error, self.times, axis=1) / np.ptp(self.times))
