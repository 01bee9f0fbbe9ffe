"""Images, structured data and notes of one person as one batch: any subset, with missing parts masked, not dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning

from datamodules import agreed_target
from datamodules.cohort import (
    ACCESSION,
    COPY,
    NO_PERSON,
    PERSON,
    Cohort,
    CohortQuery,
    image_opener,
    left_out,
    read_cohort,
)
from datamodules.description import Description, Edges
from datamodules.dicom.remarks import OF_SERIES
from datamodules.images import UNREAD, Images
from datamodules.inputs import Inputs
from datamodules.of_cohort import OfCohort
from datamodules.pixels import Pixels
from datamodules.ranges import OUT_OF_RANGE
from datamodules.records import Records, owned
from datamodules.remarks import LACKING, MIXED_UNITS, counted
from datamodules.rows import Rows, SplitLoaders, split_rows
from datamodules.splits import ByColumn, ByPerson, Dirichlet, persons_by
from datamodules.tabular import Tabular
from datamodules.targets import REASONS, Subgroups, Target
from datamodules.text import HashedText, TransformerText
from datamodules.units import differing, persons_by_unit
from datamodules.unlabeled import NamedRows, Unlabeled, asked, names_of
from datamodules.volume_cache import VolumeCache
from datamodules.yes_no import undeclared_levels


class Multimodal(OfCohort, NamedRows, SplitLoaders, lightning.LightningDataModule):
    """A site's cohort of images, structured data and notes.

    Batches hold what `image` (datamodules.images), `tabular` (datamodules.tabular) and `text` (datamodules.text)
    declare, each with a `..._present` float32 [n]; the target's keys (datamodules.targets); and, never an input,
    `subgroup_<name>` int64 [n], -1 unknown, to report by, and `person` int64 [n], whose row it is, as the site counts.
    Nothing says of a row whether a value was missing, unless `tabular.missing_indicators` asks for it. Means,
    deviations, levels and document frequencies are agreed over the training rows of all sites by `statistics` and
    `agree`; without these calls they are the site's own.

    Args:
        root: the site's table (CSV), archive (.npz), or the folder that holds `records.table`.
        columns: the site's own columns (datamodules.alignment).
        person: the one that says whose a row is, None where each is a person's own; "" as `records`, or a source, says.
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: False for a site that is only tested on; all its rows are then in the test split.
        sources: where table, images and notes come from instead of from files, by part; and the site's `transformer`.
        cache: the site's cache of decoded images: arguments of `datamodules.volume_cache.VolumeCache`; null for none.
        part: which part of a cohort that simulated sites share by `partition`; null for a cohort of the site's own.
        target: what to predict.
        image, tabular, text: the parts to predict from; null for those that the study does not use.
        records: which rows are read, and who and what they are about; null for those of `cohort.csv`, a person each.
        subgroups, split: by name, groups of persons to report by; which persons are trained, validated and tested on.
        partition: parts one cohort into simulated sites; null where no site shares one.
        batch_size: rows of a training batch.
        labeled: False where rows have no target: no column of it, of subgroups or `split` is read, all are test rows.

    Raises (by `persons` and `setup`): FileNotFoundError without a cohort, ValueError for one that cannot be used.
    """

    REASONS, REMARKS = frozenset({NO_PERSON, COPY, *REASONS}), frozenset({*LACKING, OUT_OF_RANGE, *UNREAD, *OF_SERIES})
    WARNINGS, SOURCES = frozenset({MIXED_UNITS}), ("table", "images", "notes", "transformer")
    converts_columns = True
    no_bundle = "bits, polarity and window of films, columns and words are read by rules that no transform of MONAI has"
    must_occur: Sequence[str] = ()  # the target's

    def __init__(
        self,
        root: str,
        columns: Mapping[str, Any] | None = None,
        trains: bool = True,
        *,
        target: Target,
        person: str | None = "",
        sources: Mapping[str, Any] | None = None,
        opt_out: Collection[str] = (),
        part: int | None = None,
        cache: Mapping[str, Any] | None = None,
        image: Images | None = None,
        tabular: Tabular | None = None,
        text: HashedText | TransformerText | None = None,
        records: Records | None = None,
        subgroups: Subgroups | None = None,
        split: ByPerson | ByColumn | None = None,
        partition: Dirichlet | None = None,
        batch_size: int = 32,
        labeled: bool = True,
    ) -> None:
        super().__init__()
        if part is not None and partition is None:
            raise ValueError("part: is of a cohort that dataset.partition parts; leave it out, or declare it")
        self.root, self.sources, self.part, self.partition = Path(root), dict(sources or {}), part, partition
        self.labeled, self.trains, self.predicted_names = labeled, trains and labeled, names_of(target)
        self.target = target if labeled else Unlabeled(target)
        self.cache, self.opt_out = VolumeCache(**cache) if cache else None, frozenset(opt_out)
        self.inputs, self.image, self.tabular, self.text = Inputs(image, tabular, text), image, tabular, text
        self.inputs.take_transformer(self.sources)
        self.fitted, groups = agreed_target.fitted(self.inputs, target), dict(subgroups or {})
        self.split, self.batch_size = split or ByPerson(), batch_size
        self.subgroup_levels = {name: each.names for name, each in groups.items()}
        self.must_occur, self.names_levels = self.target.must_occur, self.inputs.names_levels
        beside = [*target.columns, *(g.column for g in groups.values()), *self.split.columns]
        used = [*(beside if labeled else ()), *self.inputs.columns]
        self.columns, self.groups = asked(columns or {}, used, beside), groups if labeled else {}
        self.query = CohortQuery(owned(records or Records(), person), used, text.column if text else None)
        self._read_nothing()

    def _read_nothing(self) -> None:
        """Before the cohort is read."""
        self.skipped, self.skipped_persons = dict[str, int](), dict[str, int]()
        self.remarks, self.remarks_persons, self.remarks_in_words = counted((), np.zeros(0))
        self._cohort: Cohort | None = None
        self._pixels: Pixels | None = None
        self._splits, self._target = np.zeros(0, dtype=str), dict[str, np.ndarray]()
        self._texts, self._behind, self._datasets = list[Any](), dict[str, int](), dict[str, Rows]()

    @property
    def loads_quickly(self) -> bool:
        """Whether loading takes so little that a check may do it."""
        return self.image is None

    def declared_sizes(self) -> dict[str, int]:
        """Sizes of what batches hold, from the declaration alone: those of `Inputs`, and the target's."""
        return self.inputs.declared_sizes() | self.target.sizes

    def occurs(self) -> np.ndarray:
        """Whether each of `must_occur` is among the training rows of this site, bool."""
        self.setup()
        return self.target.occurs({name: array[self._splits == "train"] for name, array in self._target.items()})

    def compared(self) -> dict[str, np.ndarray]:
        """Persons by unit of numbers whose unit no study declares; those who may have another code of the target."""
        self.setup()
        told = persons_by_unit(self._read().units, self._read().person)
        return told | agreed_target.coded(self.target, self._target, self.skipped_persons)

    def unlearnable(self, told: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
        """What speaks against it, by site what it tells: other units, levels or codes, a constant number to predict."""
        return differing(told, self.query.columns) + self.inputs.unlike(told) + agreed_target.unfit(self.target, told)

    def setup(self, stage: str | None = None) -> None:
        """Read the cohort once, leave out what cannot be used, split, decode the images."""
        if len(self._splits):
            return
        cohort = self._read()
        arrays, reasons = self.target.read(cohort.table)
        reasons = left_out(cohort, reasons)
        self._name_rows({PERSON: cohort.names, ACCESSION: cohort.accession}, reasons.to_list())
        self.skipped = dict(Counter(reasons.dropna()))
        self.skipped_persons = persons_by(zip(reasons, cohort.person, strict=True))
        if not len(kept := np.flatnonzero(reasons.isna())):
            raise ValueError(f"no row can be used: {'; '.join(sorted(self.skipped)) or 'the table has no row'}")
        self._target = {name: array[kept] for name, array in arrays.items()}
        lines = undeclared_levels(self.target.declared, cohort.table)
        self._cohort = cohort = cohort.rows(kept)
        _ = [group.read(cohort.table) for group in self.groups.values()]  # what is no number ends here, not in a round
        remarks = [*cohort.remarks, *self.inputs.remarks(cohort)]
        if self.image is not None:
            opener = image_opener(self.root, self.sources, self.image.folder)
            self._pixels = self.inputs.decode(self.image, opener, cohort, self.cache)
            remarks += self._pixels.remarks(cohort.accession)
            lines += self._pixels.series_lines()
        self._texts = self.inputs.texts(cohort)
        there, nothing = self.inputs.there(cohort, self._pixels, self._texts)
        self.remarks, self.remarks_persons, words = counted([*remarks, nothing], cohort.person)
        self.remarks_in_words = [*words, *lines]
        self._splits = np.full(len(kept), "test")
        if self.trains:
            self._splits = self.split.split(cohort.table, cohort.person, self.target.strata(self._target))
        self._name_splits(self._splits, nothing, there)

    def _read(self) -> Cohort:
        """The aligned cohort, or the site's part of it."""
        if self._cohort is None:
            cohort = read_cohort(self.root, self.columns, self.sources, query=self.query, opt_out=self.opt_out)
            if self.partition is not None and self.part is not None:
                arrays, reasons = self.target.read(cohort.table)
                strata = np.where(reasons.isna(), self.target.strata(arrays), -1)
                cohort = cohort.part(self.partition.rows(cohort.person, strata, self.part))
            self._cohort = cohort
        return self._cohort

    def statistics(self, minimum_cell: int = 1) -> dict[str, np.ndarray]:
        """Over the training rows, as the parts have them; none tells of few persons by what is missing in it."""
        self.setup()
        cohort, train = self._read(), self._splits == "train"
        arrays, self._behind = self.inputs.statistics(cohort, self._texts, train, minimum_cell)
        of_training = {name: array[train] for name, array in self._target.items()}
        return arrays | agreed_target.statistics(self.target, of_training, cohort.person[train])

    def describe(self, edges: Edges, minimum_cell: int = 1) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The rows that have what the study predicts, by column: see `datamodules.description`."""
        self.setup()
        told = Description((cohort := self._read()).person, edges, self._splits, minimum_cell)
        told.rows("studies", np.ones(len(cohort.person), bool))
        agreed_target.describe(self.target, self._target, told)
        self.inputs.describe(told, cohort, self._pixels, self._texts)
        # Persons counted in two ways, by band and by bin, would be told apart where the two do not agree.
        twice = self.tabular.columns if self.tabular else ()
        told.subgroups({name: each for name, each in self.groups.items() if each.column not in twice}, cohort.table)
        return told.found()

    def thumbnails(self, number: int) -> list[tuple[str, str, np.ndarray | None]]:
        """A few images of a cohort that is read, for the site's own eyes: see `Pixels.thumbnails`."""
        return self._pixels.thumbnails(self._read().accession, number) if self._pixels else []

    def behind(self) -> dict[str, int]:
        """On how many persons the statistics rest that do not rest on all."""
        return self._behind

    def adjusted(self, merged: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Moments of the training rows once harmonised, by the name of what scales them, after `statistics`."""
        return self.inputs.adjusted(merged, self._read(), self._splits == "train")

    def weighed(self, merged: Mapping[str, np.ndarray]) -> np.ndarray:
        """By class of the training rows, after `setup`: see `agreed_target.weighed`."""
        return agreed_target.weighed(self.target, merged, self._target, self._read().person, self._splits == "train")

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take the merged statistics of all sites, and encode the cohort with them."""
        self.setup()
        arrays = {**self._target, "person": (cohort := self._read()).person}
        arrays |= self.inputs.agreed(merged, cohort, self._texts, self._splits == "train")
        arrays |= agreed_target.agreed(self.target, merged, self._target, len(cohort.person))
        arrays |= {f"subgroup_{name}": group.read(cohort.table) for name, group in self.groups.items()}
        self._datasets = split_rows(arrays, self._pixels, self._splits)

    def fingerprint(self) -> dict[str, np.ndarray]:
        """A digest of what was read, wherever it came from: other data have other privacy noise."""
        self.setup()
        return {"data": self._read().digest([self._pixels.index, self._pixels.kept] if self._pixels else [])}

    def whose(self, split: str) -> np.ndarray:
        """A code of the person of each row of a split, int64 [n]."""
        self.setup()
        return self._read().person[self._splits == split]
