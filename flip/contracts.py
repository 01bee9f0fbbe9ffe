"""What the engine asks of a study's classes: what each must have, and each hook that it may have.

A class need not import these protocols; it has a hook by having the methods and attributes that the hook names. The
engine asks for a hook by its name, a test holds every name that it asks for against this file, and
`flip.config.checks.hooks` finds a name that is nearly a hook's. The protocols of one kind of class, first what is
needed, then the hooks, are in `KINDS`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

Arrays = Mapping[str, np.ndarray]


class FederatedDataModule(Protocol):
    """A LightningDataModule over one site's cohort. A loader is one of torch's, or an empty list where a split is."""

    def prepare_data(self) -> None:
        """Whatever must be on disk before the cohort is read."""

    def setup(self, stage: str) -> None:
        """Read the cohort: "fit", then "test"."""

    def persons(self) -> int:
        """Distinct persons in the cohort, before it is loaded. Raises OSError or ValueError where it is unreadable."""

    def train_dataloader(self) -> Any:
        """Batches to train on: `dict[str, Tensor]`."""

    def val_dataloader(self) -> Any:
        """Batches to validate on."""

    def test_dataloader(self) -> Any:
        """Batches to test on."""


@runtime_checkable
class CountsExamples(Protocol):
    """A dataset that knows its sizes without making a loader."""

    def sizes(self) -> Mapping[str, int]:
        """Examples of "train", "validate" and "test"."""


@runtime_checkable
class Skips(Protocol):
    """A dataset that leaves examples out, and counts them by reason."""

    REASONS: frozenset[str]
    skipped: Mapping[str, int]


@runtime_checkable
class SkipsPersons(Protocol):
    """A dataset that knows whose examples it leaves out; without it, a minimum cell withholds their count."""

    skipped_persons: Mapping[str, int]  # distinct persons by reason


@runtime_checkable
class NamesPersons(Protocol):
    """A dataset that says whose its examples are: a site with a minimum cell above 1 asks nothing of any other."""

    def whose(self, split: str) -> np.ndarray:
        """A code of the person of each example, int64 [n], of "train", "validate" or "test"."""


@runtime_checkable
class DeclaresSizes(Protocol):
    """A dataset that knows the widths of its inputs before it has data: what `${size:...}` in a study reads."""

    def declared_sizes(self) -> Mapping[str, int]:
        """Widths by name, as `tabular.features`."""


@runtime_checkable
class Agrees(Protocol):
    """A dataset whose preprocessing all sites agree on before the first round."""

    def statistics(self, minimum_cell: int) -> Arrays:
        """Sums that are added over the sites; a name starts with its kind, as `moments/age` or `count/levels/sex/F`."""

    def agree(self, agreed: Arrays) -> None:
        """Take the sums over all sites."""


@runtime_checkable
class KnowsPersonsBehind(Protocol):
    """A dataset whose statistics may each rest on fewer persons than the cohort has."""

    def behind(self) -> Mapping[str, int]:
        """By the name of a statistic, the distinct persons it rests on."""


@runtime_checkable
class Describes(Protocol):
    """A dataset that `job=check` and `job=statistics` can describe."""

    def describe(self, edges: Arrays) -> tuple[Arrays, Mapping[str, int]]:
        """Counts, moments and, over the agreed edges, histograms by column; and the persons that each rests on."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that reads more than the site's root: noise must be fresh when that changes."""

    def fingerprint(self) -> Arrays:
        """Arrays that change whenever the data do."""


@runtime_checkable
class ScaledForPooling(Protocol):
    """A dataset that prepares its rows in another way for the pooled baseline."""

    def pooled_train_dataloader(self) -> Any:
        """As `train_dataloader`."""

    def pooled_val_dataloader(self) -> Any:
        """As `val_dataloader`."""

    def pooled_test_dataloader(self) -> Any:
        """As `test_dataloader`."""


@runtime_checkable
class LoadsQuickly(Protocol):
    """A dataset whose cohort may be loaded by the check, before the run."""

    loads_quickly: bool


@runtime_checkable
class ConvertsColumns(Protocol):
    """A dataset that takes `{name: ..., conversion: ...}` for a column in a site's file."""

    converts_columns: bool


@runtime_checkable
class HasSources(Protocol):
    """A dataset whose parts can come from a site's own `sources`."""

    SOURCES: tuple[str, ...]


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


KINDS: Mapping[str, tuple[type, ...]] = {
    "dataset": (
        FederatedDataModule, CountsExamples, Skips, SkipsPersons, NamesPersons, DeclaresSizes, Agrees,
        KnowsPersonsBehind, Describes, Fingerprinted, ScaledForPooling, LoadsQuickly, ConvertsColumns, HasSources,
    ),
    "model": (FederatedModule, HasSubgroups, ScoresExactly, Decides, FitsBaseline),
    "metric": (SummableMetric, Coarsens, Withholds, KnowsThin, HasInterval),
    "strategy": (VisitsSome,),
    "outcomes": (Outcomes,),
}  # fmt: skip


def hooks(kind: str) -> frozenset[str]:
    """Every public name that the engine asks of a class of this kind, beyond its base class in the engine."""
    named = [{*vars(each), *getattr(each, "__annotations__", {})} for each in KINDS.get(kind, ())]
    return frozenset(name for names in named for name in names if not name.startswith("_"))
