"""Images with masks of declared structures, 2D or 3D, of any modality, for Lightning.

A site is a folder: `cohort.csv`, one row a scan, with the columns of `records`; below `images/`, named by accession, a
folder of DICOM, a NIfTI or a picture; below `labels/`, named alike, a DICOM SEG (.dcm), a NIfTI or picture of numbers,
or a folder of one NIfTI or picture a structure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
from numpy.typing import NDArray
from torch.utils.data import DataLoader, RandomSampler

from datamodules.cohort import Cohort, CohortQuery, image_opener, read_cohort
from datamodules.description import Description, Edges
from datamodules.intensities import thumbnails
from datamodules.of_cohort import OfCohort
from datamodules.records import Records, owned
from datamodules.segmentation.cohort import NOT_MARKED, REASONS, REMARKS, ScansOfSite
from datamodules.segmentation.examples import Patches, Scan, Scans
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.intensity import FITTED, Intensity, foreground_of
from datamodules.segmentation.labels import Structures
from datamodules.segmentation.patching import Patching
from datamodules.segmentation.planning import FOREGROUND, Planning, planned, told
from datamodules.segmentation.reader import Reader
from datamodules.segmentation.unlabeled import Study, Unlabeled
from datamodules.splits import ByColumn, ByPerson
from datamodules.targets import Subgroups
from datamodules.volume_cache import VolumeCache

NAMED = Records(person="person_id", accession="accession")


class SegmentationImages(OfCohort, lightning.LightningDataModule):
    """A site's scans with masks.

    Training batch, patches: `image` float32 [B, C, *S], `label` int64 [B, *S], 0 background and 1 to K the structures
    as declared, `labeled` bool [B, K], which of them are labeled: of the others `label` says nothing.
    Validation and test batch, one scan, the first that can be read of each person: `image` float32 [1, C, *S], whole;
    on the scan's own grid, turned, `label` int64 [1, *P]; `labeled`; `spacing_mm` float32 [1, D] of that grid, 1 for
    pictures; `mapping` float32 [1, D, 2], by axis: voxel of `image` = scale * own voxel + offset.
    All: `person` int64 [B], and `subgroup_<name>` int64 [B], -1 unknown.

    Args:
        root: the site's folder.
        columns: the site's own columns (datamodules.alignment) and structures (datamodules.segmentation.labels).
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: False puts every person into the test split.
        structures: names of the structures, classes 1, 2, ...
        intensity: how values become input (datamodules.segmentation.intensity).
        image: what the images are (datamodules.segmentation.forms).
        patches, plan: what is trained on, and how `job=plan` plans (datamodules.segmentation.patching and planning).
        batch_size: patches in a batch; workers: processes that load them, 0 loads in this one.
        records, person, subgroups, split: as `datamodules.multimodal.Multimodal` has them.
        sources: where table and images come from instead of from files, by part.
        labeled: False for scans without labels, which `studies` gives; there is then nothing to train or to test on.
        cache: the site's cache of scans on the grid: arguments of `datamodules.volume_cache.VolumeCache`; the scans of
            this process are then mapped from a file in its folder, else from one in the temporary folder.

    Raises (by `persons` and `setup`): FileNotFoundError without a cohort, ValueError where nothing is left to read.
    """

    REASONS, REMARKS, WARNINGS = REASONS, REMARKS, frozenset({NOT_MARKED})
    SOURCES = ("table", "images")
    COLUMN_KEYS = ("code", "value")
    converts_columns, bundle_modality = True, ""
    must_occur: Sequence[str] = ()  # the structures
    _site: ScansOfSite | None = None

    def __init__(
        self,
        root: str,
        columns: Mapping[str, Any] | None = None,
        trains: bool = True,
        *,
        structures: Sequence[str],
        intensity: Intensity,
        image: Volumes | Pictures,
        patches: Patching,
        plan: Planning | None = None,
        batch_size: int = 2,
        records: Records | None = None,
        person: str | None = "",
        subgroups: Subgroups | None = None,
        split: ByPerson | ByColumn | None = None,
        sources: Mapping[str, Any] | None = None,
        opt_out: Collection[str] = (),
        workers: int = 0,
        cache: Mapping[str, Any] | None = None,
        labeled: bool = True,
    ) -> None:
        super().__init__()
        if len(patches.size) != image.dimensions:
            raise ValueError(f"dataset.patches.size: must be {image.dimensions} numbers, one an axis of dataset.image")
        self.root, self.trains, self.labeled, self.sources = Path(root), trains, labeled, dict(sources or {})
        self.structures = Structures(structures, dict(columns or {}))
        self.columns = {name: own for name, own in (columns or {}).items() if name not in structures}
        self.fitted, self.binned = (FITTED, (FOREGROUND,)) if intensity.agreed else ({}, ())
        self.reader, self.patches, self.intensity = Reader(self.structures, image, intensity), patches, intensity
        self.batch_size, self.workers, self.planning = batch_size, workers, plan or Planning()
        self.bundle_modality = str(getattr(image, "modality", ""))
        self.groups, self.split = dict(subgroups or {}) if labeled else {}, split or ByPerson()
        used = [*(each.column for each in self.groups.values()), *self.split.columns] if labeled else []
        self.query, self.opt_out = CohortQuery(owned(records or NAMED, person), used, None), frozenset(opt_out)
        self.cache, self.must_occur = VolumeCache(**cache) if cache else None, list(structures) if labeled else []
        self.skipped, self.skipped_persons = dict[str, int](), dict[str, int]()
        self.remarks, self.remarks_persons, self.remarks_in_words = dict[str, int](), dict[str, int](), list[str]()
        self._cohort: Cohort | None = None
        self._sets, self._behind, self._agreed = dict[str, Any](), dict[str, int](), False

    @property
    def subgroup_levels(self) -> dict[str, Sequence[str]]:
        """By group its levels, in order."""
        return {name: each.names for name, each in self.groups.items()}

    def declared_sizes(self) -> dict[str, int]:
        """`image.channels`; `target.classes`: background and the structures."""
        return {"image.channels": self.reader.form.channels, "target.classes": 1 + len(self.structures.names)}

    def _read(self) -> Cohort:
        if self._cohort is None:
            self._cohort = read_cohort(self.root, self.columns, self.sources, query=self.query, opt_out=self.opt_out)
        return self._cohort

    def setup(self, stage: str | None = None) -> None:
        """Split the persons, read their scans once; see the class for what it raises."""
        if self._site is not None:
            return
        cohort, opener = self._read(), image_opener(self.root, self.sources, "images")
        site = ScansOfSite(cohort, self.root / "labels", opener, reader=self.reader, cache=self.cache)
        if not self.labeled:
            self._site = site
            return
        splits, alike = np.full(len(cohort.person), "test"), np.zeros(len(cohort.person), np.int64)
        splits = self.split.split(cohort.table, cohort.person, alike) if self.trains else splits
        groups = {f"subgroup_{name}": group.read(cohort.table) for name, group in self.groups.items()}
        site.read(splits, {**groups, "person": cohort.person})
        self.skipped, self.skipped_persons = site.skipped()
        self.remarks, self.remarks_persons, self.remarks_in_words = site.remarks()
        site.refuse_empty("train" if self.trains else "test", self.root)
        self._site = site

    def _loaded(self) -> ScansOfSite:
        self.setup()
        assert self._site is not None
        return self._site

    def _of(self, split: str) -> list[Scan]:
        return list(self._loaded().scans[split].values())

    def studies(self) -> Iterator[Study]:
        """Each row of the table without labels, after `agree`, read when asked for; or why it was not."""
        return Unlabeled(self.reader.form, self.intensity).studies(self._loaded())

    def occurs(self) -> NDArray[np.bool_]:
        """Whether each of `must_occur`, the structures, has a voxel in the training scans of this site, bool."""
        marked = [scan.arrays["marked"] for scan in self._of("train")]
        return np.any(marked, axis=0) if marked else np.zeros(len(self.structures.names), bool)

    def statistics(self, minimum_cell: int = 1) -> dict[str, NDArray[np.float64]]:
        """Over the training scans, `count/label` [structures]: persons whose scans are labeled for each; and where the
        intensity is agreed, `sum/foreground intensities` [bins]: see `foreground_of`."""
        return {"count/label": self._loaded().labeled(minimum_cell)} | self._statistics(self._of("train"), minimum_cell)

    def _statistics(self, scans: Sequence[Scan], minimum_cell: int) -> dict[str, NDArray[np.float64]]:
        if not self.intensity.agreed:
            return {}
        shares = np.array([scan.arrays["histogram"] for scan in scans])
        mass, self._behind[FOREGROUND] = foreground_of(shares, [scan.beside["person"] for scan in scans], minimum_cell)
        return {FOREGROUND: mass}

    def behind(self) -> dict[str, int]:
        """The distinct persons that each bin of the histogram rests on at least, but for empty ones."""
        return self._behind

    def agree(self, merged: Mapping[str, NDArray[np.float64]]) -> None:
        """Take the histogram over all sites. Raises ValueError where the intensity needs it and no site tells it."""
        if self.intensity.agreed:
            self.intensity.agree(merged.get(FOREGROUND, np.zeros(1)))
        self._agreed = True

    def bundle_preprocessing(self) -> list[Mapping[str, Any]]:
        """How a scan becomes input, as transforms in a MONAI Bundle; after `agree`. Raises ValueError for pictures."""
        return [*self.reader.form.as_transforms("image"), *self.intensity.as_transforms("image")]

    def describe(self, edges: Edges, minimum_cell: int = 1) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
        """Table, spacing and shape of the own grids, who labels what: see `datamodules.description`."""
        site = self._loaded()
        found = site.describe(Description(self._read().person, edges, site.parts(), minimum_cell))
        found.subgroups(self.groups, self._read().table)
        return found.found()

    def surveyed(self, minimum_cell: int = 1) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
        """Histograms of the training scans' grids and intensities: see `told`."""
        return told(self._of("train"), self.intensity, minimum_cell)

    def planned(self, sums: Mapping[str, NDArray[np.float64]]) -> str:
        """Settings by nnU-Net's rules from such sums over all sites: see `datamodules.segmentation.planning`."""
        number = len(self.structures.names)
        return planned(sums, self.reader.form, self.intensity, structures=number, planning=self.planning)

    def thumbnails(self, number: int) -> list[tuple[str, str, NDArray[np.uint8] | None]]:
        """A plane of each of a few scans, for the site's own eyes: see `datamodules.intensities.thumbnails`."""
        site, names, scans = self._loaded(), self._read().accession, self._loaded().every()
        planes = [scans[row].arrays["shown"][None] if row in scans else None for row in range(len(names))]
        return thumbnails(planes, names, [(str(names[row]), why) for row, why in site.unused], number)

    def fingerprint(self) -> dict[str, NDArray[np.uint8]]:
        """A digest of the table and of all scans and labels that were read."""
        return {"data": self._read().digest([scan.arrays["digest"] for scan in self._loaded().every().values()])}

    def whose(self, split: str) -> NDArray[np.int64]:
        """A code of the person of each example of a split, int64 [n]; an example is a scan."""
        return np.array([scan.beside["person"] for scan in self._of(split)], np.int64)

    def sizes(self) -> dict[str, int]:
        """Examples of each split: scans, however many patches are cut from one."""
        return {split: len(self.whose(split)) for split in self._loaded().scans}

    def train_dataloader(self) -> Any:
        """Patches of all scans, `each` times, shuffled by torch's global generator."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Scans for validation, one a batch; an empty list where there are none."""
        return self._loader("validate")

    def test_dataloader(self) -> Any:
        """Scans for the final test, one a batch; an empty list where there are none."""
        return self._loader("test")

    def _loader(self, split: str) -> DataLoader[Any] | list[Any]:
        scans, shelf, train = self._of(split), self._loaded().shelf, split == "train"
        if not scans:
            return []
        if not self._agreed:  # for whoever uses this class with Lightning alone
            self.agree(self._statistics(self._of("train") or self._of("test"), 1))
        if split not in self._sets:
            made = Patches(scans, shelf, self.intensity, self.patches) if train else Scans(scans, shelf, self.intensity)
            self._sets[split] = made
        if not train:
            return DataLoader(self._sets[split], batch_size=1, num_workers=self.workers)
        order = RandomSampler(scans, num_samples=len(scans) * self.patches.each)
        return DataLoader(self._sets[split], batch_size=self.batch_size, sampler=order, num_workers=self.workers)
