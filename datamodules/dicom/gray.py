"""From the stored pixels of a film to gray levels as its makers want it shown (DICOM PS3.3, C.11.1 and C.11.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from datamodules.dicom.files import malformed_is
from datamodules.dicom.rescale import Rescale
from datamodules.dicom.volume import Reason, Unreadable

Floats = NDArray[np.float64]

# Share of the pixels beyond each end of the gray range where the file gives no window: more than hot pixels and one
# dead line of a film of a thousand, less than a marker of lead.
BEYOND = 0.001
# A film of which more is black or white through its window was not made to be seen through it: a placeholder.
MOST_ENDS, _END = 0.9, 1e-6
SHAPES = {"MONOCHROME1": ("", "INVERSE"), "MONOCHROME2": ("", "IDENTITY")}  # by the standard, of PresentationLUTShape


def gray_levels(stored: NDArray[Any], data: FileDataset) -> NDArray[np.float32]:
    """The film as float32 [rows, columns], 0 dark to 1 bright; padding is dark and sets no range.

    The modality's rescaling or table, then the film's table or first window; without a usable one the range of the
    pixels but for `BEYOND` at each end. A window without a width is none. Raises `Unreadable`: AMBIGUOUS_POLARITY,
    INVALID_NUMBER, INVALID_DISPLAY.
    """
    inverse = _inverse(data)
    with malformed_is(Reason.INVALID_NUMBER):
        slope, intercept = _number(data, "RescaleSlope") or 1.0, _number(data, "RescaleIntercept") or 0.0
        window = _number(data, "WindowCenter"), _number(data, "WindowWidth")
        padding = Rescale.of(data).padding
    padded = np.zeros(stored.shape, bool) if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    modality, voi = _table(data, "ModalityLUTSequence"), _table(data, "VOILUTSequence")
    values = stored * slope + intercept if modality is None else _looked_up(stored, *modality)
    if voi is not None:
        values = _looked_up(values, *voi)
        levels = _between(values, float(voi[1].min()), float(voi[1].max()))
    elif window[0] is not None and window[1] is not None and window[1] > 0:
        levels = _windowed(values, window[0], window[1], str(data.get("VOILUTFunction") or "LINEAR").strip().upper())
        if _is_flat(levels[~padded]) and not _is_flat(_between(values, *_range(values[~padded]))[~padded]):
            raise Unreadable(Reason.INVALID_DISPLAY)
    else:
        levels = _between(values, *_range(values[~padded]))
    levels = 1 - levels if inverse else levels
    return np.where(padded, 0.0, levels).astype(np.float32)


def _is_flat(levels: Floats) -> bool:
    """Whether nearly all levels, 0 to 1, are of one end or the other."""
    return int(((levels <= _END) | (levels >= 1 - _END)).sum()) > MOST_ENDS * levels.size


def _inverse(data: Dataset) -> bool:
    """Whether the lowest value is white. Raises `Unreadable`: AMBIGUOUS_POLARITY where the file says both."""
    with malformed_is(Reason.CORRUPT):
        photometric = str(data.get("PhotometricInterpretation", "")).strip()
        shape = str(data.get("PresentationLUTShape") or "").strip().upper()
    if shape not in SHAPES[photometric]:
        raise Unreadable(Reason.AMBIGUOUS_POLARITY)
    return photometric == "MONOCHROME1"


def _number(data: Dataset, name: str) -> float | None:
    """The first of the numbers, None where there is none or it is not finite. Raises as pydicom, ValueError too."""
    value = data.get(name)
    first = value if value is None or isinstance(value, str | int | float) else next(iter(value), None)
    return float(first) if first not in (None, "") and np.isfinite(float(first)) else None


def _table(data: FileDataset, name: str) -> tuple[int, NDArray[Any]] | None:
    """The first table of a sequence: the value of its first entry, and its entries; None without one."""
    with malformed_is(Reason.INVALID_DISPLAY):
        if not data.get(name):
            return None
        item = data.get(name)[0]
        entries, first, bits = (int(each) for each in item.LUTDescriptor)
        entries, found = entries % 2**16 or 2**16, item.LUTData
        if isinstance(found, bytes):
            little = data.file_meta.TransferSyntaxUID.is_little_endian
            packed = bits <= 8 and len(found) < 2 * entries  # two entries in a word
            found = np.frombuffer(found, "u1" if packed else "<u2" if little else ">u2")
        table = np.atleast_1d(np.asarray(found))[:entries]
    if len(table) < entries:
        raise Unreadable(Reason.INVALID_DISPLAY)
    return first, table


def _looked_up(values: NDArray[Any], first: int, table: NDArray[Any]) -> Floats:
    """Values by a table whose first entry is of the value `first`; beyond its ends, its ends."""
    if first >= 2**15 and values.min() < 0:  # a negative number, written as an unsigned one
        first -= 2**16
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    found: Floats = table[index].astype(np.float64)
    return found


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """Lowest and highest value but for `BEYOND` of them at each end."""
    if not values.size:
        return 0.0, 0.0
    ends = np.quantile(values, (BEYOND, 1 - BEYOND), method="nearest")
    return float(ends[0]), float(ends[1])


def _between(values: NDArray[Any], low: float, high: float) -> Floats:
    """0 at `low` to 1 at `high`; 0 everywhere without a range."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)


def _windowed(values: NDArray[Any], center: float, width: float, function: str) -> Floats:
    """0 to 1 through a window, by its function (C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        levels: Floats = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return levels
    if function == "LINEAR" and width > 1:
        return _between(values, center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)
    if function == "LINEAR":  # a threshold
        return (values > center - 0.5).astype(np.float64)
    if function != "LINEAR_EXACT":
        raise Unreadable(Reason.INVALID_DISPLAY)
    return _between(values, center - width / 2, center + width / 2)
