"""Masks of studies that nobody has labeled, each on its image's own grid, and the volume of every structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from torch import Tensor

from models.body_composition import RESEARCH_USE
from models.body_composition.dicom_seg import segmentation
from models.body_composition.origin import Origin
from models.body_composition.report import write_private
from models.body_composition.source_headers import whole
from models.body_composition.tables import table
from models.body_composition.whole_scans import as_file, file_name

Apply = Callable[[Mapping[str, Tensor]], Tensor]
MODEL = "FLIP segmentation"


class Volume(Protocol):
    """A scan as `datamodules.dicom.Volume` has it."""

    affine: NDArray[np.float64]


class Study(Protocol):
    """A study as `datamodules.segmentation.unlabeled.Study` has it."""

    person: str
    accession: str
    reason: str
    batch: dict[str, Tensor] | None
    voxel_ml: float | None
    volume: Volume | None
    is_dicom: bool

    def standing(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask as (slice, row, column) of the volume."""

    def images(self) -> list[Dataset]:
        """The header of the image of each slice."""

    def file(self, mask: NDArray[np.uint8]) -> tuple[str, bytes]:
        """Ending and content of the mask's file."""


class Masked(Protocol):
    """A site's images as `datamodules.segmentation_images.SegmentationImages` has them."""

    def studies(self) -> Iterable[Study]:
        """Each study."""


def write_masks(
    data: Masked, folder: Path, *, structures: Sequence[str], apply: Apply, digest: str
) -> Mapping[str, int]:
    """Write a mask of each study below `masks/`, and `predictions.csv`; how many were not read, by the reason.

    A mask is a DICOM SEG for DICOM (none where nothing is marked, since a SEG has to have a segment), NIfTI for NIfTI
    and PNG for pictures, 0 background and 1 to K the structures. The table has the volume of each, mL, of pictures its
    pixels. The owner alone can read them. One study is in memory at a time.
    """
    rows = [_row(study, folder, structures, apply=apply, digest=digest) for study in data.studies()]
    columns = dict.fromkeys(name for row in rows for name in row if name not in _LAST)
    write_private(folder / "predictions.csv", table([dict.fromkeys([*columns, *_LAST], "") | row for row in rows]))
    return Counter(str(row["reason"]) for row in rows if row["reason"])


_LAST = ("reason", "model", "use")


def _row(study: Study, folder: Path, structures: Sequence[str], *, apply: Apply, digest: str) -> dict[str, Any]:
    """A study's line of the table; its mask is written."""
    about = {"reason": study.reason, "model": digest, "use": RESEARCH_USE}
    row: dict[str, Any] = {"person": study.person, "accession": study.accession, "mask": ""}
    if study.batch is None:
        return row | about
    found = apply(study.batch).cpu().numpy().astype(np.uint8)
    counts = np.bincount(found.ravel(), minlength=len(structures) + 1)[1:].tolist()
    for name, voxels in zip(structures, counts, strict=True):
        row |= {f"{name}_pixels": voxels} if study.voxel_ml is None else {f"{name}_ml": voxels * study.voxel_ml}
    mask, name = study.standing(found), f"masks/{file_name(study.accession)}"
    if not study.is_dicom:
        ending, content = study.file(mask)
        write_private(folder / f"{name}{ending}", content)
        return row | about | {"mask": f"{name}{ending}"}
    if mask.any():
        try:
            seg = _seg(study, mask, structures, digest)
        except ValueError as error:
            return row | about | {"reason": str(error)}
        write_private(folder / f"{name}.dcm", as_file(seg))
        row["mask"] = f"{name}.dcm"
    return row | about


def _seg(study: Study, mask: NDArray[np.uint8], structures: Sequence[str], digest: str) -> Any:
    """A SEG on the study's series; which code of SNOMED CT a structure has the study does not say, its name it does.

    Raises ValueError for images that it cannot be placed on."""
    assert study.volume is not None
    kind = codes.SCT.AnatomicalStructure
    segments = [(number, name, kind, None) for number, name in enumerate(structures, start=1)]
    origin = Origin(model=MODEL, version=digest[:12] or "unknown")
    images, affine = [whole(image, study.volume.affine) for image in study.images()], study.volume.affine
    return segmentation(images, mask, affine, origin, segments=segments, category=kind, label="STRUCTURES")
