"""Images of examples: decoded once to the network's grid, kept in bounded memory, augmented when they are taken."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.dicom import Decoder, Reason, Unreadable, read_series
from datamodules.dicom.files import regular_files
from datamodules.dicom.radiograph import VIEWS, read_radiograph
from datamodules.labels import read_nifti_volume
from datamodules.volume_cache import VolumeCache

UNREADABLE = "an image could not be read and counts as missing"
DICOM, PICTURES, NIFTI = (".dcm", ".dicom", ""), (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), (".nii", ".nii.gz")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MOST_PIXELS = 2**26  # of one picture, 8,192 a side: a file is written by whoever sent it


class Images:
    """Images, whatever their form on disk, on one grid.

    Batches hold `image` float32 [n, c, h, w] or [n, c, h, w, d], and `image_present` float32 [n]. Pictures (PNG, JPEG,
    TIFF) and arrays have 8 bits a channel, 0 to 255. A radiograph in DICOM is brought upright and to bright bones, and
    its gray levels to 0 to 255. CT series and NIfTI volumes keep their values (HU), as [h, w, d] with d from inferior
    to superior. All are resized to the grid, cut to the window, and standardized.

    Args:
        size: the grid: [h, w] pixels, or [h, w, d] for volumes.
        channels: 1 gray, 3 color; for volumes 1.
        folder: folder of the images below the site's root, for a site without a source of images.
        window: lowest and highest value that the network tells apart, 0 and 1 before standardizing.
        mean, deviation: of the values after the window; the network sees (value - mean) / deviation.
        transforms: MONAI's random transforms of [c, ...] tensors, for training alone.
        view: which film of a study of radiographs, "frontal" or "lateral".
        unmarked_upright: whether a radiograph that does not say its orientation is taken for upright, or not read.
        memory_mb: images beyond this are kept in an unnamed file of the temporary folder instead of in memory.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int = 1,
        *,
        folder: str = "images",
        window: Sequence[float] = (0.0, 255.0),
        mean: float = 0.5,
        deviation: float = 0.25,
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
        view: str = "frontal",
        unmarked_upright: bool = False,
        memory_mb: int = 1024,
    ) -> None:
        if len(size) not in (2, 3) or min(size) < 1 or channels not in (1, 3):
            raise ValueError("dataset.image: size must be [h, w] or [h, w, d], channels 1 or 3")
        if window[1] <= window[0] or deviation <= 0:
            raise ValueError("dataset.image: window must be [low, high], deviation above 0")
        if view not in VIEWS:
            raise ValueError(f"dataset.image.view={view}: must be one of {', '.join(VIEWS)}")
        self.size, self.channels, self.folder = tuple(size), channels, folder
        self.window, self.mean, self.deviation = (float(window[0]), float(window[1])), mean, deviation
        self.transforms, self.memory_mb = list(transforms), memory_mb
        self.view, self.unmarked_upright = view, unmarked_upright

    def declared_sizes(self) -> dict[str, int]:
        """`channels`: those of `image`."""
        return {"channels": self.channels}

    def read(
        self, open_image: Callable[[str], Any], accessions: Sequence[str | None], cache: VolumeCache | None = None
    ) -> tuple[Pixels, int]:
        """Decode the images of the accessions (None where there is none); returns them, and how many were unreadable.

        `open_image` gives a path or an array by accession, and raises FileNotFoundError where there is no such image.
        """
        known = list(dict.fromkeys(each for each in accessions if each is not None))
        kept = room(len(known), (self.channels, *self.size), self.memory_mb)
        row: dict[str, int] = {}
        unreadable, first = 0, ""
        with Decoder() as decoder:
            for accession in known:
                try:
                    opened = open_image(accession)
                except FileNotFoundError:
                    continue
                try:
                    kept[len(row)] = self._read(opened, decoder, cache)
                except (Unreadable, ValueError) as error:  # a damaged file; its row goes on without an image
                    unreadable, first = unreadable + 1, first or str(error)
                    continue
                row[accession] = len(row)
        if unreadable and not row:
            raise ValueError(f"none of the {unreadable} images could be read; the first: {first}")
        index = np.array([row.get(each, -1) if each is not None else -1 for each in accessions], np.int64)
        return Pixels(kept, index, self), unreadable

    def _read(self, opened: Any, decoder: Decoder, cache: VolumeCache | None) -> np.ndarray:
        """An image on the grid, from the cache if there is one and the image is in files."""
        if isinstance(opened, np.ndarray):
            return self._on_grid(opened)
        path = Path(opened)
        if cache is None:
            return self._on_grid(self._decode(path, decoder))
        names = ("size", "channels", "window", "view", "unmarked_upright")
        settings = {name: getattr(self, name) for name in names}
        files = regular_files(path) if path.is_dir() else [path]

        def make() -> dict[str, np.ndarray]:
            return {"image": self._on_grid(self._decode(path, decoder)).astype(np.float16)}

        return cache.arrays(files, settings, make)["image"]

    def _decode(self, path: Path, decoder: Decoder) -> np.ndarray:
        """An image in its own size: [h, w], [h, w, 3] or [h, w, d], float32 or uint8."""
        name = path.name.lower()
        if len(self.size) == 3:
            volume = read_nifti_volume(path) if name.endswith(NIFTI) else read_series(path, decoder=decoder)
            return np.moveaxis(volume.voxels, 0, -1)
        if path.is_dir() or path.suffix.lower() in DICOM:
            return 255 * read_radiograph(path, decoder, view=self.view, unmarked_upright=self.unmarked_upright)
        return picture(path, self.channels)

    def _on_grid(self, image: np.ndarray) -> np.ndarray:
        """[c, *size], resized, 0 to 1 within the window."""
        dimensions = len(self.size)
        if image.ndim == dimensions:
            image = image[..., None]
        if image.ndim != dimensions + 1 or image.shape[-1] not in (1, 3):
            raise ValueError(f"an image of shape {image.shape} does not fit dataset.image.size")
        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32))[None]
        if tensor.shape[1] != self.channels:
            tensor = tensor.mean(dim=1, keepdim=True).expand(-1, self.channels, *tensor.shape[2:])
        if tuple(tensor.shape[2:]) != self.size:
            # Smoothing while shrinking exists for two dimensions alone; for volumes, area averages.
            how = {"mode": "bilinear", "antialias": True} if dimensions == 2 else {"mode": "area"}
            tensor = interpolate(tensor, size=self.size, **how)
        low, high = self.window
        return ((tensor[0] - low) / (high - low)).clamp(0, 1).numpy()


