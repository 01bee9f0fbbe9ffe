"""Scans without labels, read one by one for a model that marks structures, and masks on the files' own grid."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from torch import Tensor

from datamodules.ct.planes import Skip
from datamodules.dicom import Decoder, Reason, Unreadable, Volume
from datamodules.dicom.instances import headers_of
from datamodules.segmentation.cohort import ScansOfSite
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.grid import STANDARD, back, mapping, resampled
from datamodules.segmentation.intensity import Intensity

Opener = Callable[[str], Any]


@dataclass(frozen=True)
class Study:
    """A study to be marked.

    - `reason`: why it was not read; empty where it was, and then the others are there.
    - `batch`: `image` float32 [1, C, *S], `mapping` float32 [1, D, 2], `spacing_mm` float32 [1, D], as a test batch has
      them, and `shape` int64 [1, D] of the own grid.
    - `voxel_ml`: volume of a voxel of the own grid, mL; None for pictures, which have pixels alone.
    - `volume`: None for pictures. `path`: the folder of DICOM, or the file.
    """

    person: str
    accession: str
    reason: str = ""
    batch: dict[str, Tensor] | None = None
    voxel_ml: float | None = None
    orientation: str = STANDARD
    volume: Volume | None = None
    path: Path = Path()

    @property
    def is_dicom(self) -> bool:
        """Whether a mask belongs to a series, as a DICOM SEG."""
        return self.volume is not None and bool(self.volume.sop_instance_uids)

    def standing(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask on the grid of the batch's `shape` as (slice, row, column) of `volume`; of a picture as it is."""
        return mask if self.volume is None else np.ascontiguousarray(back(mask, self.orientation))

    def images(self) -> list[Dataset]:
        """The header of the image of each slice. Raises `Unreadable` where a file is no longer there."""
        assert self.volume is not None
        return headers_of(self.path, self.volume.sop_instance_uids)

    def file(self, mask: NDArray[np.uint8]) -> tuple[str, bytes]:
        """A mask of `standing` as a file's ending and content: NIfTI with the axes and the affine of the image's own,
        or PNG, upright where a camera says how it was held."""
        if self.volume is None:
            content = io.BytesIO()
            Image.fromarray(mask).save(content, "png")
            return ".png", content.getvalue()
        own = nib.load(self.path)
        turn = ornt_transform(axcodes2ornt(tuple(STANDARD)), io_orientation(own.affine))
        made = type(own)(apply_orientation(mask, turn), own.affine)
        made.header.set_xyzt_units("mm")
        return ".nii.gz", gzip.compress(made.to_bytes(), mtime=0)


@dataclass(frozen=True)
class Unlabeled:
    """Reads a site's studies without labels; `form` and `intensity` as of the training, after what was agreed."""

    form: Volumes | Pictures
    intensity: Intensity

    def studies(self, site: ScansOfSite) -> Iterator[Study]:
        """Each row of the table, read when it is asked for, or why it was not."""
        cohort = site.cohort
        with Decoder() as decoder:
            for row, why in enumerate(site.left_out()):
                person = (cohort.names[row] if len(cohort.names) else None) or ""
                accession = cohort.accession[row] or ""
                try:
                    if why is not None:
                        raise Skip(why)
                    yield self._read(person, accession, site.opener, decoder)
                except (Skip, Unreadable) as skip:
                    yield Study(person, accession, str(skip))

    def _read(self, person: str, accession: str, opener: Opener, decoder: Decoder) -> Study:
        try:
            path = Path(opener(accession))
        except FileNotFoundError:
            raise Unreadable(Reason.NO_IMAGE) from None
        values, spacing, volume = self.form.image(path, decoder)
        shape, to_grid = mapping(values.shape[1:], spacing, self.form.grid(spacing))
        kept = self.intensity.kept(np.stack([resampled(channel, to_grid, shape) for channel in values]))
        batch = {
            "image": torch.from_numpy(self.intensity.seen(kept))[None],
            "mapping": torch.from_numpy(to_grid.astype(np.float32))[None],
            "spacing_mm": torch.tensor([spacing], dtype=torch.float32),
            "shape": torch.tensor([values.shape[1:]]),
        }
        voxel = float(np.prod(spacing)) / 1000 if volume is not None else None
        turned = self.form.orientation if isinstance(self.form, Volumes) else STANDARD
        return Study(person, accession, "", batch, voxel, turned, volume, path)
