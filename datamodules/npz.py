"""Images and labels in one NumPy archive, as MedMNIST publishes them: a table and the images of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from datamodules.counted import counted


class NPZ:
    """A cohort in an archive of arrays: images [n, h, w] or [n, h, w, 3] of any type, and labels [n], [n, 1] or [n, k].

    Arrays are found by the end of their names: with `images` and `labels` as given, `train_images` and `train_labels`
    make rows of the split `train`, and an array that is called just so makes rows of no split. Each image is a person.

    Args:
        path: the archive, absolute or from `root`.
        images, labels: what the names of the arrays end in.
        root: the site's root.
    """

    def __init__(self, path: str, images: str = "images", labels: str = "labels", *, root: str = ".") -> None:
        self.path, self.images, self.labels = Path(root) / path, images, labels
        self._loaded: dict[str, np.ndarray] = {}

    def read(self) -> pd.DataFrame:
        """One row an image: person, accession, split, label (or label_0, label_1, ... of several)."""
        tables = []
        for split, (images, name) in self._names().items():
            labels, number = self._array(name), len(self._array(images))
            if len(labels) != number:
                found = f"{counted(number, 'image')} in {images} and {counted(len(labels), 'label')} in {name}"
                raise ValueError(f"{self.path} has {found}")
            labels = labels.reshape(len(labels), -1)
            names = ["label"] if labels.shape[1] == 1 else [f"label_{column}" for column in range(labels.shape[1])]
            key = [f"{split}/{row}" for row in range(len(labels))]
            tables.append(
                pd.DataFrame(
                    {"person": key, "accession": key, "split": split, **dict(zip(names, labels.T, strict=True))}
                )
            )
        return pd.concat(tables, ignore_index=True)

    def image(self, accession: str) -> np.ndarray:
        """The image of a row. Raises FileNotFoundError for an accession of another archive."""
        split, _, row = accession.rpartition("/")
        name = self._names().get(split, ("", ""))[0]
        if not name or not row.isdigit() or int(row) >= len(self._array(name)):
            raise FileNotFoundError(f"{self.path} holds no such image")
        image: np.ndarray = self._array(name)[int(row)]
        return image

    def _names(self) -> Mapping[str, tuple[str, str]]:
        """The names of the arrays of images and labels, by split."""
        held = self._archive().files
        splits = {name.removesuffix(self.images).rstrip("_"): name for name in held if name.endswith(self.images)}
        found = {}
        for split, images in splits.items():
            labels = f"{split}_{self.labels}" if split else self.labels
            if labels not in held:
                raise ValueError(f"{self.path} has no array {labels} to {images} (its arrays: {', '.join(held)})")
            found[split] = (images, labels)
        if not found:
            raise ValueError(f"{self.path} has no array that ends in {self.images} (its arrays: {', '.join(held)})")
        return found

    def _archive(self) -> Any:
        if not self.path.is_file():
            raise FileNotFoundError(f"no archive at {self.path}")
        try:
            archive = np.load(self.path, allow_pickle=False)
        except (ValueError, EOFError, OSError, BadZipFile) as error:
            raise ValueError(f"{self.path} is not an archive of arrays (.npz): {error}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{self.path} holds one array; an archive (.npz) holds images and labels: np.savez")
        return archive

    def _array(self, name: str) -> np.ndarray:
        if name not in self._loaded:
            self._loaded[name] = self._archive()[name]
        return self._loaded[name]
