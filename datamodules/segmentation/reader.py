"""One study of a site, read and brought to the study's grid: what is kept of it, to train on or to be scored."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom import Decoder
from datamodules.intensities import spread
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.grid import mapping, resampled, resampled_label
from datamodules.segmentation.intensity import Intensity
from datamodules.segmentation.labels import Structures
from datamodules.volume_cache import Arrays

PLACES = 10_000  # voxels of a structure that patches are centered on: nnU-Net's number
SHOWN = 160  # most pixels a side of the plane that a site is shown


class Reader:
    """Reads a scan with its labels.

    Args:
        structures: what the labels are of, by the site's own names.
        form: what the images are.
        intensity: how values become input.
    """

    def __init__(self, structures: Structures, form: Volumes | Pictures, intensity: Intensity) -> None:
        self.structures, self.form, self.intensity = structures, form, intensity

    def settings(self) -> dict[str, Any]:
        """What decides on the arrays of a study besides its files, as plain values."""
        return {
            "structures": [self.structures.names, list(self.structures.own.items())],
            "form": [type(self.form).__name__, vars(self.form)],
            "intensity": [type(self.intensity).__name__, self.intensity.settings()],
        }

    def read(self, image: Path, labels: Path, decoder: Decoder, *, train: bool) -> Arrays:
        """The arrays of a study. Raises `Skip`, `Unreadable`.

        - `image` [C, *S], as `Intensity.kept`, on the study's grid; `outside` [1], its value beyond the scan.
        - `label` uint8: to train on [*S], else on the scan's own grid, turned.
        - `labeled`, `marked` bool [K]: which structures are labeled, which have a voxel.
        - `spacing_mm` and `shape` [D] of the own grid, turned, and `mapping` [D, 2] from it to the study's.
        - `places` int64, flat voxels of [*S] to center patches on, and `ends` int64 [K + 1] where those of a class end
          in it: first any voxel, then each structure's. Only to train on.
        - `histogram` of the voxels of structures, `series` as `dicom.remarks.noted`, `shown` float16 [h, w] from 0 to
          1, `digest` uint8 [32] of image and label.
        """
        values, (label, labeled), spacing, series = self.form.read(image, labels, self.structures, decoder)
        own = {"labeled": labeled, "marked": np.isin(np.arange(1, len(labeled) + 1), label), "series": series}
        own["shape"] = np.array(label.shape)
        own["histogram"] = self.intensity.histogram(values[0][label > 0])
        own["shown"] = _shown(values[0], label)
        shape, to_grid = mapping(label.shape, spacing, self.form.grid(spacing))
        kept = self.intensity.kept(np.stack([resampled(channel, to_grid, shape) for channel in values]))
        if train:
            label = resampled_label(label, to_grid, shape)
            own |= places(label, len(labeled))
        label = np.ascontiguousarray(label)
        own |= {"image": kept, "label": label, "outside": np.array([self.intensity.outside(kept)])}
        digest = hashlib.sha256(kept.tobytes() + label.tobytes()).digest()
        own |= {"spacing_mm": np.array(spacing, np.float32), "mapping": to_grid.astype(np.float32)}
        return own | {"digest": np.frombuffer(digest, np.uint8)}


def places(label: NDArray[np.uint8], structures: int) -> Arrays:
    """Voxels to center patches on: any, and of each structure, PLACES at most, drawn alike whenever they are drawn."""
    drawn = np.random.default_rng(0)
    found = [drawn.integers(label.size, size=PLACES)]
    for number in range(1, structures + 1):
        voxels = np.flatnonzero(label == number)
        found.append(np.sort(drawn.choice(voxels, PLACES, replace=False)) if len(voxels) > PLACES else voxels)
    return {"places": np.concatenate(found).astype(np.int64), "ends": np.cumsum([len(each) for each in found])}


def _shown(values: NDArray[Any], label: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The picture, or the plane of the last axis with most of the structures; its .5 to 99.5 percentile is 0 to 1."""
    if values.ndim == 3:
        values = values[..., int((label > 0).sum(axis=(0, 1)).argmax())]
    plane = values[np.ix_(*(spread(length, SHOWN) for length in values.shape))]
    low, high = np.percentile(plane, (0.5, 99.5))
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1).astype(np.float16)
