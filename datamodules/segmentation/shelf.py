"""Arrays of many studies in one file, of which no more is in memory than what is looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNED = 64  # bytes at which an array begins


@dataclass(frozen=True)
class Place:
    """Where an array lies."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Shelf:
    """A file without a name, which ends with the process; one file and one map, however many arrays it holds.

    Args:
        folder: of the file; None for the temporary folder (TMPDIR).
    """

    def __init__(self, folder: Path | None) -> None:
        self._file, self._end = tempfile.TemporaryFile(dir=folder), 0  # noqa: SIM115 - it stays open
        self._map: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def put(self, array: NDArray[Any]) -> Place:
        """Write an array to the end."""
        place = Place(-(-self._end // ALIGNED) * ALIGNED, array.dtype, array.shape)
        self._file.seek(place.offset)
        self._file.write(memoryview(np.ascontiguousarray(array).reshape(-1)).cast("B"))
        self._end = place.offset + array.nbytes
        return place

    def get(self, place: Place) -> NDArray[Any]:
        """The array, mapped from the file: what is read of it is read when it is used."""
        if len(self._map) < self._end:
            self._file.flush()
            self._map = np.memmap(self._file, np.uint8, "r", shape=(self._end,))
        size = place.dtype.itemsize * int(np.prod(place.shape))
        return self._map[place.offset : place.offset + size].view(place.dtype).reshape(place.shape)


def middle(shape: Sequence[int], size: Sequence[int]) -> list[int]:
    """Where a smaller array begins in the middle of a larger one, 0 where it is not smaller."""
    return [max(wide - narrow, 0) // 2 for narrow, wide in zip(shape, size, strict=True)]