class Pixels:
    """Decoded images by row; `index` int64 [rows], -1 where a row has none."""

    def __init__(self, kept: np.ndarray, index: np.ndarray, images: Images) -> None:
        self.kept, self.index, self.images = kept, index, images

    def take(self, rows: np.ndarray, *, augmented: bool) -> dict[str, Tensor]:
        """`image` and `image_present` of some rows."""
        found = self.index[rows]
        present = torch.from_numpy((found >= 0).astype(np.float32))
        shape = (len(rows), self.images.channels, *self.images.size)
        values = torch.zeros(shape)
        if (found >= 0).any():
            values[found >= 0] = torch.from_numpy(self.kept[found[found >= 0]].astype(np.float32))
        if augmented and self.images.transforms:
            for row in np.flatnonzero(found >= 0):
                values[row] = self._augmented(values[row])
        values = (values - self.images.mean) / self.images.deviation
        return {"image": values * present.view(-1, *[1] * (len(shape) - 1)), "image_present": present}

    def _augmented(self, image: Tensor) -> Tensor:
        for transform in self.images.transforms:
            if hasattr(transform, "set_random_state"):
                # MONAI's transforms hold generators of their own: seeded from torch's, which the caller has seeded.
                transform.set_random_state(seed=int(torch.randint(2**31, ())))
            image = torch.as_tensor(transform(image)).as_subclass(Tensor)
        return image


def room(number: int, shape: Sequence[int], memory_mb: int) -> np.ndarray:
    """Room for images, float16: in memory, or beyond the bound in a file without a name that ends with the process."""
    wanted = (number, *shape)
    needed = 2 * int(np.prod(wanted))
    if needed <= memory_mb * 2**20:
        return np.zeros(wanted, np.float16)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the array holds it open
    file.truncate(needed)
    return np.memmap(file, np.float16, "r+", shape=wanted)


def picture(path: Path, channels: int) -> np.ndarray:
    """A picture as uint8 [h, w] or [h, w, 3], upright as its camera says. Raises `Unreadable`: TOO_LARGE, CORRUPT."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise Unreadable(Reason.TOO_LARGE)
            return np.asarray(ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        raise Unreadable(Reason.CORRUPT) from None  # what Pillow raises for damaged files; it may quote the path


def files_below(folder: Path) -> Mapping[str, Path]:
    """Files, and folders that hold a study, by name without ending; of two with one name the first in order."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder of images at {folder}: set dataset.image.folder, or the site's sources.images"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_symlink():
            found.setdefault(stem(path.name), path)
    return found


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    lowered = name.lower()
    for ending in (*NIFTI, *PICTURES, ".dcm", ".dicom"):
        if lowered.endswith(ending):
            return name[: -len(ending)]
    return name
