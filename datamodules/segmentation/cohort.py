"""The scans of a site on the shelf, and what is to be said of their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import studies_of_site
from datamodules.cohort import Cohort
from datamodules.description import Description
from datamodules.segmentation.examples import BIG, Scan
from datamodules.segmentation.labels import UNFIT
from datamodules.segmentation.reader import Reader
from datamodules.segmentation.shelf import Shelf
from datamodules.studies_of_site import StudiesOfSite
from datamodules.volume_cache import Arrays, VolumeCache

IN_PART = "scans whose labels hold only some of the structures that their site labels; the others are unlabeled there"
NOT_MARKED = "structures that a site labels by its file, but of which no label file of it marks a voxel"
UNLABELED = "structures of the study that a site does not label, by its file"
REASONS = studies_of_site.REASONS | {*UNFIT}
REMARKS = studies_of_site.REMARKS | {IN_PART, NOT_MARKED, UNLABELED}


class ScansOfSite(StudiesOfSite[Scan]):
    """Scans by split and row of the table, image and label on a shelf; arguments as of its base."""

    reader: Reader

    def __init__(
        self, cohort: Cohort, folder: Path, opener: Callable[[str], Any], *, reader: Reader, cache: VolumeCache | None
    ) -> None:
        super().__init__(cohort, folder, opener, reader=reader, cache=cache)
        self.shelf, self.in_part = Shelf(cache.folder if cache else None), list[int]()

    def made(self, row: int, arrays: Arrays, beside: Mapping[str, int]) -> Scan:
        """A scan, put on the shelf."""
        image, label = (self.shelf.put(arrays[name]) for name in BIG)
        if arrays["labeled"].sum() < len(self.reader.structures.own):
            self.in_part.append(row)
        return Scan(image, label, {name: array for name, array in arrays.items() if name not in BIG}, beside)

    def remarks(self) -> tuple[dict[str, int], dict[str, int], list[str]]:
        """How often each remark is made, of how many persons, and what the site's own log says."""
        numbers, persons, lines = dict(self.series.numbers), dict(self.series.persons), list(self.lines())
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
