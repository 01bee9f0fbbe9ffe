"""One evaluation at a site: what of its scores may leave it."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import pytorch_lightning as lightning
import torch
from torchmetrics.utilities import dim_zero_cat

from flip.contracts import (
    Coarsens,
    FederatedDataModule,
    FederatedModule,
    HasInterval,
    KnowsThin,
    ScaledForPooling,
    SummableMetric,
    Withholds,
)
from flip.messages import Withheld
from flip.messages.summary import Summary, SummaryKind
from flip.metrics import RESAMPLES, array, bounds, exact_of, metric_states, metrics_of, values_of
from flip.site.disclosure import withheld_metrics
from flip.site.needs_trainer import countable, needs_trainer
from flip.site.persons import PERSON, Persons
from flip.site.plain_loop import score_batches
from flip.site.trainer import Device

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule


@dataclass
class Scores:
    """A split's scores: values by metric, and states by `metric/state`, in their own types.

    `withheld` names the metrics of which nothing may leave by their own rule.
    """

    values: dict[str, float] = field(default_factory=dict)
    states: dict[str, np.ndarray] = field(default_factory=dict)
    withheld: dict[str, Withheld] = field(default_factory=dict)


class ScoreCallback(lightning.Callback):
    """Takes the metrics before the module itself computes and resets them."""

    def __init__(self, cell: int, rng: np.random.Generator | None) -> None:
        self.scores, self.cell, self.rng = Scores(), cell, rng
        self.persons: list[torch.Tensor] = []

    def _take(self, metrics: Mapping[str, SummableMetric]) -> None:
        for name, metric in metrics.items():
            if rule := own_rule(metric, self.cell):
                self.scores.withheld[name] = rule
                continue
            self.scores.values |= values_of(name, metric, intervals=self.rng is not None)
            states = metric.coarse(self.cell) if isinstance(metric, Coarsens) else metric_states(metric)
            self.scores.states |= {f"{name}/{state}": array(tensor) for state, tensor in states.items()}

    def batch_done(self, batch: object) -> None:
        """Keep whose rows the exact metrics have taken."""
        if isinstance(batch, Mapping) and PERSON in batch:
            self.persons.append(batch[PERSON].cpu())

    def epoch_done(self, module: FederatedModule, split: str) -> None:
        """Take the metrics that sum, and of the test split those that keep rows."""
        self._take(metrics_of(module, split))
        if split == "test":
            self._take_exact(module)

    def _take_exact(self, module: FederatedModule) -> None:
        person = torch.cat(self.persons).numpy() if self.persons else None
        for name, metric in exact_of(module).items():
            if not metric.update_called:
                continue
            self.scores.values[name] = float(metric.compute())
            if self.rng is not None:
                self.scores.values |= bounds(
                    name,
                    metric.interval() if isinstance(metric, HasInterval) else bootstrap(metric, self.rng, person),
                )

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """`epoch_done`, as Lightning calls it."""
        self.epoch_done(cast("TrainableModule", pl_module), "validate")

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        *where: object,
    ) -> None:
        """`batch_done`, as Lightning calls it."""
        self.batch_done(batch)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """`epoch_done`, as Lightning calls it."""
        self.epoch_done(cast("TrainableModule", pl_module), "test")


def own_rule(metric: SummableMetric, cell: int) -> Withheld | None:
    """By which rule a metric itself keeps its states, of which a count is to hold so many examples; None for none."""
    if isinstance(metric, KnowsThin) and metric.thin(cell):
        return Withheld.CELL
    return Withheld.CURVE if isinstance(metric, Withholds) and metric.withheld(cell) else None


def leaving(
    persons: Persons, module: FederatedModule, own: Scores, summed: Scores, *, cell: int
) -> tuple[dict[str, float], dict[str, Summary], dict[str, Withheld]]:
    """Of what `score` gives the values and sums that may leave, and by which rule the others stay; `cell`: persons."""
    withheld: dict[str, Withheld] = {}
    for scores in (own, summed):
        withheld |= withheld_metrics(persons, module, scores.states, own=scores.withheld, cell=cell)
    values = {
        name: value
        for name, value in own.values.items()
        if math.isfinite(value) and not {name, name.rpartition("/")[0]} & withheld.keys()
    }
    summaries = {
        name: Summary(SummaryKind.SUM, array.astype(np.float64), persons.number)
        for name, array in summed.states.items()
        if name.rpartition("/")[0] not in withheld
    }
    return values, summaries, withheld


def evaluate(
    module: "TrainableModule",
    loaders: "Loader",
    *,
    split: str,
    device: Device,
    cell: int = 1,
    rng: np.random.Generator | None = None,
) -> Scores:
    """Score a module on the `validate` or `test` split.

    `cell` is how many examples a bin of the states must hold at least; with `rng` the values have intervals.
    """
    callback = ScoreCallback(cell, rng)
    metrics = [*metrics_of(module, "test").values(), *exact_of(module).values()]
    for metric in metrics:
        metric.reset()
    settings = device.plain_settings() if countable(loaders) and not needs_trainer(module) else None
    if settings is not None:
        score_batches(module, loaders, split=split, precision=settings.precision, scoring=callback)
    else:
        trainer = device.trainer(callbacks=[callback])
        run = trainer.test if split == "test" else trainer.validate
        run(module, dataloaders=loaders, verbose=False)
    for metric in metrics:
        metric.reset()
    return callback.scores


def bootstrap(
    metric: SummableMetric, rng: np.random.Generator, person: np.ndarray | None = None
) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of a metric over resamples of its rows, of one person together.

    `person` is whose each row is; without it, and for a metric that keeps other rows, each row is a person's own. NaN
    with fewer than two persons, where more than a tenth of the resamples have no value (one class alone), or where both
    ends are the same (classes that do not overlap), which is no certainty. Source: Efron B, Tibshirani RJ, An
    Introduction to the Bootstrap, 1993; by cluster: Field CA, Welsh AH, J R Stat Soc B 2007;69:369-390.
    """
    rows = {state: dim_zero_cat(kept) for state, kept in metric_states(metric).items() if len(kept)}
    number = min((len(kept) for kept in rows.values()), default=0)
    whose = np.arange(number) if person is None or len(person) != number else person
    _, group, counts = np.unique(whose, return_inverse=True, return_counts=True)
    together = np.split(np.argsort(group, kind="stable"), counts.cumsum()[:-1])
    if len(counts) < 2:
        return math.nan, math.nan
    again, found = copy.deepcopy(metric), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(together), size=len(together))
        picked = torch.from_numpy(np.concatenate([together[each] for each in drawn]))
        again.reset()
        for state, kept in rows.items():
            setattr(again, state, [kept[picked]])
        again._update_count = 1
        found.append(float(again.compute()))
    known = [value for value in found if math.isfinite(value)]
    if len(known) < 0.9 * RESAMPLES:
        return math.nan, math.nan
    low, high = (float(each) for each in np.quantile(known, [0.025, 0.975]))
    same = math.isclose(low, high, rel_tol=1e-6)  # but for the rounding of single precision
    return (math.nan, math.nan) if same else (low, high)


def score(
    module: "TrainableModule",
    data: FederatedDataModule,
    loader: "Loader",
    *,
    split: str,
    device: Device,
    cell: int,
    seed: int,
) -> tuple[Scores, Scores]:
    """The scores whose values are the site's, with intervals of the test split, and those whose states are summed.

    Sums are over the test rows as scaled for the pooled cohort, where the data have such; `seed` is of the bootstrap,
    `cell` as in `evaluate`.
    """
    rng = np.random.default_rng(seed) if split == "test" else None
    own = evaluate(module, loader, split=split, device=device, cell=cell, rng=rng)
    if split == "test" and isinstance(data, ScaledForPooling):
        return own, evaluate(
            module, cast("Loader", data.pooled_test_dataloader()), split=split, device=device, cell=cell
        )
    return own, own
