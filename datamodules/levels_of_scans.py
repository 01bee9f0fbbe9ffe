"""Whole CT scans with the level of one vertebra, or without it in view, for Lightning.

A site is a folder: `cohort.csv`, one row a scan, with the columns of `records` and `level_mm`; and below `images/`,
named by accession, a folder of DICOM or a NIfTI. A site with masks of vertebrae instead has them below `labels/`, named
alike, as `datamodules.segmentation_images` takes them, and says `level_mm: null` in its columns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.cohort import Cohort, CohortQuery, image_opener, read_cohort
from datamodules.description import Description, Edges
from datamodules.intensities import thumbnails
from datamodules.levels.examples import Pictures, Stretches, Wholes
from datamodules.levels.projections import Projections
from datamodules.levels.reader import LEVEL_MM, REASONS, REMARKS, LevelReader, LevelsOfSite
from datamodules.levels.stretching import Stretching
from datamodules.of_cohort import OfCohort
from datamodules.records import Records, owned
from datamodules.segmentation.labels import Structures
from datamodules.splits import ByColumn, ByPerson
from datamodules.volume_cache import VolumeCache


class LevelsOfScans(OfCohort, lightning.LightningDataModule):
    """A site's whole CT scans and where the level is.

    Batches: `image` float32 [B, 2, Z, W], 0 to 1, the frontal and the sagittal picture of a scan, or in training of a
    part of it, the lowest row first; `inside` bool [B, Z], which rows are of the scan; `level` float32 [B], the row of
    the vertebra's center, a fraction, NaN where it is not in view; `step_mm` float32 [B], the height of a row, mm;
    `person` int64 [B]. Validation and test take one whole scan a batch, the first that can be read of each person.

    `level_mm` of the table is the coordinate of the center of the vertebra along the body axis, mm, in the patient's
    system of DICOM (z, growing to the head: the third number of ImagePositionPatient of the slice through it); empty
    where the vertebra is not in the scan. It stays at the site: a batch has rows.

    Masks: the center is that of the largest part of `level`'s mask. A scan whose vertebra touches its first or last
    slice is left out, as nobody can say where its center is. A scan without a voxel of it has none in view where the
    labels mark another of `others`, or declare it with none, as a file of numbers does; else it was not labeled.

    Args:
        root: the site's folder.
        columns: the site's own columns (datamodules.alignment) and vertebrae (datamodules.segmentation.labels);
            `level_mm: null` where it has masks.
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: False puts every person into the test split.
        projections: what the network sees of a scan.
        level: name of the vertebra, in masks.
        others: other vertebrae that masks may mark.
        stretches: which parts of scans are trained on (datamodules.levels.examples).
        batch_size: parts in a batch.
        records, person, split: as `datamodules.multimodal.Multimodal` has them.
        sources: where table and images come from instead of from files, by part.
        workers: processes that load batches; 0 loads in this one.
        cache: the site's cache of pictures: arguments of `datamodules.volume_cache.VolumeCache`.

    Raises (by `persons` and `setup`): FileNotFoundError without a cohort, ValueError where nothing is left to read.
    """

    REASONS, REMARKS = REASONS, REMARKS
    SOURCES = ("table", "images")
    COLUMN_KEYS = ("code", "value")
    converts_columns = True
    must_occur: Sequence[str] = ()

    def __init__(
        self,
        root: str,
        columns: Mapping[str, Any] | None = None,
        trains: bool = True,
        *,
        projections: Projections,
        level: str = "vertebra_L3",
        others: Sequence[str] = (),
        stretches: Stretching | None = None,
        batch_size: int = 8,
        records: Records | None = None,
        person: str | None = "",
        split: ByPerson | ByColumn | None = None,
        sources: Mapping[str, Any] | None = None,
        opt_out: Collection[str] = (),
        workers: int = 0,
        cache: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.opt_out = frozenset(opt_out)
        columns, names = dict(columns or {}), [level, *others]
        self.root, self.trains, self.sources = Path(root), trains, dict(sources or {})
        masked = columns.get(LEVEL_MM, LEVEL_MM) is None
        self.columns = {name: own for name, own in columns.items() if name not in names}
        self.reader = LevelReader(projections, Structures(names, columns) if masked else None)
        self.split, self.batch_size, self.workers = split or ByPerson(), batch_size, workers
        self.stretches = stretches or Stretching()
        self.query = CohortQuery(
            owned(records or Records(person="person_id", accession="accession"), person),
            [LEVEL_MM, *self.split.columns],
            None,
        )
        self.cache, self.must_occur = VolumeCache(**cache) if cache else None, [level]
        self.skipped, self.skipped_persons = dict[str, int](), dict[str, int]()
        self.remarks, self.remarks_persons, self.remarks_in_words = dict[str, int](), dict[str, int](), list[str]()
        self._cohort: Cohort | None = None
        self._site: LevelsOfSite | None = None
        self._sets = dict[str, Any]()

    def declared_sizes(self) -> dict[str, int]:
        """`image.channels`: the pictures of a scan."""
        return {"image.channels": self.reader.projections.channels}

    def _read(self) -> Cohort:
        if self._cohort is None:
            self._cohort = read_cohort(self.root, self.columns, self.sources, query=self.query, opt_out=self.opt_out)
        return self._cohort

    def setup(self, stage: str | None = None) -> None:
        """Split the persons, read their scans once; see the class for what it raises."""
        if self._site is not None:
            return
        cohort = self._read()
        splits = np.full(len(cohort.person), "test")
        if self.trains:
            splits = self.split.split(cohort.table, cohort.person, np.zeros(len(cohort.person), np.int64))
        opener = image_opener(self.root, self.sources, "images")
        site = LevelsOfSite(cohort, self.root / "labels", opener, reader=self.reader, cache=self.cache)
        site.read(splits, {"person": cohort.person})
        self.skipped, self.skipped_persons = site.skipped()
        self.remarks, self.remarks_persons = dict(site.series.numbers), dict(site.series.persons)
        self.remarks_in_words = list(site.lines())
        site.refuse_empty("train" if self.trains else "test", self.root)
        self._site = site

    def _loaded(self) -> LevelsOfSite:
        self.setup()
        assert self._site is not None
        return self._site

    def _of(self, split: str) -> list[Pictures]:
        return list(self._loaded().scans[split].values())

    def occurs(self) -> NDArray[np.bool_]:
        """Whether the level is in view of a training scan of this site, bool [1]."""
        return np.array([any(scan.level == scan.level for scan in self._of("train"))])

    def describe(self, edges: Edges, minimum_cell: int = 1) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
        """The table, and who has the level in view: see `datamodules.description`."""
        site = self._loaded()
        return site.describe(Description(self._read().person, edges, site.parts(), minimum_cell)).found()

    def thumbnails(self, number: int) -> list[tuple[str, str, NDArray[np.uint8] | None]]:
        """Both pictures of a few scans, head up, for the site's own eyes: see `datamodules.intensities.thumbnails`."""
        site, names = self._loaded(), self._read().accession
        scans = site.every()
        shown = {row: np.concatenate([*scan.views[:, ::-1]], axis=1)[None] for row, scan in scans.items()}
        unread = [(str(names[row]), why) for row, why in site.unused]
        return thumbnails([shown.get(row) for row in range(len(names))], names, unread, number)

    def fingerprint(self) -> dict[str, NDArray[np.uint8]]:
        """A digest of the table and of all scans that were read."""
        scans = self._loaded().every().values()
        return {"data": self._read().digest([np.append(scan.views, np.float32(scan.level)) for scan in scans])}

    def whose(self, split: str) -> NDArray[np.int64]:
        """A code of the person of each example of a split, int64 [n]; an example is a part of a scan, or a scan."""
        each = self.stretches.each if split == "train" else 1
        return np.repeat(np.array([scan.beside["person"] for scan in self._of(split)], np.int64), each)

    def sizes(self) -> dict[str, int]:
        """Examples of each split."""
        return {split: len(self.whose(split)) for split in self._loaded().scans}

    def train_dataloader(self) -> Any:
        """Parts of scans, shuffled by torch's global generator; an empty list at a site that does not train."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Scans for validation, one a batch; an empty list where there are none."""
        return self._loader("validate")

    def test_dataloader(self) -> Any:
        """Scans for the final test, one a batch; an empty list where there are none."""
        return self._loader("test")

    def _loader(self, split: str) -> DataLoader[Any] | list[Any]:
        scans, train = self._of(split), split == "train"
        if not scans:
            return []
        if split not in self._sets:
            step = self.reader.projections.step_mm
            self._sets[split] = Stretches(scans, self.stretches, step) if train else Wholes(scans)
        size = self.batch_size if train else 1
        return DataLoader(self._sets[split], batch_size=size, shuffle=train, num_workers=self.workers)
