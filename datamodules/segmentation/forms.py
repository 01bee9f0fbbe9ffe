"""What a study's images are: volumes with a place in the patient, or pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom import Decoder, Reason, Unreadable, Volume, read_series
from datamodules.dicom.references import read_references
from datamodules.dicom.remarks import noted
from datamodules.nifti import NIFTI_SUFFIXES, PAIR_SUFFIXES, read_nifti_volume
from datamodules.pictures import LUMINANCE, VALUES, picture
from datamodules.segmentation.grid import check_orientation, turned
from datamodules.segmentation.labels import Marked, Structures

Read = tuple[NDArray[Any], Marked, tuple[float, ...], NDArray[np.int64]]
"""Values [C, *own], labels, spacing, and which series it is (`dicom.remarks.noted`, empty where there is none)."""

Image = tuple[NDArray[Any], tuple[float, ...], Volume | None]
"""Values [C, *own], spacing, and the volume, before it was turned; None for a picture."""


class Volumes:
    """Series in DICOM, of which the one is read that the labels name or alone fit, or NIfTI.

    Args:
        spacing_mm: the grid that the network sees, mm, in the order of the axes.
        orientation: where the axes lead to, as "RAS".
        modality: "CT", whose values have to be HU, or another as DICOM writes it, such as "MR".
    """

    dimensions, channels = 3, 1

    def __init__(self, spacing_mm: Sequence[float], orientation: str = "RAS", modality: str = "CT") -> None:
        if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError("dataset.image.spacing_mm: must be three numbers above 0")
        check_orientation(orientation)
        self.spacing, self.orientation, self.modality = tuple(spacing_mm), orientation, modality

    def grid(self, own: Sequence[float]) -> Sequence[float]:
        """The spacing that the network sees."""
        return self.spacing

    def _volume(self, path: Path, decoder: Decoder, **chosen: Any) -> Volume:
        if path.is_dir():
            return read_series(path, modality=self.modality, decoder=decoder, **chosen)
        if path.name.lower().endswith((*NIFTI_SUFFIXES, *PAIR_SUFFIXES)):
            return read_nifti_volume(path, self.modality)
        raise Unreadable(Reason.NO_DICOM)

    def image(self, path: Path, decoder: Decoder) -> Image:
        """An image without labels, turned. Raises `Unreadable`."""
        volume = self._volume(path, decoder)
        values, spacing = turned(volume.voxels, volume.spacing, self.orientation)
        return values[None], spacing, volume

    def read(self, image: Path, labels: Path, structures: Structures, decoder: Decoder) -> Read:
        """An image with its labels, turned. Raises `Skip`, `Unreadable`."""
        chosen: dict[str, Any] = {}
        if image.is_dir():
            chosen = {"references": read_references(labels), "fits": partial(structures.fit, labels)}
        volume = self._volume(image, decoder, **chosen)
        label, labeled = structures.of_volume(labels, volume)
        values, spacing = turned(volume.voxels, volume.spacing, self.orientation)
        label, _ = turned(label, volume.spacing, self.orientation)
        return values[None], (label, labeled), spacing, noted(volume.series_number, volume.remarks)

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """One plain series of DICOM in a folder, turned, on the grid, as transforms in a MONAI Bundle."""
        reader = {"_target_": "monai.data.PydicomReader"}
        return [
            {"_target_": "monai.transforms.LoadImaged", "keys": keys, "reader": reader, "image_only": True},
            {"_target_": "monai.transforms.EnsureChannelFirstd", "keys": keys},
            {"_target_": "monai.transforms.Orientationd", "keys": keys, "axcodes": self.orientation, "labels": None},
            {"_target_": "datamodules.segmentation.bundle.ToGridd", "keys": keys, "spacing_mm": list(self.spacing)},
        ]


class Pictures:
    """PNG, TIFF, BMP or JPEG, in their own pixels.

    Args:
        channels: 1 gray, 3 color.
        values, background: as `datamodules.images.Images` has them.
    """

    dimensions = 2

    def __init__(self, channels: int = 1, values: str = "type", background: float | None = None) -> None:
        if channels not in (1, 3) or values not in VALUES:
            raise ValueError(f"dataset.image: channels must be 1 or 3, values {' or '.join(VALUES)}")
        self.channels, self.values, self.background = channels, values, background

    def grid(self, own: Sequence[float]) -> Sequence[float]:
        """Pixels as they are."""
        return own

    def read(self, image: Path, labels: Path, structures: Structures, decoder: Decoder) -> Read:
        """A picture with its labels. Raises `Skip`, `Unreadable`."""
        values, spacing, _ = self.image(image, decoder)
        return values, structures.of_picture(labels, values.shape[1:]), spacing, np.zeros(0, np.int64)

    def image(self, path: Path, decoder: Decoder) -> Image:
        """A picture without labels. Raises `Unreadable`."""
        found = picture(path, self.channels, values=self.values, background=self.background).astype(np.float32)
        found = found[..., None] if found.ndim == 2 else found
        if not np.isfinite(found).all():
            raise Unreadable(Reason.NOT_FINITE)
        if found.shape[-1] > self.channels:
            found = (found * LUMINANCE).sum(axis=-1, keepdims=True)
        return np.moveaxis(np.broadcast_to(found, (*found.shape[:2], self.channels)), -1, 0), (1.0, 1.0), None

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """Raises ValueError."""
        raise ValueError(
            "dataset.image: pictures (PNG, TIFF) are read by the engine's own rules on bits and color, which no "
            "transform of MONAI has; volumes (datamodules.segmentation.forms.Volumes) can be handed on"
        )
