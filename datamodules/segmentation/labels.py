"""The declared structures of a study in a site's label files, as one class map."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.ct.planes import Skip
from datamodules.dicom import Reason, Unreadable, Volume
from datamodules.dicom.files import check_file, regular_files
from datamodules.image_files import stem
from datamodules.labels import labels_fit, one_structure, read_labels
from datamodules.nifti import NIFTI_SUFFIXES
from datamodules.pictures import MOST_PIXELS

PICTURES = (".png", ".tif", ".tiff", ".bmp")  # JPEG changes numbers
ENDINGS = (".dcm", *NIFTI_SUFFIXES, *PICTURES, "")
MASK_BYTES = 2**29  # of masks that are in memory at once: two structures of 512 x 512 x 1,000
NO_NUMBER = "the site's columns must give a whole number for each structure of a label file of numbers, or null"
NO_NAME = "the site's columns must give a name for each structure of labels of this form, or null; in a SEG a code too"
NO_STRUCTURE = "the labels hold none of the structures that the site says it labels"
STRETCHED = {"L;2": np.uint8(85), "L;4": np.uint8(17)}  # what Pillow makes 0 to 255 of, by its raw mode, and how
UNFIT = (NO_NUMBER, NO_NAME, NO_STRUCTURE)

Own = str | int | tuple[str, str]  # a name, a number, or a coded term: scheme and value
Marked = tuple[NDArray[np.uint8], NDArray[np.bool_]]


class Structures:
    """Classes 1, 2, ... of a study, by what a site calls them.

    Where masks overlap, the later structure goes over the earlier. A structure that the site does not label (null), or
    of which a SEG or a folder of masks holds nothing, is not labeled: its voxels are 0, and that is not background. In
    a file of numbers it is labeled, and empty where its number does not occur.

    Args:
        names: in order of the classes.
        columns: by name, what the site calls it where it differs: a name (of a segment or a file), a whole number (in
            a file of numbers), `{code: SCT, value: ...}` (type of a segment), or None where it does not label it.

    Raises ValueError for what is none of these, and for two structures that are called alike.
    """

    def __init__(self, names: Sequence[str], columns: Mapping[str, Any]) -> None:
        if not 1 <= len(names) == len(set(names)) <= 255:
            raise ValueError("dataset.structures: 1 to 255 different names")
        self.names = list(names)
        found = {name: _own(name, columns.get(name, name)) for name in names}
        self.own: dict[str, Own] = {name: own for name, own in found.items() if own is not None}
        if not self.own:
            raise ValueError("columns: the site labels none of the study's structures, all of them are null")
        called = [str(own) for own in self.own.values()]
        if twice := [name for name, own in self.own.items() if called.count(str(own)) > 1]:
            raise ValueError(f"columns: {twice[0]} and {twice[1]} are the same of the site's own, {self.own[twice[0]]}")

    @property
    def unlabeled(self) -> list[str]:
        """What the site does not label."""
        return [name for name in self.names if name not in self.own]

    def of_volume(self, path: Path, volume: Volume) -> Marked:
        """uint8 (slice, row, column), and bool [structures], which are labeled. Raises `Skip` and as `read_labels`."""
        label, labeled = np.zeros(volume.voxels.shape, np.uint8), np.zeros(len(self.names), bool)
        numbers = self._numbers() if path.name.lower().endswith(NIFTI_SUFFIXES) else None
        names, codes = ({}, {}) if numbers is not None else self._called(path)
        at_once = max(MASK_BYTES // max(label.size, 1), 1)
        for part in _parts(list(self.own), at_once):
            if numbers is not None:
                wanted = {number: name for name, number in numbers.items() if name in part}
                masks = read_labels(path, volume, wanted)
            else:
                found = read_labels(path, volume, {k: names[name] for k, name in enumerate(part)}, codes)
                masks = {name: found[names[name]] for name in part if names[name] in found}
            for name in masks:
                self._put(name, masks[name], label, labeled)
        return _some(label, labeled)

    def of_picture(self, path: Path, shape: tuple[int, ...]) -> Marked:
        """uint8 [h, w], and bool [structures]. Raises `Skip`, `Unreadable`: LABELS_UNREADABLE, LABELS_MISMATCH."""
        label, labeled = np.zeros(shape, np.uint8), np.zeros(len(self.names), bool)
        if path.is_dir():
            names, _ = self._called(path)
            files = [each for each in regular_files(path) if each.suffix.lower() in PICTURES and each.parent == path]
            masks = {}
            for name in self.own:
                mine = [each for each in files if stem(each.name) == names[name]]
                if len(mine) > 1:
                    raise Unreadable(Reason.SEVERAL_LABELS)
                if mine:
                    masks[name] = one_structure(_on_grid(mine[0], shape))
        else:
            ids = _on_grid(path, shape)
            masks = {name: ids == number for name, number in self._numbers().items()}
        for name in masks:
            self._put(name, masks[name], label, labeled)
        return _some(label, labeled)

    def fit(self, path: Path, volume: Volume) -> bool:
        """Whether labels lie on the grid of a volume. Raises `Skip`, and `Unreadable` as `labels_fit`."""
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return labels_fit(path, volume)
        return labels_fit(path, volume, dict(enumerate(self._called(path)[0].values())))

    def _put(self, name: str, mask: NDArray[np.bool_], label: NDArray[np.uint8], labeled: NDArray[np.bool_]) -> None:
        number = self.names.index(name)
        label[mask], labeled[number] = number + 1, True

    def _numbers(self) -> dict[str, int]:
        """By name, its number in a file of numbers. Raises `Skip`: NO_NUMBER."""
        if any(not isinstance(own, int) or own < 1 for own in self.own.values()):
            raise Skip(NO_NUMBER)
        return {name: own for name, own in self.own.items() if isinstance(own, int)}

    def _called(self, path: Path) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
        """By name, what labels with names call it; and of the coded ones, what their segments are then called."""
        coded = {own: " ".join(own) for own in self.own.values() if isinstance(own, tuple)}
        if any(isinstance(own, int) for own in self.own.values()) or (coded and path.is_dir()):
            raise Skip(NO_NAME)
        return {name: coded[own] if isinstance(own, tuple) else str(own) for name, own in self.own.items()}, coded


def _own(name: str, given: Any) -> Own | None:
    if isinstance(given, Mapping):
        if set(given) != {"code", "value"}:
            raise ValueError(
                f"columns.{name}: a coded term holds code, its scheme, and value, as {{code: SCT, value: 78961009}}"
            )
        return str(given["code"]), str(given["value"])
    if given is None or (isinstance(given, str | int) and not isinstance(given, bool)):
        return given
    raise ValueError(f"columns.{name}: {given!r} must be a name, a whole number, a coded term, or null")


def _parts(names: list[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]


def _some(label: NDArray[np.uint8], labeled: NDArray[np.bool_]) -> Marked:
    if not labeled.any():
        raise Skip(NO_STRUCTURE)
    return label, labeled


def _on_grid(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    found = picture_numbers(path)
    if found.shape != shape:
        raise Unreadable(Reason.LABELS_MISMATCH)
    return found


def picture_numbers(path: Path) -> NDArray[Any]:
    """The numbers that a picture stores, [h, w]: of a palette its indices, of black and white 0 and 1, of 2 or 4 bits
    0 to 3 or 15.

    Raises `Unreadable`: TOO_LARGE, SEVERAL_PAGES, LABELS_UNREADABLE (also for colors) and those of `check_file`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_file(path)
    try:
        with Image.open(path, formats=("PNG", "TIFF", "BMP")) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise Unreadable(Reason.TOO_LARGE)
            if opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1:
                raise Unreadable(Reason.SEVERAL_PAGES)
            if opened.mode not in ("1", "L", "P", "I;16", "I;16B"):
                raise Unreadable(Reason.LABELS_UNREADABLE)
            raw = {kind if isinstance(kind, str) else kind[0] for *_, kind in opened.tile}
            found = np.asarray(ImageOps.exif_transpose(opened))
            if stretched := raw & {*STRETCHED}:
                return found // STRETCHED[stretched.pop()]
            if any(kind.startswith(tuple(STRETCHED)) for kind in raw):  # white is 0, or the bits are in another order
                raise Unreadable(Reason.LABELS_UNREADABLE)
            return found.astype(np.uint8) if found.dtype == bool else found
    except Unreadable:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, struct.error):
        raise Unreadable(Reason.LABELS_UNREADABLE) from None  # Pillow may quote the path
