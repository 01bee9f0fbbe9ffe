"""What a study predicts from: images, structured data, notes, or some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.agreed_levels import strangers
from datamodules.cohort import Cohort
from datamodules.description import Description
from datamodules.images import Images
from datamodules.pixels import Pixels
from datamodules.remarks import GARBLED, NOTHING, Remark
from datamodules.tabular import Tabular
from datamodules.text import HashedText, TransformerText
from datamodules.volume_cache import VolumeCache

# What is left of letters that were read by another encoding than they were written in: lost, or UTF-8 read as Latin-1
# or Windows-1252.
LOST = re.compile("\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac")


@dataclass(frozen=True)
class Inputs:
    """The declared parts, each None where the study does not use it. Raises ValueError where it uses none."""

    image: Images | None
    tabular: Tabular | None
    text: HashedText | TransformerText | None

    def __post_init__(self) -> None:
        if self.image is None and self.tabular is None and self.text is None:
            raise ValueError("dataset: has nothing to predict from; set dataset.image, dataset.tabular or dataset.text")

    @property
    def columns(self) -> list[str]:
        """The columns that they are read from."""
        return [*(self.tabular.columns if self.tabular else ()), *([self.text.column] if self.text else ())]

    @property
    def names_levels(self) -> list[str]:
        """The categories of which the study says how many levels they have, and the data say which."""
        return [name for name, declared in self.tabular.declared.items() if declared is None] if self.tabular else []

    def unlike(self, told: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
        """A sentence for each site whose categories are none of the agreed ones, by site its statistics."""
        slots = self.tabular.slots if self.tabular is not None else {}
        return list(strangers(told, {name: slots[name] for name in self.names_levels}))

    def take_transformer(self, sources: Mapping[str, Any]) -> None:
        """Read notes by the site's transformer, where the study reads them by one."""
        if isinstance(self.text, TransformerText):
            self.text.transformer = sources.get("transformer")

    def declared_sizes(self) -> dict[str, int]:
        """`tabular.features`, `image.channels`, `text.buckets` or `text.features`, of the parts that are used."""
        parts = {"tabular": self.tabular, "image": self.image, "text": self.text}
        used = {name: each.declared_sizes() for name, each in parts.items() if each is not None}
        return {f"{part}.{name}": size for part, sizes in used.items() for name, size in sizes.items()}

    def decode(
        self, image: Images, open_image: Callable[[str], Any], cohort: Cohort, cache: VolumeCache | None
    ) -> Pixels:
        """The images of a cohort: see `Images.read`.

        Raises ValueError where the image is all that there is to predict from, and no row has one.
        """
        pixels = image.read(open_image, cohort.accession, cache)
        if self.tabular is None and self.text is None and not (pixels.index >= 0).any():
            raise ValueError(
                "the table names no image, and there is nothing else to predict from: see dataset.records.accession"
            )
        return pixels

    def remarks(self, cohort: Cohort) -> list[Remark]:
        """What is to know of a cohort: undeclared categories, which count as missing, and notes of a wrong encoding."""
        found = self.tabular.remarks(cohort.table) if self.tabular is not None else []
        if self.text is not None:
            garbled = [bool(LOST.search(str(each))) for each in cohort.table[self.text.column]]
            found += [Remark(GARBLED, f"column {self.text.column} ({GARBLED})", np.array(garbled, bool))]
        return found

    def texts(self, cohort: Cohort) -> list[Any]:
        """The text of each row, as the part reads it; none where the study does not use any."""
        return [] if self.text is None else self.text.read(cohort.table[self.text.column])

    def there(self, cohort: Cohort, pixels: Pixels | None, texts: list[Any]) -> tuple[dict[str, np.ndarray], Remark]:
        """By part that the study uses which rows have it, bool [rows], and those that have nothing to predict from.

        Raises ValueError where that is all of them, and for values that are no numbers, before anything is trained.
        """
        parts = {"image": pixels.index >= 0} if pixels is not None else {}
        if self.tabular is not None:
            parts["tabular"] = self.tabular.read(cohort.table).notna().any(axis=1).to_numpy()
        if self.text is not None:
            parts["text"] = np.array([each is not None for each in texts], bool)
        if not (some := np.logical_or.reduce([*parts.values()])).any():
            columns = ", ".join(self.columns)
            raise ValueError(
                f"no row has anything to predict from ({columns}): map the site's own columns, give their source, or "
                "leave the site out"
            )
        return parts, Remark(NOTHING, NOTHING, ~some)

    def describe(self, told: Description, cohort: Cohort, pixels: Pixels | None, texts: list[Any]) -> None:
        """Say of each column, and of how many persons image and text are there; `texts` as the part reads them."""
        if self.tabular is not None:
            self.tabular.describe(told, cohort.table)
        if pixels is not None:
            told.images(pixels.rows())
        if self.text is not None:
            told.known("text", np.array([each is not None for each in texts]))

    def statistics(
        self, cohort: Cohort, texts: list[Any], train: np.ndarray, minimum_cell: int
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Sums over the training rows (`train` bool [rows]), and on how many persons those rest that not all share."""
        person = cohort.person[train]
        arrays, behind = {}, {}
        if self.tabular is not None:
            arrays, behind = self.tabular.statistics(self.tabular.read(cohort.table)[train], person, minimum_cell)
        if self.text is not None:
            used = [each for each, trains in zip(texts, train, strict=True) if trains]
            arrays |= self.text.statistics(used, person, minimum_cell)
        return arrays, behind

    def adjusted(self, merged: Mapping[str, np.ndarray], cohort: Cohort, train: np.ndarray) -> dict[str, np.ndarray]:
        """Moments of the training rows as what scales them finds them: see `Tabular.adjusted`."""
        return {} if self.tabular is None else self.tabular.adjusted(self.tabular.read(cohort.table)[train], merged)

    def agreed(
        self, merged: Mapping[str, np.ndarray], cohort: Cohort, texts: list[Any], train: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What a batch holds of tables and notes, prepared by the merged statistics of all sites."""
        arrays: dict[str, np.ndarray] = {}
        if self.tabular is not None:
            self.tabular.agree(merged)
            arrays |= self.tabular.encode(self.tabular.read(cohort.table), train)
        if self.text is not None:
            self.text.agree(merged)
            arrays |= self.text.encode(texts)
        return arrays
