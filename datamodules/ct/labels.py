"""The label files of a site with CT studies: which of them is a study's, and its masks by our names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.ct.planes import LEVEL, TISSUES, Skip
from datamodules.dicom import Volume
from datamodules.image_files import files_at, label_path
from datamodules.labels import labels_fit, read_labels
from datamodules.nifti import NIFTI_SUFFIXES

SEGMENTS = (*TISSUES, LEVEL)
NO_SEGMENT = {name: f"the labels have no segment {name}" for name in SEGMENTS}
NO_NUMBER = "the site's columns must give a whole number for each structure of a NIfTI file, not a name"
ONE_NUMBER = "the site's columns give two structures of a NIfTI file the same number"
UNFIT = (*NO_SEGMENT.values(), NO_NUMBER, ONE_NUMBER)
NOT_MARKED = {name: f"studies, no label file of which marks {name} by its declared number or name" for name in SEGMENTS}


class LabelFiles:
    """What lies below `labels/` of a site, one of these by accession:

    - `<accession>.dcm`: a DICOM SEG, whose segments have the site's own names.
    - `<accession>.nii.gz` or `.nii`: a NIfTI of numbers, which the site's `columns` give; 1 to 4 by `SEGMENTS` where
      these declare nothing.
    - `<accession>/`: a folder of one NIfTI mask for each structure, `<own name>.nii.gz` or `.nii`.

    Args:
        root: the site's folder.
        columns: the site's own name or number of a structure of `SEGMENTS` that it names differently.

    Attributes: `read`, whether any labels were read; `marked`, the structures of which any of them have a voxel.
    """

    def __init__(self, root: Path, columns: Mapping[str, Any]) -> None:
        self.folder, self.own = root / "labels", {name: str(columns.get(name, name)) for name in SEGMENTS}
        self.floats = {name for name, own in columns.items() if isinstance(own, float)}
        self.read, self.marked = False, set[str]()

    def path(self, accession: str) -> Path:
        """The study's file or folder of labels, which may be absent. Raises `Unreadable`: SEVERAL_LABELS."""
        return label_path(self.folder, accession, (".dcm", *NIFTI_SUFFIXES, ""))

    def files(self, accession: str) -> list[Path]:
        """All files of the study's labels. Raises as `path`."""
        return files_at(self.path(accession))

    def masks(self, accession: str, volume: Volume) -> dict[str, NDArray[np.bool_]]:
        """The study's masks by the names of `SEGMENTS`.

        Raises `Skip`: NO_SEGMENT, NO_NUMBER, ONE_NUMBER; `Unreadable` as `read_labels`.
        """
        path = self.path(accession)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            found = read_labels(path, volume, self._numbers())
        else:
            own = read_labels(path, volume, self._names())
            found = {name: own[self.own[name]] for name in SEGMENTS if self.own[name] in own}
        self.note(name for name in found if found[name].any())
        if missing := [name for name in SEGMENTS if name not in found]:
            raise Skip(NO_SEGMENT[missing[0]])
        return found

    def fit(self, accession: str, volume: Volume) -> bool:
        """Whether the study's labels lie on the grid of a volume. Raises `Unreadable` as `labels_fit`."""
        return labels_fit(self.path(accession), volume, self._names())

    def _names(self) -> dict[int, str]:
        return dict(enumerate(self.own.values()))

    def _numbers(self) -> dict[int, str]:
        """The structures of a NIfTI by number: as declared, a float that is whole by its whole number, else 1 to 4."""
        declared = {name: own.removesuffix(".0") if name in self.floats else own for name, own in self.own.items()}
        declared = {name: own for name, own in declared.items() if own != name}
        if not all(own.isdecimal() for own in declared.values()):
            raise Skip(NO_NUMBER)
        numbers = {int(own): name for name, own in declared.items()}
        if len(numbers) < len(declared):
            raise Skip(ONE_NUMBER)
        return numbers or dict(enumerate(SEGMENTS, start=1))

    def note(self, marked: Iterable[str]) -> None:
        """The labels of a study were read, now or before they were cached, and mark these structures."""
        self.read = True
        self.marked.update(marked)

    def not_marked(self) -> list[str]:
        """The remark on each structure of which no labels that were read have a voxel: a wrong number is like that."""
        return [NOT_MARKED[name] for name in SEGMENTS if name not in self.marked] if self.read else []
