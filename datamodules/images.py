"""Images of examples: decoded once to the network's grid, kept in bounded memory, augmented when they are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.counted import counted
from datamodules.dicom import Decoder, Reason, Unreadable, read_series
from datamodules.dicom.files import regular_files
from datamodules.dicom.radiograph import VIEWS, chosen_film, read_film
from datamodules.dicom.remarks import Noted, noted
from datamodules.image_files import ARRAY, DICOM, NIFTI
from datamodules.nifti import read_nifti_volume
from datamodules.pictures import LUMINANCE, VALUES, Unfit, as_declared, picture, read_array
from datamodules.pixels import Pixels, room
from datamodules.volume_cache import Arrays, VolumeCache

UNREADABLE = "an image counts as missing: "
UNREAD = frozenset(UNREADABLE + each.value for each in Reason)


class Images:
    """Images, whatever their form on disk, on one grid.

    Batches hold `image` float32 [n, c, h, w] or [n, c, h, w, d], and `image_present` float32 [n]. Pictures (PNG, JPEG,
    BMP, TIFF) and arrays (.npz, .npy) are taken by `values`. A radiograph in DICOM is brought upright and to bright
    bones, and its gray levels to 0 to 255. Series in DICOM and NIfTI volumes keep their values (HU of CT), as [h, w, d]
    with d from inferior to superior. All are resized to the grid, cut to the window, and standardized.

    Args:
        size: the grid: [h, w] pixels, or [h, w, d] for volumes.
        channels: 1 gray, 3 color; for volumes 1.
        folder: folder of the images below the site's root, for a site without a source of images.
        values: what the values of pictures and arrays mean. "type": the whole range of an unsigned type (8, 12 or 16
            bits) is 0 to 255, and a signed or float one is not read; "stored": they are values for `window` as they
            are, such as 12 bits in 16 with [0, 4095], floats with [0, 1] or HU with [-1000, 1000].
        background: gray level, 0 to 255, behind a picture that is transparent in part; None: such a one is not read.
        window: lowest and highest value that the network tells apart, 0 and 1 before standardizing.
        mean, deviation: of the values after the window; the network sees (value - mean) / deviation.
        transforms: MONAI's random transforms of [c, ...] tensors, for training alone.
        modality: of volumes, as DICOM writes it: "CT", whose values have to be HU, or another one such as "MR". A NIfTI
            does not say it.
        view: which film of a study of radiographs, "frontal" or "lateral".
        body_part: words of which BodyPartExamined of a film must have one, as [CHEST, THORAX]; a film that says no body
            part is read if no other is there. None: a study of films of several body parts is not read.
        unmarked_upright: whether a radiograph that does not say its orientation is taken for upright, or not read.
        memory_mb: images beyond this are kept in an unnamed file of the temporary folder instead of in memory.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int = 1,
        *,
        folder: str = "images",
        values: str = "type",
        background: float | None = None,
        window: Sequence[float] = (0.0, 255.0),
        mean: float = 0.5,
        deviation: float = 0.25,
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
        modality: str = "CT",
        view: str = "frontal",
        body_part: Sequence[str] | None = None,
        unmarked_upright: bool = False,
        memory_mb: int = 1024,
    ) -> None:
        if len(size) not in (2, 3) or min(size) < 1 or channels not in (1, 3):
            raise ValueError("dataset.image: size must be [h, w] or [h, w, d], channels 1 or 3")
        if window[1] <= window[0] or deviation <= 0:
            raise ValueError("dataset.image: window must be [low, high], deviation above 0")
        if view not in VIEWS or values not in VALUES:
            raise ValueError(f"dataset.image: view must be {' or '.join(VIEWS)}, values {' or '.join(VALUES)}")
        if background is not None and not 0 <= background <= 255:
            raise ValueError(f"dataset.image.background={background}: must be a gray level from 0 to 255, or null")
        self.values, self.background = values, background
        self.size, self.channels, self.folder = tuple(size), channels, folder
        self.window, self.mean, self.deviation = (float(window[0]), float(window[1])), mean, deviation
        self.transforms, self.memory_mb = list(transforms), memory_mb
        if isinstance(body_part, str) or (body_part is not None and not body_part):
            raise ValueError(f"dataset.image.body_part={body_part}: must be a list of words, as [CHEST], or null")
        self.modality, self.view, self.unmarked_upright = modality, view, unmarked_upright
        self.body_part = None if body_part is None else list(body_part)

    def declared_sizes(self) -> dict[str, int]:
        """`channels`: those of `image`."""
        return {"channels": self.channels}

    def read(
        self, open_image: Callable[[str], Any], accessions: Sequence[str | None], cache: VolumeCache | None = None
    ) -> Pixels:
        """Decode the images of the accessions, None where there is none.

        `open_image` gives a path or an array by accession, and raises FileNotFoundError where there is no such image.
        Raises ValueError where none can be read.
        """
        known = list(dict.fromkeys(each for each in accessions if each is not None))
        kept = room(len(known), (self.channels, *self.size), self.memory_mb)
        row: dict[str, int] = {}
        unread: dict[str, str] = {}
        series: dict[str, Noted] = {}
        with Decoder() as decoder:
            for accession in known:
                try:
                    found = self._read(open_image(accession), decoder, cache)
                except (FileNotFoundError, Unreadable) as why:  # its row goes on without an image
                    unread[accession] = UNREADABLE + str(why if isinstance(why, Unreadable) else Reason.NO_IMAGE.value)
                    continue
                kept[len(row)] = found["image"]
                row[accession] = len(row)
                if "series" in found:
                    series[accession] = found["series"]
        if unread and not row:
            reasons = "; ".join(f"{number} x {reason}" for reason, number in Counter(unread.values()).items())
            raise ValueError(f"none of {counted(len(unread), 'image')} could be read: {reasons}")
        index = np.array([row.get(each, -1) if each is not None else -1 for each in accessions], np.int64)
        return Pixels(
            kept, index, unread, series=series, transforms=self.transforms, mean=self.mean, deviation=self.deviation
        )

    def _read(self, opened: Any, decoder: Decoder, cache: VolumeCache | None) -> Arrays:
        """An image on the grid, from the cache if there is one and the image is in files; of DICOM volumes also
        `series`, as `dicom.remarks.noted`."""
        if isinstance(opened, np.ndarray):
            return {"image": self._on_grid(opened)}
        path = Path(opened)
        if cache is None:
            return self._from_file(path, decoder)
        names = (
            "size",
            "channels",
            "values",
            "background",
            "window",
            "modality",
            "view",
            "body_part",
            "unmarked_upright",
        )
        settings = {name: getattr(self, name) for name in names}
        files = regular_files(path) if path.is_dir() else [path]

        def make() -> Arrays:
            found = self._from_file(path, decoder)
            return found | {"image": found["image"].astype(np.float16)}

        return cache.arrays(files, settings, make)

    def _from_file(self, path: Path, decoder: Decoder) -> Arrays:
        """An image on the grid, and of DICOM volumes which series it is."""
        if len(self.size) == 3 and not path.name.lower().endswith((*NIFTI, ARRAY)):
            volume = read_series(path, modality=self.modality, decoder=decoder)
            image = self._fitted(np.moveaxis(volume.voxels, 0, -1))
            return {"image": image, "series": noted(volume.series_number, volume.remarks)}
        if len(self.size) == 2 and (path.is_dir() or path.suffix.lower() in DICOM):
            return self._film(path, decoder)
        return {"image": self._fitted(self._decode(path))}

    def _film(self, path: Path, decoder: Decoder) -> Arrays:
        """A radiograph on the grid, and what is to know of its choice."""
        if self.values == "stored":
            raise Unreadable(Reason.NOT_AS_STORED)
        file, remarks = chosen_film(path, view=self.view, body_part=self.body_part)
        film = read_film(file, decoder, view=self.view, unmarked_upright=self.unmarked_upright)
        return {"image": self._fitted(255 * film), "series": noted(None, remarks)}

    def _decode(self, path: Path) -> np.ndarray:
        """An image in its own size, [h, w], [h, w, 3] or [h, w, d], with its values as the window expects them."""
        name = path.name.lower()
        if name.endswith(ARRAY):
            return self._array(read_array(path))
        if len(self.size) == 3:
            return np.moveaxis(read_nifti_volume(path, self.modality).voxels, 0, -1)
        return picture(path, self.channels, values=self.values, background=self.background)

    def _on_grid(self, array: np.ndarray) -> np.ndarray:
        """An array of the site's own, as the network takes it. Raises as `_array` and `_fitted`."""
        return self._fitted(self._array(array))

    def _array(self, array: np.ndarray) -> np.ndarray:
        """An array `as_declared`. Raises `Unfit`: NO_RANGE, COLOR_OR_VOLUME where volumes are declared."""
        if array.ndim == len(self.size) == 3 and array.shape[-1] in (1, 3):
            raise Unfit(Reason.COLOR_OR_VOLUME)
        return as_declared(array, self.values)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """[c, *size], resized, 0 to 1 within the window. Raises `Unfit`: OTHER_SHAPE, NOT_FINITE."""
        dimensions = len(self.size)
        if image.ndim == dimensions:
            image = image[..., None]
        if image.ndim != dimensions + 1 or image.shape[-1] not in (1, 3) or not image.size:
            raise Unfit(Reason.OTHER_SHAPE)
        with np.errstate(over="ignore"):  # refused below
            tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32))[None]
        if not torch.isfinite(tensor).all():
            raise Unfit(Reason.NOT_FINITE)
        if tensor.shape[1] != self.channels:
            gray = torch.tensor(LUMINANCE if tensor.shape[1] == 3 else (1.0,)).view(1, -1, *[1] * dimensions)
            tensor = (tensor * gray).sum(dim=1, keepdim=True).expand(-1, self.channels, *tensor.shape[2:])
        if tuple(tensor.shape[2:]) != self.size:
            # Smoothing while shrinking exists for two dimensions alone; for volumes, area averages.
            how = {"mode": "bilinear", "antialias": True} if dimensions == 2 else {"mode": "area"}
            tensor = interpolate(tensor, size=self.size, **how)
        low, high = self.window
        return ((tensor[0] - low) / (high - low)).clamp(0, 1).numpy()
