"""One evaluation at a site: what of its scores may leave it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import pytorch_lightning as lightning
import torch

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
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.metrics import array, bounds, exact_of, metric_states, metrics_of, values_of, widened
from flip.site.bootstrap import bootstrap
from flip.site.clusters import RowsSeen, spread
from flip.site.disclosure import withheld_metrics
from flip.site.needs_trainer import countable, needs_trainer
from flip.site.persons import PERSON, Persons, loader
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
    spread: dict[str, np.ndarray] = field(default_factory=dict)  # by metric, as `flip.site.clusters` has it
    withheld: dict[str, Withheld] = field(default_factory=dict)


class ScoringCallback(lightning.Callback):
    """What looks on while batches are scored, by Lightning or by `score_batches`."""

    def batch_done(self, batch: object) -> None:
        """A batch was scored."""

    def epoch_done(self, module: FederatedModule, split: str) -> None:
        """All were; the module has not yet computed and reset its metrics."""

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


class ScoreCallback(ScoringCallback):
    """Takes the metrics before the module itself computes and resets them."""

    def __init__(self, cell: int, rng: np.random.Generator | None, seen: RowsSeen) -> None:
        self.scores, self.cell, self.rng, self.seen = Scores(), cell, rng, seen
        self.persons: list[torch.Tensor] = []

    def _take(self, metrics: Mapping[str, SummableMetric]) -> None:
        for name, metric in metrics.items():
            if rule := own_rule(metric, self.cell):
                self.scores.withheld[name] = rule
                continue
            self.scores.values |= self._values(name, metric)
            states = metric.coarse(self.cell) if isinstance(metric, Coarsens) else metric_states(metric)
            self.scores.states |= {f"{name}/{state}": array(tensor) for state, tensor in states.items()}

    def _values(self, name: str, metric: SummableMetric) -> dict[str, float]:
        """A metric's value with its interval, which takes each person's rows together where some have several."""
        values = values_of(name, metric, intervals=self.rng is not None)
        rows = self.seen.rows.get(name)
        if not (rows and self.persons):
            return values
        person = torch.cat(self.persons).numpy()
        found = spread(metric, rows, person)
        if found is None:
            return values
        self.scores.spread[name] = found
        return widened(values, metric, name, spread=found, persons=len(np.unique(person)))

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


def own_rule(metric: SummableMetric, cell: int) -> Withheld | None:
    """By which rule a metric itself keeps its states, of which a count is to hold so many examples; None for none."""
    if isinstance(metric, KnowsThin) and metric.thin(cell):
        return Withheld.CELL
    return Withheld.CURVE if isinstance(metric, Withholds) and metric.withheld(cell) else None


def leaving(
    persons: Persons, module: FederatedModule, own: Scores, again: Scores | None = None, *, split: str, cell: int
) -> tuple[dict[str, float], dict[Topic, dict[str, Summary]], dict[str, Withheld]]:
    """Of what `score` gives the values and sums that may leave, and by which rule the others stay; `cell`: persons.

    A metric that stays under one scaling of the rows stays under the other: they are the same persons.
    """
    withheld: dict[str, Withheld] = {}
    topics = {Topic.METRIC: own} | ({Topic.RESCALED: again} if again is not None else {})
    for scores in topics.values():
        withheld |= withheld_metrics(persons, module, scores.states, split=split, own=scores.withheld, cell=cell)
    values = {
        name: value
        for name, value in own.values.items()
        if math.isfinite(value) and not {name, name.rpartition("/")[0]} & withheld.keys()
    }
    summaries = {
        topic: {
            name: Summary(SummaryKind.SUM, array.astype(np.float64), persons.number)
            for name, array in scores.states.items()
            if name.rpartition("/")[0] not in withheld
        }
        for topic, scores in topics.items()
    }
    summaries[Topic.SPREAD] = {
        name: Summary(SummaryKind.SUM, array, persons.number)
        for name, array in own.spread.items()
        if name not in withheld
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
    repeats: bool = False,
) -> Scores:
    """Score a module on the `validate` or `test` split.

    `cell` is how many examples a bin of the states must hold at least; with `rng` the values have intervals, and where
    a person `repeats`, these are of persons and not of rows.
    """
    seen = RowsSeen(dict(module.metrics.items()) if repeats and rng is not None else {})
    callback = ScoreCallback(cell, rng, seen)
    metrics = [*metrics_of(module, "test").values(), *exact_of(module).values()]
    for metric in metrics:
        metric.reset()
    with seen:
        score_with(callback, module, loaders, split=split, device=device)
    for metric in metrics:
        metric.reset()
    return callback.scores


def score_with(
    callback: ScoringCallback, module: "TrainableModule", loaders: "Loader", *, split: str, device: Device
) -> None:
    """Call a module's step on every batch of a split while the callback looks on."""
    settings = device.plain_settings() if countable(loaders) and not needs_trainer(module) else None
    if settings is not None:
        score_batches(module, loaders, split=split, precision=settings.precision, scoring=callback)
        return
    trainer = device.trainer(callbacks=[callback])
    run = trainer.test if split == "test" else trainer.validate
    run(module, dataloaders=loaders, verbose=False)


def scalings(data: FederatedDataModule, split: str, *, pooled: bool) -> "tuple[Loader, Loader | None]":
    """The rows of a split as the model was trained on, and of the test split the same rows scaled the other way.

    `pooled`: it was trained on the pooled cohort. A dataset that knows one scaling alone has no other, nor one that
    returns no loader of it.
    """
    rows = cast("Loader", loader(data, split))  # a split of somebody has one
    if not isinstance(data, ScaledForPooling):
        return rows, None
    if split != "test":
        return (cast("Loader", data.pooled_val_dataloader()) if pooled else rows), None
    if not (found := data.pooled_test_dataloader()):
        return rows, None
    together = cast("Loader", found)
    return (together, rows) if pooled else (rows, together)


def score(
    module: "TrainableModule",
    rows: "Loader",
    again: "Loader | None" = None,
    *,
    split: str,
    device: Device,
    cell: int,
    seed: int,
    repeats: bool = False,
) -> tuple[Scores, Scores | None]:
    """The scores of the rows, with intervals of the test split, and those of the same rows scaled `again`, if they are.

    `seed` is of the bootstrap, `cell` and `repeats` as in `evaluate`.
    """
    rng = np.random.default_rng(seed) if split == "test" else None
    own = evaluate(module, rows, split=split, device=device, cell=cell, rng=rng, repeats=repeats)
    if again is None:
        return own, None
    return own, evaluate(module, again, split=split, device=device, cell=cell)
