"""Masks of labelled structures on the grid of a CT volume, from DICOM SEG or NIfTI; and CT itself from NIfTI.

A mask that lies elsewhere is refused, never resampled: an area of muscle is counted in whole voxels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Set
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from datamodules.dicom import Reason, Unreadable, Volume
from datamodules.dicom.files import check_file, regular_files
from datamodules.dicom.geometry import MAX_OBLIQUE_DEGREES, MAX_TILT_DEGREES
from datamodules.dicom.hounsfield import check_hounsfield
from datamodules.dicom.padding import undeclared_padding
from datamodules.dicom.segmentation import GRID_TOLERANCE, Code, lies_on, read_segmentation
from datamodules.dicom.volume import MAX_MASK_BYTES, MAX_VOXELS

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# NIfTI's axes are right, anterior, superior; the patient's in DICOM are left, posterior, superior.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A label that is stored as float, or by slope and intercept, may be off its whole number by rounding. One that was
# resampled between two structures is off by far more.
WHOLE_TOLERANCE = 1e-3
# HU from the lowest to the highest value: of any scan the noise alone is wider.
NARROWEST = 20.0
# What nibabel raises for malformed files; KeyError for a unit that no table of its own has, EOFError and zlib.error for
# a cut gzip stream.
_NIBABEL_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, OverflowError, zlib.error)


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
    FOLDER_MISSING, OUTSIDE_FOLDER, SEVERAL_LABELS, and of a SEG's pixel data TRUNCATED, UNSUPPORTED_COMPRESSION,
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
        grid, affine = _read_nifti(each, Reason.LABELS_UNREADABLE, header_alone=True)
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
    ids, affine = _read_nifti(path, Reason.LABELS_UNREADABLE)
    if not _same_grid(ids.shape, affine, volume):
        raise Unreadable(Reason.LABELS_MISMATCH)
    return _whole(ids)


def read_nifti_volume(path: Path, modality: str = "CT") -> Volume:
    """A volume from NIfTI (.nii, .nii.gz), turned to the standard orientation (see `Volume`); the UIDs are empty.

    The file does not say of which `modality` it is. Of CT the values are HU, and what `undeclared_padding` finds is
    air; of another one they are taken as they are.

    Raises `Unreadable`: FOLDER_MISSING, OUTSIDE_FOLDER, TOO_LARGE, CORRUPT (no 3-D image of real numbers),
    MISSING_GEOMETRY (neither sform nor qform), CONFLICTING_GEOMETRY, INVALID_GEOMETRY, GANTRY_TILT (sheared),
    NOT_AXIAL (oblique), GRAY_LEVELS, NOT_HOUNSFIELD (not finite), NOT_FINITE (of another modality) and of CT those of
    `check_hounsfield`.
    """
    check_file(path)
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise Unreadable(Reason.CORRUPT)
    values, affine = _read_nifti(path, Reason.CORRUPT)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / lengths
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    if skew > np.sin(np.radians(MAX_TILT_DEGREES)):
        raise Unreadable(Reason.GANTRY_TILT)
    if axes[2, 2] < np.cos(np.radians(MAX_OBLIQUE_DEGREES)):
        raise Unreadable(Reason.NOT_AXIAL)
    voxels = np.ascontiguousarray(values, np.float32)
    hounsfield = modality.upper() == "CT"
    if not np.isfinite(voxels).all():
        raise Unreadable(Reason.NOT_HOUNSFIELD if hounsfield else Reason.NOT_FINITE)
    if hounsfield:
        if _is_of_gray_levels(path, voxels):
            raise Unreadable(Reason.GRAY_LEVELS)
        voxels = undeclared_padding(voxels)
        check_hounsfield(voxels, whole_picture=False)
    return Volume(
        voxels=voxels,
        affine=affine,
        spacing=(float(lengths[2]), float(lengths[1]), float(lengths[0])),
        series_instance_uid="",
        frame_of_reference_uid="",
        sop_instance_uids=(),
    )


def _read_nifti(
    path: Path, malformed: Reason, *, header_alone: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Values (slice, row, column) in the standard orientation, and their affine as `Volume` has it. Of the header alone
    the values are 0."""
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image) or image.header.get_data_dtype().kind not in "iuf":
            raise Unreadable(malformed)
        shape, affine = image.shape, image.affine
        if len(shape) < 3 or any(length != 1 for length in shape[3:]) or min(shape) < 1:
            raise Unreadable(malformed)
        if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
            raise Unreadable(Reason.TOO_LARGE)
        if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
            raise Unreadable(Reason.MISSING_GEOMETRY)
        if not _one_place(image):
            raise Unreadable(Reason.CONFLICTING_GEOMETRY)
        unit = image.header.get_xyzt_units()[0]
        stored = np.broadcast_to(np.uint8(0), shape) if header_alone else np.asanyarray(image.dataobj)
        values = stored.reshape(shape[:3])
    except _NIBABEL_ERRORS:
        raise Unreadable(malformed) from None  # nibabel quotes the path
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-6 or unit not in ("mm", "unknown"):
        raise Unreadable(Reason.INVALID_GEOMETRY)
    orientation = io_orientation(affine)
    if np.isnan(orientation).any():  # an axis next to none beside the others: no direction is left for it
        raise Unreadable(Reason.INVALID_GEOMETRY)
    turn = ornt_transform(orientation, axcodes2ornt(("L", "P", "S")))
    turned = affine @ inv_ornt_aff(turn, values.shape)
    return apply_orientation(values, turn).transpose(2, 1, 0), _RAS_TO_LPS @ turned


def _one_place(image: nib.Nifti1Image) -> bool:
    """Whether sform and qform, which other readers prefer, say the same to GRID_TOLERANCE of a voxel, where both do."""
    if image.header["sform_code"] == 0 or image.header["qform_code"] == 0:
        return True
    ends = np.array([(c, r, s, 1) for c in (0, 1) for r in (0, 1) for s in (0, 1)]) * [*image.shape[:3], 1]
    apart = np.linalg.norm((image.get_sform() - image.get_qform()) @ ends.T, axis=0).max()
    return bool(apart <= GRID_TOLERANCE * min(image.header.get_zooms()[:3]))


def _is_of_gray_levels(path: Path, voxels: NDArray[np.float32]) -> bool:
    """Whether a picture was made of a CT: of 8 bits without a scale of its own, or standardized."""
    stored = nib.load(path).dataobj
    return bool((stored.dtype == np.uint8 and stored.slope == 1) or 0 < np.ptp(voxels) <= NARROWEST)


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
