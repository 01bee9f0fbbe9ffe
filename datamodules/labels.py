"""Masks of labelled structures on the grid of a CT volume, from DICOM SEG or NIfTI.

A mask that lies elsewhere is refused, never resampled: an area of muscle is counted in whole voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom import Reason, Unreadable, Volume
from datamodules.dicom.files import check_file, regular_files
from datamodules.dicom.segmentation import GRID_TOLERANCE, Code, lies_on, read_segmentation
from datamodules.dicom.volume import MAX_MASK_BYTES
from datamodules.nifti import NIFTI_SUFFIXES, read_nifti

# A label that is stored as float, or by slope and intercept, may be off its whole number by rounding. One that was
# resampled between two structures is off by far more.
WHOLE_TOLERANCE = 1e-3


def read_labels(
    path: Path, volume: Volume, names: Mapping[int, str] | None = None, codes: Mapping[Code, str] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Masks by structure, bool (slice, row, column), on the grid of `volume`.

    - DICOM SEG (any other suffix): named by segment label, never by number, since numbers differ from file to file.
      With `names`, only the labels that are among its values. A structure that is not segmented in the file is absent.
      A segment whose type is among `codes` (scheme and value) is called as these say instead of by its label.
      Frames are placed by position and orientation; a frame that refers to an image of the volume must lie on it.
    - NIfTI (.nii, .nii.gz), each voxel within WHOLE_TOLERANCE of a whole number: `names` gives the structure of each
      id, and each of these is in the result, empty where the id does not occur; other ids are background. Without
      `names`: the id in decimal, for each that occurs.
    - A folder: a NIfTI for each structure, named by it, 0 outside and one other number inside. With `names`, only the
      files that are among its values. A structure without a file is absent.
    Ids or segments of the same name are united.

    Raises `Unreadable`: LABELS_UNREADABLE, LABELS_MISMATCH (another grid, another frame of reference), TOO_LARGE,
    FOLDER_MISSING, OUTSIDE_FOLDER, SEVERAL_LABELS, of a NIfTI SEVERAL_VOLUMES, NOT_GRAYSCALE, COMPLEX,
    NIFTI_PAIR and SCALE_NOT_FINITE, of a SEG FRACTIONS, and of its pixel data TRUNCATED, UNSUPPORTED_COMPRESSION,
    UNDECODABLE.
    """
    wanted = None if names is None else frozenset(names.values())
    if path.is_dir():
        return _read_folder(path, volume, wanted)
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        check_file(path)
        return read_segmentation(path, volume, wanted, codes or {})
    ids = _read_ids(path, volume)
    if names is None:
        names = {int(value): str(int(value)) for value in np.unique(ids) if value != 0}
    if len(set(names.values())) * ids.size > MAX_MASK_BYTES:
        raise Unreadable(Reason.TOO_LARGE)
    return {name: np.isin(ids, [key for key in names if names[key] == name]) for name in dict.fromkeys(names.values())}


def labels_fit(path: Path, volume: Volume, names: Mapping[int, str] | None = None) -> bool:
    """Whether all labels lie on the grid of a volume, whose voxels are not looked at; arguments as of `read_labels`.

    Raises `Unreadable` as `read_labels`, but LABELS_MISMATCH.
    """
    if path.is_dir():
        paths = list(_files_of(path, None if names is None else frozenset(names.values())).values())
    elif path.name.lower().endswith(NIFTI_SUFFIXES):
        paths = [path]
    else:
        check_file(path)
        return lies_on(path, volume)
    for each in paths:
        check_file(each)
        grid, affine = read_nifti(each, Reason.LABELS_UNREADABLE, header_alone=True)
        if not _same_grid(grid.shape, affine, volume):
            return False
    return True


def _read_folder(folder: Path, volume: Volume, wanted: Set[str] | None) -> dict[str, NDArray[np.bool_]]:
    """Masks by the names of their files, of those in `wanted` or all."""
    files = _files_of(folder, wanted)
    if len(files) * volume.voxels.size > MAX_MASK_BYTES:
        raise Unreadable(Reason.TOO_LARGE)
    return {name: one_structure(_read_ids(path, volume)) for name, path in files.items()}


def _files_of(folder: Path, wanted: Set[str] | None) -> dict[str, Path]:
    """The NIfTI files of a folder by their names without ending, of those in `wanted` or all."""
    if folder.is_symlink():
        raise Unreadable(Reason.OUTSIDE_FOLDER)
    files: dict[str, Path] = {}
    for path in regular_files(folder):
        ending = next((each for each in NIFTI_SUFFIXES if path.name.lower().endswith(each)), None)
        name = path.name[: -len(ending)] if ending and path.parent == folder else None
        if name is None or (wanted is not None and name not in wanted):
            continue
        if name in files:
            raise Unreadable(Reason.SEVERAL_LABELS)
        files[name] = path
    return files


def one_structure(ids: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a file of one structure marks it. Raises `Unreadable`: LABELS_UNREADABLE where it holds more than one."""
    marked: NDArray[np.bool_] = ids != 0
    if marked.any() and not np.array_equal(marked, ids == ids.max()):
        raise Unreadable(Reason.LABELS_UNREADABLE)
    return marked


def _read_ids(path: Path, volume: Volume) -> NDArray[np.generic]:
    """The whole numbers of a NIfTI on the grid of the volume."""
    check_file(path)
    ids, affine = read_nifti(path, Reason.LABELS_UNREADABLE)
    if not _same_grid(ids.shape, affine, volume):
        raise Unreadable(Reason.LABELS_MISMATCH)
    return _whole(ids)


def _whole(ids: NDArray[np.generic]) -> NDArray[np.generic]:
    """The whole numbers that are meant. Raises `Unreadable`: LABELS_UNREADABLE where any voxel is between two, or below
    0 as those of a CT."""
    if ids.min() < -WHOLE_TOLERANCE:
        raise Unreadable(Reason.LABELS_UNREADABLE)
    if ids.dtype.kind != "f":
        return ids
    near = np.rint(ids)
    if not np.isfinite(near).all() or np.abs(ids - near).max() > WHOLE_TOLERANCE:
        raise Unreadable(Reason.LABELS_UNREADABLE)
    return near


def _same_grid(shape: tuple[int, ...], affine: NDArray[np.float64], volume: Volume) -> bool:
    """Whether the corners of the volume lie on the same points under `affine`, to GRID_TOLERANCE of a voxel."""
    if shape != volume.voxels.shape:
        return False
    slices, rows, columns = volume.voxels.shape
    corners = np.array([(c, r, s, 1) for c in (0, columns - 1) for r in (0, rows - 1) for s in (0, slices - 1)], float)
    apart = np.linalg.inv(volume.affine) @ affine @ corners.T - corners.T
    return bool(np.abs(apart).max() <= GRID_TOLERANCE)
