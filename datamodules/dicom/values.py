"""The values of a header by keyword, as pydicom converts them, each but once for all slices that share it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

# Of these the bytes alone say what they mean: no character set, no other element. Longer ones are not kept in memory.
_PLAIN = frozenset(("CS", "DS", "IS", "UI", "US", "SS"))
_LONGEST = 256
_OWN = frozenset(("SOPInstanceUID", "ImagePositionPatient"))  # of each slice another one: not kept either

tag_of = cache(tag_for_keyword)


class Values:
    """What `get` and `in` say of a parsed header, at half the time: a conversion costs more than reading the bytes."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._raw = {int(element.tag): element for element in data.values()}

    def __contains__(self, name: str) -> bool:
        return tag_of(name) in self._raw

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default where the element is absent. Raises what pydicom raises for a malformed one."""
        element = self._raw.get(tag_of(name) or 0)
        if element is None:
            return default
        if name in _OWN or not isinstance(element, RawDataElement) or element.VR not in _PLAIN:
            return self._data.get(name, default)
        if len(element.value or b"") > _LONGEST:
            return self._data.get(name, default)
        return _converted(element.tag, element.VR, element.value, element.is_little_endian)


@lru_cache(maxsize=4096)
def _converted(tag: BaseTag, vr: str, value: bytes | None, little_endian: bool) -> Any:
    length = len(value or b"")
    return convert_raw_data_element(RawDataElement(tag, vr, length, value, 0, False, little_endian, True)).value


def several(value: object) -> Sequence[object]:
    """A DICOM value as a sequence, whatever its multiplicity in the file."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | int | float) else tuple(value)  # type: ignore[arg-type]


def number(data: Dataset | Values, name: str) -> float | None:
    """One finite number, or None if it is absent, empty or not finite."""
    values = [float(str(value)) for value in several(data.get(name)) if value not in (None, "")]
    return values[0] if len(values) == 1 and np.isfinite(values[0]) else None
