"""Decoded images of a cohort, in bounded memory, augmented when they are taken."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.dicom.remarks import Noted, SeriesRead
from datamodules.dicom.remarks import Remark as OfSeries
from datamodules.intensities import thumbnails
from datamodules.remarks import Remark


class Pixels:
    """Decoded images of a cohort.

    Args:
        kept: float16 [images, c, ...], 0 to 1 within the study's window.
        index: int64 [rows], which of them is a row's; -1 where it has none.
        unread: by accession, why an image counts as missing.
        series: by accession, which series was read (`dicom.remarks.noted`); of DICOM volumes alone.
        transforms: random ones of [c, ...] tensors, for training alone.
        mean, deviation: the network sees (value - mean) / deviation.
    """

    def __init__(
        self,
        kept: np.ndarray,
        index: np.ndarray,
        unread: Mapping[str, str],
        *,
        series: Mapping[str, Noted],
        transforms: Sequence[Callable[[Tensor], Tensor]],
        mean: float,
        deviation: float,
    ) -> None:
        self.kept, self.index, self.unread, self.series = kept, index, unread, series
        self.transforms, self.mean, self.deviation = transforms, mean, deviation

    def rows(self) -> list[np.ndarray | None]:
        """The image of each row, float16 [c, ...], 0 to 1 within the window; None where it has none."""
        return [self.kept[found] if found >= 0 else None for found in self.index]

    def remarks(self, accessions: Sequence[str | None]) -> list[Remark]:
        """Images that count as missing, by reason; and what is to know of the series that were read."""
        why = np.array([self.unread.get(each or "", "") for each in accessions], dtype=object)
        missing = [Remark(reason, reason, why == reason) for reason in dict.fromkeys(self.unread.values())]
        counts = np.zeros((1 + len(OfSeries), len(accessions)), np.int64)
        row_of = {accession: row for row, accession in reversed([*enumerate(accessions)])}  # a study counts once
        for accession, found in self.series.items():
            counts[:, row_of[accession]] = found
        return missing + [Remark(each.value, each.value, counts[1 + k]) for k, each in enumerate(OfSeries)]

    def series_lines(self) -> list[str]:
        """For the site's own log: which series was read of a study that has several, and what lay beside it."""
        read = SeriesRead()
        for accession, found in self.series.items():
            read.add(accession, 0, found)
        return [f"{accession}: {line}" for accession, line in read.lines]

    def thumbnails(self, accessions: Sequence[str | None], number: int) -> list[tuple[str, str, np.ndarray | None]]:
        """For the site's own eyes, by accession: see `datamodules.intensities.thumbnails`."""
        return thumbnails(self.rows(), accessions, self.unread.items(), number)

    def take(self, rows: np.ndarray, *, augmented: bool) -> dict[str, Tensor]:
        """`image` and `image_present` of some rows."""
        found = self.index[rows]
        present = torch.from_numpy((found >= 0).astype(np.float32))
        shape = (len(rows), *self.kept.shape[1:])
        values = torch.zeros(shape)
        if (found >= 0).any():
            values[found >= 0] = torch.from_numpy(self.kept[found[found >= 0]].astype(np.float32))
        if augmented and self.transforms:
            for row in np.flatnonzero(found >= 0):
                values[row] = self._augmented(values[row])
        values = (values - self.mean) / self.deviation
        return {"image": values * present.view(-1, *[1] * (len(shape) - 1)), "image_present": present}

    def _augmented(self, image: Tensor) -> Tensor:
        for transform in self.transforms:
            if hasattr(transform, "set_random_state"):
                # MONAI's transforms hold generators of their own: seeded from torch's, which the caller has seeded.
                transform.set_random_state(seed=int(torch.randint(2**31, ())))
            image = torch.as_tensor(transform(image)).as_subclass(Tensor)
        return image


def room(number: int, shape: Sequence[int], memory_mb: int) -> np.ndarray:
    """Room for images, float16: in memory, or beyond the bound in a file without a name that ends with the process."""
    wanted = (number, *shape)
    needed = 2 * int(np.prod(wanted))
    if needed <= memory_mb * 2**20:
        return np.zeros(wanted, np.float16)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the array holds it open
    file.truncate(needed)
    return np.memmap(file, np.float16, "r+", shape=wanted)
