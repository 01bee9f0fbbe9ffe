"""What the engine asks of a dataset: a LightningDataModule over one site's cohort."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    Batch = Mapping[str, torch.Tensor]
    Loader = DataLoader[Batch]
    Split = Loader | Sequence[Loader]  # an empty list where there is no such split

Arrays = Mapping[str, np.ndarray]


class FederatedDataModule(Protocol):
    """A LightningDataModule over one site's cohort. A loader is one of torch's, or an empty list where a split is."""

    def prepare_data(self) -> None:
        """Whatever must be on disk before the cohort is read."""

    def setup(self, stage: str) -> None:
        """Read the cohort: "fit", then "test"."""

    def persons(self) -> int:
        """Distinct persons in the cohort, before it is loaded. Raises OSError or ValueError where it is unreadable."""

    def train_dataloader(self) -> "Loader":
        """Batches to train on: `dict[str, Tensor]`."""

    def val_dataloader(self) -> "Split":
        """Batches to validate on."""

    def test_dataloader(self) -> "Split":
        """Batches to test on."""


@runtime_checkable
class CountsExamples(Protocol):
    """A dataset that knows its sizes without making a loader."""

    def sizes(self) -> Mapping[str, int]:
        """Examples of "train", "validate" and "test"."""


@runtime_checkable
class Skips(Protocol):
    """A dataset that leaves examples out, and counts them by reason."""

    skipped: Mapping[str, int]


@runtime_checkable
class DeclaresReasons(Protocol):
    """A class of datasets with a closed list of reasons to leave an example out: no other leaves a site."""

    REASONS: frozenset[str]


@runtime_checkable
class SkipsPersons(Protocol):
    """A dataset that knows whose examples it leaves out; without it, a minimum cell withholds their count."""

    skipped_persons: Mapping[str, int]  # distinct persons by reason


@runtime_checkable
class Remarks(Protocol):
    """A dataset with something to know of the examples that it kept: which of several scans it read, what it lacked."""

    remarks: Mapping[str, int]  # how often each is made
    remarks_persons: Mapping[str, int]  # of how many distinct persons


@runtime_checkable
class DeclaresRemarks(Protocol):
    """A class of datasets with a closed list of remarks: no other leaves a site."""

    REMARKS: frozenset[str]


@runtime_checkable
class ExplainsRemarks(Protocol):
    """A dataset with more to say of its remarks in the site's own log, which may name columns and codes."""

    remarks_in_words: Sequence[str]


@runtime_checkable
class DeclaresWarnings(Protocol):
    """A class of datasets with remarks that put a result in doubt: a report names them in its first lines."""

    WARNINGS: frozenset[str]  # of its REMARKS


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

    def statistics(self, minimum_cell: int = 1) -> Arrays:
        """Sums that are added over the sites; a name starts with its kind, as `moments/age` or `count/levels/sex/F`."""

    def agree(self, agreed: Arrays) -> None:
        """Take the sums over all sites."""


@runtime_checkable
class Fits(Protocol):
    """A dataset that knows what its examples are prepared by that is computed from the rows, here or at all sites.

    A mechanism that protects persons gives none of it noise, so a study with any is refused under it. One that does not
    say it, and agrees on sums (`Agrees`), always has some.
    """

    fitted: Mapping[str, tuple[str, str]]  # by key of the study: what it is, and how to do without


@runtime_checkable
class NamesLevels(Protocol):
    """A dataset that tells names of levels which its data hold and no study declares: a hospital's file permits it."""

    names_levels: Sequence[str]  # of which columns, from the declaration alone


@runtime_checkable
class NamesSubgroups(Protocol):
    """A dataset with groups of persons to report by, whose number of each is `subgroup_<name>` of a batch."""

    subgroup_levels: Mapping[str, Sequence[str]]  # by group its levels in order, from the declaration alone


@runtime_checkable
class KnowsWhatOccurs(Protocol):
    """A dataset that knows what a model has to see to learn; a study ends where no site has one of them to train on."""

    must_occur: Sequence[str]  # by name, from the declaration alone

    def occurs(self) -> np.ndarray:
        """Whether each of them is among the training rows of this site, bool."""


@runtime_checkable
class ComparesSites(Protocol):
    """A dataset that knows by what its sites tell whether they can learn together; if not, the study ends at once."""

    def compared(self) -> Arrays:
        """Of this site, tested or trained on, persons by what has to be alike; a name starts with `count/`."""

    def unlearnable(self, told: Mapping[str, Arrays]) -> Sequence[str]:
        """A sentence for each reason against the study, by site what it tells: `compared`, and `statistics` of those
        that train. Asked of the study as declared, over no site's data."""


@runtime_checkable
class KnowsPersonsBehind(Protocol):
    """A dataset whose statistics may each rest on fewer persons than the cohort has."""

    def behind(self) -> Mapping[str, int]:
        """By the name of a statistic, the distinct persons it rests on."""


@runtime_checkable
class Describes(Protocol):
    """A dataset that `job=check` and `job=statistics` can describe."""

    def describe(self, edges: Arrays, minimum_cell: int = 1) -> tuple[Arrays, Mapping[str, int]]:
        """Counts, moments and, over the agreed edges, histograms by column; and the persons that each rests on, in
        the part of the cohort (a split, what is left out) where they are fewest. One that takes no `minimum_cell` is
        given none, and parts that it describes together may be told apart by what other tasks tell.
        """


@runtime_checkable
class GivesScans(Protocol):
    """A dataset of scans without labels, for outcomes that measure these (`MeasuresScans`)."""

    def scans(self) -> Iterable[object]:
        """Each scan, or why it was not read, as the outcomes know it."""


@runtime_checkable
class ShowsImages(Protocol):
    """A dataset of images that `job=check` shows to their own site, and to nobody else."""

    def thumbnails(self, number: int) -> Sequence[tuple[str, str, np.ndarray | None]]:
        """By image its name, what is wrong with it (empty: nothing), and uint8 [h, w] or [h, w, 3], None if unread.

        Up to `number` of those with something wrong, and up to `number` others.
        """


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that reads more than the site's root: noise must be fresh when that changes."""

    def fingerprint(self) -> Arrays:
        """Arrays that change whenever the data do."""


@runtime_checkable
class ScaledForPooling(Protocol):
    """A dataset that prepares its rows in another way for the pooled baseline."""

    def pooled_train_dataloader(self) -> "Loader":
        """As `train_dataloader`."""

    def pooled_val_dataloader(self) -> "Split":
        """As `val_dataloader`."""

    def pooled_test_dataloader(self) -> "Split":
        """As `test_dataloader`; an empty list where these settings prepare all rows in one way."""


@runtime_checkable
class LoadsQuickly(Protocol):
    """A dataset whose cohort may be loaded by the check, before the run."""

    loads_quickly: bool


@runtime_checkable
class HasSources(Protocol):
    """A dataset whose parts can come from a site's own `sources`."""

    SOURCES: tuple[str, ...]
