"""The studies of a site: read one after the other, each once, and what is to be said of those that were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamodules.cohort import COPY, NO_PERSON, Cohort, left_out
from datamodules.ct.planes import Skip
from datamodules.dicom import Decoder, Reason, Unreadable
from datamodules.dicom.remarks import OF_SERIES, SeriesRead
from datamodules.image_files import files_at, label_path
from datamodules.segmentation.labels import ENDINGS
from datamodules.splits import SPLITS, persons_by
from datamodules.volume_cache import Arrays, VolumeCache

NO_ACCESSION = "the table's accession is missing or not a plain name"
REASONS = frozenset((*(each.value for each in Reason), NO_PERSON, COPY, NO_ACCESSION))
REMARKS = OF_SERIES
Study = TypeVar("Study")


class StudiesOfSite(Generic[Study]):
    """Studies by split and row of the table, and why the others are not used. A class of studies gives `made`.

    Args:
        cohort: the table.
        folder: of the labels.
        opener: gives where the images of an accession are; raises FileNotFoundError where there are none.
        reader: reads a study: `read(image, labels, decoder, train=...)` to arrays, and `settings()`, what decides on
            these besides the files.
        cache: of studies that were read before, or None.
    """

    def __init__(
        self, cohort: Cohort, folder: Path, opener: Callable[[str], Any], *, reader: Any, cache: VolumeCache | None
    ) -> None:
        self.cohort, self.folder, self.opener, self.reader, self.cache = cohort, folder, opener, reader, cache
        self.scans: dict[str, dict[int, Study]] = {split: {} for split in SPLITS}
        self.unused, self.series = list[tuple[int, str]](), SeriesRead()

    def made(self, row: int, arrays: Arrays, beside: Mapping[str, int]) -> Study:
        """A study of a row from its arrays; `beside` is what batches say of it. Raises `Skip`."""
        raise NotImplementedError

    def read(self, splits: NDArray[Any], beside: Mapping[str, NDArray[np.int64]]) -> None:
        """Read all studies to train on, and of each other person the first that can be read.

        `splits`: of each row; `beside`: what batches say of each row besides.
        """
        reasons = self.left_out()
        done = set[int]()
        with Decoder() as decoder:
            for row, (split, person) in enumerate(zip(splits.tolist(), self.cohort.person.tolist(), strict=True)):
                if person in done:
                    continue
                try:
                    if reasons[row] is not None:
                        raise Skip(reasons[row])
                    arrays = self._arrays(str(self.cohort.accession[row]), decoder, train=split == "train")
                    study = self.made(row, arrays, {name: int(each[row]) for name, each in beside.items()})
                except (Skip, Unreadable) as why:
                    self.unused.append((row, str(why)))
                    continue
                if len(arrays["series"]):
                    self.series.add(str(self.cohort.accession[row]), person, arrays["series"])
                self.scans[split][row] = study
                if split != "train":
                    done.add(person)

    def left_out(self) -> list[str | None]:
        """Why a row cannot be used, whatever its files are."""
        names = [each or "" for each in self.cohort.accession]
        plain = pd.Series([Path(each).name == each and each not in ("", ".", "..") for each in names])
        reasons = pd.Series(np.where(plain, None, NO_ACCESSION), dtype=object)
        return left_out(self.cohort, reasons).tolist()

    def _arrays(self, accession: str, decoder: Decoder, *, train: bool) -> Arrays:
        """A study, from the cache if there is one. Raises `Skip`, `Unreadable`."""
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

    def every(self) -> dict[int, Study]:
        """The scans of all splits by row."""
        return dict(sorted((row, scan) for scans in self.scans.values() for row, scan in scans.items()))

    def parts(self) -> NDArray[Any]:
        """The split of each row of the table, text [rows]; empty where its scan is in none."""
        found = np.full(len(self.cohort.person), "", dtype="<U8")
        for split, scans in self.scans.items():
            found[list(scans)] = split
        return found

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

    def lines(self) -> Iterator[str]:
        """What the site's own log says of its studies."""
        for accession, line in self.series.lines:
            yield f"{accession}: {line}"
        for row, reason in self.unused:
            yield f"{self.cohort.accession[row]}: {reason}"
