"""Frames of one bit a pixel, uncompressed, as a DICOM SEG packs them.

By the standard (PS3.5, 8.1.1) the bits of all frames follow each other without a gap, so that a frame whose pixels are
no multiple of 8 begins inside a byte. Writers exist that begin each frame on a whole byte; read as the other form, each
mask would be sheared a little more than the one before it. The length of the value tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from datamodules.dicom.files import malformed_is
from datamodules.dicom.volume import Reason, Unreadable


@dataclass(frozen=True)
class BitFrames:
    """`frames` masks of `shape` (rows, columns) in `value`, the bits of a byte from the lowest.

    A value of odd length may have one byte more, since DICOM's values are of even length. Where both forms have the
    length of the value (few frames, of nearly a multiple of 8 pixels), the standard's is read, unless bits beyond its
    end are set, as only the other form has them there.
    """

    value: NDArray[np.uint8]
    frames: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, data: FileDataset) -> BitFrames | None:
        """The frames of uncompressed pixels; None where these have more than one bit. Raises `Unreadable`: CORRUPT."""
        with malformed_is(Reason.CORRUPT):
            if int(data.BitsAllocated) != 1:
                return None
            value = np.frombuffer(data.PixelData, np.uint8)
            if not data.file_meta.TransferSyntaxUID.is_little_endian and data["PixelData"].VR == "OW":
                value = value[: len(value) // 2 * 2].view(np.uint16).byteswap().view(np.uint8)
            found = cls(value, int(data.get("NumberOfFrames") or 1), (int(data.Rows), int(data.Columns)))
        if found.pixels < 1:
            raise Unreadable(Reason.CORRUPT)
        return found

    @property
    def pixels(self) -> int:
        """Of one frame."""
        return self.shape[0] * self.shape[1]

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Some frames, 0 or 1 (row, column). Raises `Unreadable`: TRUNCATED, LABELS_UNREADABLE (neither form)."""
        apart = self._apart()
        for index in indices:
            if not 0 <= index < self.frames:
                raise Unreadable(Reason.TRUNCATED)
            first, byte = index * apart, index * apart // 8
            bits = np.unpackbits(self.value[byte : -(-(first + self.pixels) // 8)], bitorder="little")
            yield bits[first % 8 :][: self.pixels].reshape(self.shape)

    def _apart(self) -> int:
        """Bits from the begin of a frame to that of the next."""
        length, whole = len(self.value), -(-self.pixels // 8)
        packed = -(-self.frames * self.pixels // 8)
        if length < packed:
            raise Unreadable(Reason.TRUNCATED)
        as_standard, by_byte = (length in (each, each + each % 2) for each in (packed, self.frames * whole))
        if as_standard and not (by_byte and self._set_after(self.frames * self.pixels)):
            return self.pixels
        if not by_byte or self._fill_is_set(whole):
            raise Unreadable(Reason.LABELS_UNREADABLE)
        return 8 * whole

    def _set_after(self, bits: int) -> bool:
        """Whether any bit is set after the first `bits`."""
        return bool(np.unpackbits(self.value[bits // 8 :], bitorder="little")[bits % 8 :].any())

    def _fill_is_set(self, whole: int) -> bool:
        """Whether any bit is set that would be but fill, if each frame had `whole` bytes of its own."""
        last = self.value[whole - 1 :: whole][: self.frames]
        return bool(self.pixels % 8 and (last >> self.pixels % 8).any())
