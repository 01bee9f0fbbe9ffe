"""The CT of a study of a site's table: which folder or file it is, and its volume."""

from __future__ import annotations

from pathlib import Path

from datamodules.dicom import Decoder, Reason, Unreadable, Volume, read_series
from datamodules.dicom.references import read_references
from datamodules.dicom.series import Fits
from datamodules.nifti import NIFTI_SUFFIXES, read_nifti_volume


def image_path(root: Path, accession: str) -> Path:
    """`dicom/<accession>/` below a site's root, which may be absent.

    Where there is no folder `dicom`, what `images/` has of that name, as `dataset=levels` and `dataset=segmentation`
    read it: a folder of DICOM or a NIfTI. Raises `Unreadable`: AMBIGUOUS_NAME for two of them.
    """
    if (root / "dicom").is_dir():
        return root / "dicom" / accession
    plain = root / "images" / accession
    found = [path for ending in ("", *NIFTI_SUFFIXES) if (path := plain.with_name(f"{accession}{ending}")).exists()]
    if len(found) > 1:
        raise Unreadable(Reason.AMBIGUOUS_NAME)
    return found[0] if found else plain


def read_ct(image: Path, decoder: Decoder, labels: Path | None = None, fits: Fits | None = None) -> Volume:
    """The volume of a folder of DICOM, of the series that the labels are of, or of a NIfTI.

    Raises `Unreadable`: NO_DICOM for a file of another form, else as `read_series` and `read_nifti_volume`.
    """
    if image.name.lower().endswith(NIFTI_SUFFIXES) and not image.is_dir():
        return read_nifti_volume(image, "CT")
    if image.is_file():
        raise Unreadable(Reason.NO_DICOM)
    if labels is None:
        return read_series(image, decoder=decoder)
    return read_series(image, decoder=decoder, references=read_references(labels), fits=fits)
