"""Heads of survival. Batches hold `time` float32 [n], above 0, and `event` float32 [n], 1 the event, 0 censored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from models.metrics.counts import BaselineHazard, FollowUp
from models.metrics.survival import CIndex, IntegratedBrier, WeightedCIndex
from models.panels import survival as follow_up

Batch = Mapping[str, Tensor]
Scored = Mapping[str, Mapping[str, Metric]]


def ascending(times: Sequence[float]) -> bool:
    """Whether times ascend from above 0."""
    return all(a < b for a, b in itertools.pairwise([0.0, *times]))


def cox_loss(risk: Tensor, time: Tensor, event: Tensor, ties: Literal["breslow", "efron"] = "efron") -> Tensor:
    """Negative logarithm of Cox's partial likelihood of a batch, by its rows; those at risk are rows of the batch.

    `risk` float [n] is the logarithm of the relative hazard. Divided by the rows, not the events: a mean over sites
    weighted by their rows is then the partial likelihood stratified by site. 0 with gradient where there is no event.
    Sources: Breslow N, Biometrics 1974;30:89-99; Efron B, J Am Stat Assoc 1977;72:557-565.
    """
    if not len(risk):
        return risk.sum()
    died = event > 0
    at_risk = time[None] >= time[died, None]
    together = (time[None] == time[died, None]) & died[None]
    relative = risk.expand(len(at_risk), -1).masked_fill(~at_risk, -torch.inf)
    shift = relative.detach().amax(1, keepdim=True) if len(at_risk) else risk.new_zeros(0, 1)
    hazard = (relative - shift).exp()  # [deaths, rows], by the largest of those at risk, so that none underflows
    total = hazard.sum(1)
    if ties == "efron":  # of d deaths at one time the k-th sees (k - 1) / d of them gone already
        earlier = together.cumsum(1)[torch.arange(int(died.sum()), device=risk.device), died.nonzero().squeeze(1)] - 1
        total = total - earlier / together.sum(1).clamp(min=1) * (together * hazard).sum(1)
    return (total.log() + shift.squeeze(1) - risk[died]).sum() / len(risk) + risk.sum() * 0


def breslow(risk: Tensor, time: Tensor, event: Tensor, times: Tensor) -> Tensor:
    """Cumulative baseline hazard [times] of rows [n], `risk` the logarithm of their relative hazard; of none NaN.

    Source: Breslow N, J R Stat Soc B 1972;34:216-217 (discussion of Cox).
    """
    if not len(risk):
        return torch.full_like(times, torch.nan)
    died, hazard = event > 0, risk.double().exp()
    at_risk = ((time[None] >= time[died, None]) * hazard).sum(1)
    return ((time[died] <= times[:, None]) / at_risk).sum(1).to(times)


class Cox(nn.Module):
    """Proportional hazards: the logarithm of the relative hazard, linear in the embedding; trained by `cox_loss`.

    The likelihood compares the rows of one batch: let `dataset.batch_size` hold all rows of a small site. It ranks
    patients; their survival in time, which the integrated Brier score needs, follows from the baseline hazard of the
    training rows of the site that scores it (`fit_baseline`), which stays there. What predicts survival at another
    site is the hazard over all sites' test rows, from sums (`BaselineHazard`), which the model's file holds.

    Args:
        width: size of the embedding that it gets.
        ties: how deaths at the same time are counted.
        times: where survival is scored and predicted, ascending, in the unit of the follow-up time; none: it is not.
    """

    monitor, higher_is_better = "c_index_weighted", True
    compares_examples = True

    def __init__(
        self, width: int, ties: Literal["breslow", "efron"] = "efron", times: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if times and not ascending(times):
            raise ValueError("model.head.times: must be ascending numbers above 0, such as [90, 180, 365], or null")
        self.linear, self.ties = nn.Linear(width, 1, bias=False), ties
        self.wanted_sizes = {"target.events": 1}
        nn.init.zeros_(self.linear.weight)  # all hazards alike
        self.times = [float(each) for each in times or ()]
        self.fits_baseline = bool(self.times)
        self.predicts_with, self.agreed = [f"baseline_hazard_{time:g}".replace(".", "_") for time in self.times], None
        self.register_buffer("edges", torch.tensor(self.times), persistent=False)
        self.register_buffer("baseline", torch.full((len(self.times),), torch.nan), persistent=False)

    def fit_baseline(self, rows: tuple[Tensor, ...]) -> None:
        """Take the baseline hazard of rows as `scored` gives them; of none, it is not known and nothing is scored."""
        self.baseline = breslow(*rows[:3], self.edges)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logarithm of the relative hazard [n]."""
        risk: Tensor = self.linear(embedding).squeeze(1)
        return risk

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cox's loss; 0 of no row."""
        return cox_loss(output, batch["time"], batch["event"], self.ties)

    def scored(self, output: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics take: risk [n], time [n], event [n], and where `times` are declared survival [n, times]."""
        rows = output, batch["time"], batch["event"]
        return (*rows, (-self.baseline * output[:, None].exp()).exp()) if self.times else rows

    def predicted(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`relative_hazard` [n], and `survival_<time>` [n] where the model's file has the baseline hazard (`know`)."""
        relative = {"relative_hazard": output.exp()}
        if self.agreed is None:
            return relative
        curves = (-self.agreed.to(output) * output[:, None].exp()).exp().T
        return relative | {f"survival_{time:g}": each for time, each in zip(self.times, curves, strict=True)}

    def know(self, scores: Mapping[str, float]) -> None:
        """Take the cumulative baseline hazard over all sites' test rows by the names of `predicts_with`."""
        found = [scores.get(name, torch.nan) for name in self.predicts_with]
        self.agreed = torch.tensor(found) if found and all(map(math.isfinite, found)) else None

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        ranks: dict[str, Metric] = {"c_index_weighted": WeightedCIndex(), "follow_up": FollowUp(self.times)}
        if not self.times:
            return ranks
        hazards = {name: BaselineHazard(self.times[:end]) for end, name in enumerate(self.predicts_with, start=1)}
        return {**ranks, "integrated_brier_weighted": IntegratedBrier(self.times), **hazards}

    def exact(self) -> dict[str, Metric]:
        """Metrics of a site's own rows."""
        return {"c_index": CIndex()}

    def panels(self, scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
        """As `models.panels.survival`."""
        return follow_up.panels(scored, names)


class DiscreteTime(nn.Module):
    """Hazard in each declared interval of time: a survival curve a patient, without proportional hazards.

    Source: Gensheimer MF, Narasimhan B, PeerJ 2019;7:e6257.

    Args:
        width: size of the embedding that it gets.
        times: ends of the intervals, ascending, in the unit of the follow-up time; the first begins at 0.
    """

    monitor, higher_is_better = "c_index_weighted", True

    def __init__(self, width: int, times: Sequence[float]) -> None:
        super().__init__()
        if not times or not ascending(times):
            raise ValueError("model.head.times: must be ascending numbers above 0, such as [90, 180, 365]")
        self.linear, self.times = nn.Linear(width, len(times)), [float(each) for each in times]
        self.wanted_sizes = {"target.events": 1}
        self.register_buffer("edges", torch.tensor([0.0, *self.times]), persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits of the hazards [n, intervals]."""
        logits: Tensor = self.linear(embedding)
        return logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Negative logarithm of the likelihood by rows; a censored row counts in intervals of which it saw half."""
        time, event = batch["time"][:, None], batch["event"][:, None] > 0
        starts, ends = self.edges[:-1], self.edges[1:]
        died = event & (time > starts) & (time <= ends)
        survived = torch.where(event, time > ends, time >= (starts + ends) / 2)
        losses = functional.binary_cross_entropy_with_logits(output, died.float(), reduction="none")
        return (losses * (died | survived)).sum() / max(len(output), 1)

    def scored(self, output: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics take: risk [n], time [n], event [n], survival [n, intervals] at their ends.

        The risk is less the mean of the survival curve.
        """
        survival = self.survival(output)
        return -survival.mean(1), batch["time"], batch["event"], survival

    def survival(self, output: Tensor) -> Tensor:
        """Survival [n, intervals] at their ends."""
        return functional.logsigmoid(-output).cumsum(1).exp()

    def predicted(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`survival_<time>` [n], by the ends of the intervals."""
        return {f"survival_{time:g}": each for time, each in zip(self.times, self.survival(output).T, strict=True)}

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        ranks: dict[str, Metric] = {"c_index_weighted": WeightedCIndex(), "follow_up": FollowUp()}
        return {**ranks, "integrated_brier_weighted": IntegratedBrier(self.times)}

    def exact(self) -> dict[str, Metric]:
        """Metrics of a site's own rows."""
        return {"c_index": CIndex()}

    def panels(self, scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
        """As `models.panels.survival`."""
        return follow_up.panels(scored, names)
