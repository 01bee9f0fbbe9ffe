"""What the engine asks of a model, its metrics, the strategy that trains it and the outcomes made from it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flip.contracts.dataset import Arrays, FederatedDataModule

if TYPE_CHECKING:
    import torch
    from pytorch_lightning import LightningModule


class SummableMetric(Protocol):
    """A torchmetrics Metric whose states all reduce by a sum."""

    higher_is_better: bool | None
    plot_lower_bound: float | None  # torchmetrics' names for the range of a metric: no interval goes beyond
    plot_upper_bound: float | None
    _update_count: int
    _defaults: Mapping[str, object]
    _reductions: Mapping[str, object]

    @property
    def update_called(self) -> bool:
        """Whether any row has come to it."""

    def update(self, *values: "torch.Tensor") -> None:
        """Take a batch."""

    def compute(self) -> "torch.Tensor":
        """The value."""

    def reset(self) -> None:
        """Forget everything."""


@runtime_checkable
class Coarsens(Protocol):
    """A metric of bins, which hold no fewer than a minimum cell when they leave a site."""

    def coarse(self, cell: int) -> "Mapping[str, torch.Tensor]":
        """The states as they may leave."""


@runtime_checkable
class Withholds(Protocol):
    """A metric whose states do not leave a site where they would say too little or too much."""

    def withheld(self, cell: int) -> str:
        """The rule by which the states stay, where a count has to hold `cell` examples; "" where they may leave."""


@runtime_checkable
class KnowsThin(Protocol):
    """A metric that knows when its rows are too few for its exact partner to leave either."""

    def thin(self, cell: int) -> bool:
        """Whether nothing of the rows may leave, where a count has to hold `cell` examples."""


@runtime_checkable
class BoundedByRow(Protocol):
    """A metric whose states are plain sums over rows, to which a row adds so much at most: noise can hide it."""

    row_norm: float  # largest length (L2) of what one row adds to all states together, above 0


@runtime_checkable
class NamesMethod(Protocol):
    """A metric that says how its interval is made."""

    method: str


@runtime_checkable
class HasUnit(Protocol):
    """A metric whose value has a physical unit."""

    unit: str  # as the report shows it, such as mm


@runtime_checkable
class HasInterval(Protocol):
    """A metric that knows its 95 % interval."""

    def interval(self) -> tuple[float, float]:
        """Both ends; NaN where they are not known."""


class Metrics(Protocol):
    """A module's metrics by name: a ModuleDict."""

    def __getitem__(self, name: str) -> SummableMetric: ...

    def __iter__(self) -> Iterator[str]: ...

    def items(self) -> Iterable[tuple[str, SummableMetric]]:
        """Names and metrics."""

    def values(self) -> Iterable[SummableMetric]:
        """The metrics."""


class FederatedModule(Protocol):
    """A LightningModule whose metrics can be added over sites."""

    metrics: Metrics
    monitor: str
    higher_is_better: bool


@runtime_checkable
class WantsSizes(Protocol):
    """A module that is made for sizes which a dataset declares (`declared_sizes`): the check compares both."""

    def wanted_sizes(self) -> Mapping[str, int]:
        """Sizes by the dataset's names, as `target.classes`."""


@runtime_checkable
class HasSubgroups(Protocol):
    """A module that is scored by subgroup: metrics `GROUP/LEVEL/NAME`, and the levels by group."""

    subgroup_metrics: Metrics
    levels: Mapping[str, list[str]]


@runtime_checkable
class ScoresExactly(Protocol):
    """A module with metrics that keep a site's rows, which stay there."""

    exact: Metrics


@runtime_checkable
class Decides(Protocol):
    """A module with a decision threshold, which may be chosen from summed validation counts."""

    chooses_threshold: bool
    decided: Collection[str]  # the metrics that the threshold changes

    def choose_threshold(self) -> float | None:
        """The threshold by what `metrics` hold; None where they do not tell."""

    def decide_at(self, threshold: float | None) -> None:
        """Decide at this threshold from now on; None is the declared one."""


class DecidingModule(FederatedModule, Decides, Protocol):
    """A module that decides."""


@runtime_checkable
class ComparesExamples(Protocol):
    """A module whose loss compares the examples of a batch (Cox's likelihood), so that one moves others' gradients."""

    compares_examples: bool


@runtime_checkable
class FitsBaseline(Protocol):
    """A module that scores from a baseline of a site's own training rows (Breslow's hazard)."""

    fits_baseline: bool

    def fit_baseline(self, batches: Iterable[object]) -> None:
        """Take the site's training batches, or none."""


@runtime_checkable
class PredictsWith(Protocol):
    """A module whose predictions need numbers over all sites besides the weights (Cox's baseline hazard)."""

    predicts_with: Collection[str]  # pooled test metrics by these names; the model's file keeps them

    def know(self, scores: Mapping[str, float]) -> None:
        """Take those that are known."""


@runtime_checkable
class DrawsScores(Protocol):
    """A module that shows more of its test metrics in the report than their values."""

    def panels(
        self, scored: Mapping[str, Mapping[str, SummableMetric]], names: Sequence[str]
    ) -> list[dict[str, object]]:
        """Panels (`flip.report.panels`) as JSON can hold them, from the metrics of each place: the sites, and "pooled".

        A metric that is withheld is not there. `names` are those of the outcomes, in the declared order; maybe none.
        """


@runtime_checkable
class VisitsSome(Protocol):
    """A strategy that goes to so many sites a round, one after the other, rather than to a fraction of them."""

    visits: int | None  # None: every site


if TYPE_CHECKING:

    class TrainableModule(LightningModule, FederatedModule):
        """What the study's model is to the type checker: both Lightning's class and the engine's protocol."""


@runtime_checkable
class MeasuresScans(Protocol):
    """Outcomes that measure scans which nobody has labeled."""

    def predict(
        self,
        module: "TrainableModule",
        data: FederatedDataModule,
        folder: Path,
        *,
        companions: Mapping[str, "TrainableModule"],
        scores: Mapping[str, float],
        digest: str,
    ) -> None:
        """Write what is measured into `folder`, for the site alone.

        `companions`: trained modules of other studies, by the name under which the user gave them (`companions`).
        `scores`: of the module's own evaluation, by the names of result.json; `digest`: of its weights.
        """


@runtime_checkable
class NamesUnits(Protocol):
    """Outcomes whose metrics have physical units."""

    units: Mapping[str, str]  # by metric, as the report shows them


class Outcomes(Protocol):
    """What a study adds to the report: biomarkers and panels."""

    def collect(self, module: "TrainableModule", data: FederatedDataModule, folder: Path) -> Arrays:
        """Write a site's own files into `folder`, and return what may be added over sites, named `count/...`."""

    def metrics(self, by_site: Mapping[str, Arrays]) -> Mapping[str, float]:
        """The study's own metrics from what the sites sent."""

    def panels(self, by_site: Mapping[str, Arrays]) -> list[dict[str, object]]:
        """Tables and figures of the report: `title`, and `note`, `table` or `figure`."""
