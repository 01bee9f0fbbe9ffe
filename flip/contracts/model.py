"""What the engine asks of a model, its metrics, the strategy that trains it and the outcomes made from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flip.contracts.dataset import Arrays


class SummableMetric(Protocol):
    """A torchmetrics Metric whose states all reduce by a sum."""

    update_called: bool
    _defaults: Mapping[str, Any]
    _reductions: Mapping[str, Any]

    def update(self, *values: Any) -> None:
        """Take a batch."""

    def compute(self) -> Any:
        """The value."""

    def reset(self) -> None:
        """Forget everything."""


@runtime_checkable
class Coarsens(Protocol):
    """A metric of bins, which hold no fewer than a minimum cell when they leave a site."""

    def coarse(self, cell: int) -> Mapping[str, Any]:
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
class HasInterval(Protocol):
    """A metric that knows its 95 % interval."""

    method: str

    def interval(self) -> tuple[float, float]:
        """Both ends; NaN where they are not known."""


class FederatedModule(Protocol):
    """A LightningModule whose metrics can be added over sites."""

    metrics: Any  # ModuleDict of SummableMetric
    monitor: str
    higher_is_better: bool


@runtime_checkable
class HasSubgroups(Protocol):
    """A module that is scored by subgroup: metrics `GROUP/LEVEL/NAME`, and the levels by group."""

    subgroup_metrics: Any
    levels: Mapping[str, list[str]]


@runtime_checkable
class ScoresExactly(Protocol):
    """A module with metrics that keep a site's rows, which stay there."""

    exact: Any


@runtime_checkable
class Decides(Protocol):
    """A module with a decision threshold, which may be chosen from summed validation counts."""

    chooses_threshold: bool
    decided: frozenset[str]  # the metrics that the threshold changes

    def choose_threshold(self) -> float | None:
        """The threshold by what `metrics` hold; None where they do not tell."""

    def decide_at(self, threshold: float | None) -> None:
        """Decide at this threshold from now on; None is the declared one."""


@runtime_checkable
class FitsBaseline(Protocol):
    """A module that scores from a baseline of a site's own training rows (Breslow's hazard)."""

    fits_baseline: bool

    def fit_baseline(self, batches: Iterable[Any]) -> None:
        """Take the site's training batches, or none."""


@runtime_checkable
class VisitsSome(Protocol):
    """A strategy that goes to so many sites a round, one after the other, rather than to a fraction of them."""

    visits: int | None  # None: every site


class Outcomes(Protocol):
    """What a study adds to the report: biomarkers and panels."""

    def collect(self, module: Any, data: Any, folder: Path) -> Arrays:
        """Write a site's own files into `folder`, and return what may be added over sites, named `count/...`."""

    def metrics(self, by_site: Mapping[str, Arrays]) -> Mapping[str, float]:
        """The study's own metrics from what the sites sent."""

    def panels(self, by_site: Mapping[str, Arrays]) -> list[dict[str, Any]]:
        """Tables and figures of the report: `title`, and `note`, `table` or `figure`."""
