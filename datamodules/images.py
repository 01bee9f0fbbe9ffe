"""Images of examples: decoded once to the network's grid, kept in bounded memory, augmented when they are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.dicom import Decoder, Reason, Unreadable, read_series
from datamodules.dicom.files import regular_files
from datamodules.dicom.radiograph import VIEWS, read_radiograph
from datamodules.dicom.remarks import Noted, noted
from datamodules.labels import read_nifti_volume
from datamodules.pictures import VALUES, Unfit, as_declared, picture, read_array
from datamodules.pixels import Pixels, room
from datamodules.volume_cache import Arrays, VolumeCache

UNREADABLE = "an image counts as missing: "
UNREAD = frozenset(UNREADABLE + each.value for each in Reason)
DICOM, PICTURES, NIFTI = (".dcm", ".dicom", ""), (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), (".nii", ".nii.gz")
ARRAY = ".npy"


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
        self.modality, self.view, self.unmarked_upright = modality, view, unmarked_upright

    def declared_sizes(self) -> dict[str, int]:
        """`channels`: those of `image`."""
        return {"channels": self.channels}

    def read(
        self, open_image: Callable[[str], Any], accessions: Sequence[str | None], cache: VolumeCache | None = None
    ) -> Pixels:
        """Decode the images of the accessions, None where there is none.

        `open_image` gives a path or an array by accession, and raises FileNotFoundError where there is no such image.
        Raises ValueError where all that there are cannot be read.
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
                except FileNotFoundError:
                    continue
                except Unreadable as why:  # its row goes on without an image
                    unread[accession] = UNREADABLE + str(why)
                    continue
                kept[len(row)] = found["image"]
                row[accession] = len(row)
                if "series" in found:
                    series[accession] = found["series"]
        if unread and not row:
            reasons = "; ".join(f"{number} x {reason}" for reason, number in Counter(unread.values()).items())
            raise ValueError(f"none of the {len(unread)} images could be read: {reasons}")
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
        names = ("size", "channels", "values", "background", "window", "modality", "view", "unmarked_upright")
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
        return {"image": self._fitted(self._decode(path, decoder))}

    def _decode(self, path: Path, decoder: Decoder) -> np.ndarray:
        """An image in its own size, [h, w], [h, w, 3] or [h, w, d], with its values as the window expects them."""
        name = path.name.lower()
        if name.endswith(ARRAY):
            return as_declared(read_array(path), self.values)
        if len(self.size) == 3:
            return np.moveaxis(read_nifti_volume(path, self.modality).voxels, 0, -1)
        if path.is_dir() or path.suffix.lower() in DICOM:
            if self.values == "stored":
                raise Unreadable(Reason.NOT_AS_STORED)
            return 255 * read_radiograph(path, decoder, view=self.view, unmarked_upright=self.unmarked_upright)
        return picture(path, self.channels, values=self.values, background=self.background)

    def _on_grid(self, array: np.ndarray) -> np.ndarray:
        """An array of the site's own, as the network takes it. Raises `Unfit`: NO_RANGE, OTHER_SHAPE, NOT_FINITE."""
        return self._fitted(as_declared(array, self.values))

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """[c, *size], resized, 0 to 1 within the window. Raises `Unfit`: OTHER_SHAPE, NOT_FINITE."""
        dimensions = len(self.size)
        if image.ndim == dimensions:
            image = image[..., None]
        if image.ndim != dimensions + 1 or image.shape[-1] not in (1, 3) or not image.size:
            raise Unfit(Reason.OTHER_SHAPE)
        with np.errstate(over="ignore"):  # what is beyond float32 is refused below
            tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32))[None]
        if not torch.isfinite(tensor).all():
            raise Unfit(Reason.NOT_FINITE)
        if tensor.shape[1] != self.channels:
            tensor = tensor.mean(dim=1, keepdim=True).expand(-1, self.channels, *tensor.shape[2:])
        if tuple(tensor.shape[2:]) != self.size:
            # Smoothing while shrinking exists for two dimensions alone; for volumes, area averages.
            how = {"mode": "bilinear", "antialias": True} if dimensions == 2 else {"mode": "area"}
            tensor = interpolate(tensor, size=self.size, **how)
        low, high = self.window
        return ((tensor[0] - low) / (high - low)).clamp(0, 1).numpy()


class FilesByName(Mapping[str, Path]):
    """Files, and folders that hold a study, by their name with its ending or without it.

    Raises (by `[]`): KeyError, `Unfit` (AMBIGUOUS_NAME) for a name without an ending that several have.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._exact, self._by_stem = dict[str, Path](), dict[str, list[Path]]()
        for path in files:
            self._by_stem.setdefault(stem(path.name), []).append(path)
            if stem(path.name) != path.name:
                self._exact[path.name] = path

    def __getitem__(self, name: str) -> Path:
        if name in self._exact:
            return self._exact[name]
        found = self._by_stem[stem(name)]
        if len(found) > 1:
            raise Unfit(Reason.AMBIGUOUS_NAME)
        return found[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_stem)

    def __len__(self) -> int:
        return len(self._by_stem)


def files_below(folder: Path) -> FilesByName:
    """What is in a folder of images, but for links and hidden files."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder of images at {folder}: set dataset.image.folder, or the site's sources.images"
        )
    return FilesByName(
        path for path in sorted(folder.iterdir()) if not path.is_symlink() and not path.name.startswith(".")
    )


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    lowered = name.lower()
    for ending in (*NIFTI, *PICTURES, ARRAY, ".dcm", ".dicom"):
        if lowered.endswith(ending):
            return name[: -len(ending)]
    return name
