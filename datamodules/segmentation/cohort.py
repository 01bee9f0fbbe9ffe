"""The scans of a site: read one after the other, put on the shelf, and what is to be said of those that were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamodules.cohort import COPY, NO_PERSON, Cohort, left_out
from datamodules.ct.planes import Skip
from datamodules.description import Description
from datamodules.dicom import Decoder, Reason, Unreadable
from datamodules.dicom.remarks import OF_SERIES, SeriesRead
from datamodules.image_files import files_at, label_path
from datamodules.segmentation.examples import BIG, Scan
from datamodules.segmentation.labels import ENDINGS, UNFIT
from datamodules.segmentation.reader import Reader
from datamodules.segmentation.shelf import Shelf
from datamodules.splits import SPLITS, persons_by
from datamodules.volume_cache import Arrays, VolumeCache

NO_ACCESSION = "the table's accession is missing or not a plain name"
IN_PART = "scans whose labels hold only some of the structures that their site labels; the others are unlabeled there"
NOT_MARKED = "structures that a site labels by its file, but of which no label file of it marks a voxel"
UNLABELED = "structures of the study that a site does not label, by its file"
REASONS = frozenset((*(each.value for each in Reason), NO_PERSON, COPY, NO_ACCESSION, *UNFIT))
REMARKS = frozenset({*OF_SERIES, IN_PART, NOT_MARKED, UNLABELED})


class ScansOfSite:
    """Scans by split and row of the table, and why the others are not used.

    Args:
        cohort: the table.
        folder: of the labels.
        opener: gives where the images of an accession are; raises FileNotFoundError where there are none.
        reader: reads a scan.
        cache: of scans that were read before, or None.
    """

    def __init__(
        self, cohort: Cohort, folder: Path, opener: Callable[[str], Any], *, reader: Reader, cache: VolumeCache | None
    ) -> None:
        self.cohort, self.folder, self.opener, self.reader, self.cache = cohort, folder, opener, reader, cache
        self.shelf = Shelf(cache.folder if cache else None)
        self.scans: dict[str, dict[int, Scan]] = {split: {} for split in SPLITS}
        self.unused, self.series, self.in_part = list[tuple[int, str]](), SeriesRead(), list[int]()

    def read(self, splits: NDArray[Any], beside: Mapping[str, NDArray[np.int64]]) -> None:
        """Read all scans to train on, and of each other person the first that can be read.

        `splits`: of each row; `beside`: what batches say of each row besides.
        """
        reasons = self._left_out()
        done = set[int]()
        with Decoder() as decoder:
            for row, (split, person) in enumerate(zip(splits.tolist(), self.cohort.person.tolist(), strict=True)):
                if person in done:
                    continue
                try:
                    if reasons[row] is not None:
                        raise Skip(reasons[row])
                    arrays = self._arrays(str(self.cohort.accession[row]), decoder, train=split == "train")
                except (Skip, Unreadable) as why:
                    self.unused.append((row, str(why)))
                    continue
                self._put(row, split, arrays, {name: int(each[row]) for name, each in beside.items()})
                if split != "train":
                    done.add(person)

    def _left_out(self) -> list[str | None]:
        """Why a row cannot be used, whatever its files are."""
        names = [each or "" for each in self.cohort.accession]
        plain = pd.Series([Path(each).name == each and each not in ("", ".", "..") for each in names])
        reasons = pd.Series(np.where(plain, None, NO_ACCESSION), dtype=object)
        return left_out(self.cohort, reasons).tolist()

    def _arrays(self, accession: str, decoder: Decoder, *, train: bool) -> Arrays:
        """A scan, from the cache if there is one. Raises `Skip`, `Unreadable`."""
        try:
            image = Path(self.opener(accession))
        except FileNotFoundError:
            raise Unreadable(Reason.NO_IMAGE) from None
        labels = label_path(self.folder, accession, ENDINGS)

        def make() -> Arrays:
            return self.reader.read(image, labels, decoder, train=train)

        if self.cache is None:
            return make()
        return self.cache.arrays([*files_at(image), *files_at(labels)], self.reader.settings() | {"train": train}, make)

    def _put(self, row: int, split: str, arrays: Arrays, beside: Mapping[str, int]) -> None:
        image, label = (self.shelf.put(arrays[name]) for name in BIG)
        rest = {name: array for name, array in arrays.items() if name not in BIG}
        if len(arrays["series"]):
            self.series.add(str(self.cohort.accession[row]), int(self.cohort.person[row]), arrays["series"])
        if arrays["labeled"].sum() < len(self.reader.structures.own):
            self.in_part.append(row)
        self.scans[split][row] = Scan(image, label, rest, beside)

    def every(self) -> dict[int, Scan]:
        """The scans of all splits by row."""
        return dict(sorted((row, scan) for scans in self.scans.values() for row, scan in scans.items()))

    def refuse_empty(self, split: str, root: Path) -> None:
        """Raise ValueError, naming why, where a split has no scan."""
        if not self.scans[split]:
            reasons = "; ".join(f"{number} x {reason}" for reason, number in self.skipped()[0].items())
            reasons = reasons or "its persons are all kept for the other splits"
            raise ValueError(f"{root} has no scan to {split} on: {reasons}")

    def skipped(self) -> tuple[dict[str, int], dict[str, int]]:
        """Scans, and distinct persons, by the reason why they are not used."""
        of = self.cohort.person
        by_person = persons_by((reason, int(of[row])) for row, reason in self.unused)
        return dict(Counter(reason for _, reason in self.unused)), by_person

    def remarks(self) -> tuple[dict[str, int], dict[str, int], list[str]]:
        """How often each remark is made, of how many persons, and what the site's own log says."""
        numbers, persons, lines = dict(self.series.numbers), dict(self.series.persons), list(self._lines())
        structures, everybody = self.reader.structures, self.cohort.persons
        if self.in_part:
            numbers[IN_PART], persons[IN_PART] = len(self.in_part), len(set(self.cohort.person[self.in_part].tolist()))
        for remark, names in ((NOT_MARKED, self.not_marked()), (UNLABELED, structures.unlabeled)):
            if names:
                numbers[remark], persons[remark] = len(names), everybody
                lines.append(f"{remark}: {', '.join(names)}")
        return numbers, persons, lines

    def labeled(self, minimum_cell: int) -> NDArray[np.float64]:
        """Persons to train on whose scans are labeled for each structure, [structures].

        Where few are not, some of the others are left out with them, so that nobody learns how few.
        """
        scans = self.scans["train"].values()
        everybody, counts = len({scan.beside["person"] for scan in scans}), list[int]()
        for number in range(len(self.reader.structures.names)):
            having = len({scan.beside["person"] for scan in scans if scan.arrays["labeled"][number]})
            few = 0 < everybody - having < minimum_cell
            counts.append(max(everybody - minimum_cell, 0) if few else having)
        return np.array(counts, np.float64)

    def _lines(self) -> Iterator[str]:
        for accession, line in self.series.lines:
            yield f"{accession}: {line}"
        for row, reason in self.unused:
            yield f"{self.cohort.accession[row]}: {reason}"

    def not_marked(self) -> list[str]:
        """Structures that the site labels, of which no scan that was read has a voxel: a wrong name is like that."""
        marked = np.any([scan.arrays["marked"] for scan in self.every().values()], axis=0)
        structures = self.reader.structures
        return [
            name
            for name, has in zip(structures.names, np.atleast_1d(marked), strict=False)
            if name in structures.own and not has
        ]

    def describe(self, told: Description) -> Description:
        """Tell rows, who has labels of which structure, and the spacing of the scans' own grids."""
        scans = self.every()
        arrays = [scans[row].arrays if row in scans else None for row in range(len(self.cohort.person))]
        told.rows("studies", np.ones(len(arrays), bool))
        told.rows("labels", np.array([each is not None for each in arrays]))
        for number, name in enumerate(self.reader.structures.names):
            if name not in self.reader.structures.own:
                continue  # by the site's own file: it is not missing
            told.known(name, np.array([each is not None and bool(each["labeled"][number]) for each in arrays]))
        for axis in range(self.reader.form.dimensions):
            spacing = [np.nan if each is None else float(each["spacing_mm"][axis]) for each in arrays]
            told.number(f"spacing of axis {axis + 1}", np.array(spacing))
        return told
