"""NIfTI files: their values in the standard orientation, and CT from them.

A file says what scale and which place it gives its voxels; where it says so in two ways, or in none, it is refused.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from datamodules.dicom import Reason, Unreadable, Volume
from datamodules.dicom.files import check_file
from datamodules.dicom.geometry import MAX_OBLIQUE_DEGREES, MAX_TILT_DEGREES
from datamodules.dicom.hounsfield import LEAST_MODE, METAL, MOST_MODE, check_hounsfield
from datamodules.dicom.padding import undeclared_padding
from datamodules.dicom.rescale import is_doubtful
from datamodules.dicom.segmentation import GRID_TOLERANCE
from datamodules.dicom.volume import MAX_VOXELS

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
# NIfTI's axes are right, anterior, superior; the patient's in DICOM are left, posterior, superior.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# HU from the lowest to the highest value: of any scan the noise alone is wider.
NARROWEST = 20.0
_LONGEST_HEADER = 540  # bytes, of NIfTI-2
# Of values that are HU already this share and more is air.
_AIRY = 0.01
# What nibabel raises for malformed files; KeyError for a unit that no table of its own has, EOFError and zlib.error for
# a cut gzip stream.
_NIBABEL_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, OverflowError, zlib.error)


def read_nifti_volume(path: Path, modality: str = "CT") -> Volume:
    """A volume from NIfTI (.nii, .nii.gz), turned to the standard orientation (see `Volume`); the UIDs are empty.

    The file does not say of which `modality` it is. Of CT the values are HU, and what `undeclared_padding` finds is
    air; of another one they are taken as they are.

    Raises `Unreadable`: FOLDER_MISSING, OUTSIDE_FOLDER, NIFTI_PAIR, TOO_LARGE, CORRUPT, SEVERAL_VOLUMES, NOT_GRAYSCALE,
    COMPLEX, SCALE_NOT_FINITE, MISSING_GEOMETRY (neither sform nor qform), CONFLICTING_GEOMETRY, INVALID_GEOMETRY,
    GANTRY_TILT (sheared), NOT_AXIAL (oblique), GRAY_LEVELS, DOUBTFUL_SCALE, NOT_HOUNSFIELD (not finite), NOT_FINITE (of
    another modality) and of CT those of `check_hounsfield`.
    """
    check_file(path)
    if path.name.lower().endswith(PAIR_SUFFIXES):
        raise Unreadable(Reason.NIFTI_PAIR)
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise Unreadable(Reason.CORRUPT)
    values, affine = read_nifti(path, Reason.CORRUPT)
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
    return Volume(
        voxels=_in_hounsfield(path, voxels) if hounsfield else voxels,
        affine=affine,
        spacing=(float(lengths[2]), float(lengths[1]), float(lengths[0])),
        series_instance_uid="",
        frame_of_reference_uid="",
        sop_instance_uids=(),
    )


def _in_hounsfield(path: Path, voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of a CT, with air for padding. Raises `Unreadable`: GRAY_LEVELS, DOUBTFUL_SCALE, of HU as they are."""
    if _is_of_gray_levels(path, voxels):
        raise Unreadable(Reason.GRAY_LEVELS)
    if _is_scaled_twice(path):
        raise Unreadable(Reason.DOUBTFUL_SCALE)
    voxels = undeclared_padding(voxels)
    check_hounsfield(voxels, whole_picture=False)
    return voxels


def read_nifti(
    path: Path, malformed: Reason, *, header_alone: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Values (slice, row, column) in the standard orientation, and their affine as `Volume` has it. Of the header alone
    the values are 0."""
    try:
        _scale(path, malformed)
        image = nib.load(path)
        _check_form(image, malformed)
        shape, affine = image.shape, image.affine
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


def _check_form(image: object, malformed: Reason) -> None:
    """Refuse what is no single volume of real numbers, by what it is."""
    if not isinstance(image, nib.Nifti1Image):
        raise Unreadable(malformed)
    kind = image.header.get_data_dtype().kind
    if kind not in "iuf":
        raise Unreadable({"c": Reason.COMPLEX, "V": Reason.NOT_GRAYSCALE}.get(kind, malformed))
    if any(length > 1 for length in image.shape[3:]):
        raise Unreadable(Reason.SEVERAL_VOLUMES)
    if len(image.shape) < 3 or min(image.shape) < 1:
        raise Unreadable(malformed)


def _scale(path: Path, malformed: Reason = Reason.CORRUPT) -> tuple[float, float]:
    """Slope and intercept as the file has them: nibabel takes a slope that is not finite for none.

    Raises `Unreadable`: NIFTI_PAIR, SCALE_NOT_FINITE, and the given one for what is no header.
    """
    with ImageOpener(path) as file:
        start = file.read(_LONGEST_HEADER)
    known = [each for each in (nib.Nifti2Header, nib.Nifti1Header) if each.may_contain_header(start)]
    if not known:
        raise Unreadable(malformed)
    header = known[0](start[: known[0].sizeof_hdr], check=False)
    if bytes(header["magic"])[:2] == b"ni":  # of n+1 the values are in the same file
        raise Unreadable(Reason.NIFTI_PAIR)
    scale = float(header["scl_slope"]), float(header["scl_inter"])
    if not all(map(np.isfinite, scale)):
        raise Unreadable(Reason.SCALE_NOT_FINITE)
    return scale


def _is_scaled_twice(path: Path) -> bool:
    """Whether a slope that is not 1 was given to what are HU as they are stored, or is one that nobody writes."""
    image = nib.load(path)
    slope, intercept = _scale(path)
    if slope in (0.0, 1.0) or image.header.get_data_dtype().kind == "f":
        return False
    if is_doubtful(slope):
        return True
    stored = np.asanyarray(image.dataobj.get_unscaled())
    air = np.count_nonzero((stored >= LEAST_MODE) & (stored <= MOST_MODE))
    return bool(intercept == 0 and np.abs(stored).max() <= METAL and air > _AIRY * stored.size)


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
