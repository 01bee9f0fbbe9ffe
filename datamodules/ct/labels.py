"""The label files of a site with CT studies: which of them is a study's, and its masks by our names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.ct.planes import LEVEL, TISSUES, Skip
from datamodules.dicom import Reason, Unreadable, Volume
from datamodules.dicom.files import regular_files
from datamodules.labels import NIFTI_SUFFIXES, read_labels

SEGMENTS = (*TISSUES, LEVEL)
NO_SEGMENT = {name: f"the labels have no segment {name}" for name in SEGMENTS}
NOT_MARKED = {name: f"studies, no label file of which marks {name} by its declared number or name" for name in SEGMENTS}


class LabelFiles:
    """What lies below `labels/` of a site, one of these by accession:

    - `<accession>.dcm`: a DICOM SEG, whose segments have the site's own names.
    - `<accession>.nii.gz` or `.nii`: a NIfTI of numbers, which the site's `columns` give; else 1 to 4 by `SEGMENTS`.
    - `<accession>/`: a folder of one NIfTI mask for each structure, `<own name>.nii.gz` or `.nii`.

    Args:
        root: the site's folder.
        columns: the site's own name or number of a structure of `SEGMENTS` that it names differently.

    Attributes: `read`, whether any labels were read; `marked`, the structures of which any of them have a voxel.
    """

    def __init__(self, root: Path, columns: Mapping[str, Any]) -> None:
        self.folder, self.own = root / "labels", {name: str(columns.get(name, name)) for name in SEGMENTS}
        self.read, self.marked = False, set[str]()

    def path(self, accession: str) -> Path:
        """The study's file or folder of labels, which may be absent. Raises `Unreadable`: SEVERAL_LABELS."""
        endings = (".dcm", *NIFTI_SUFFIXES, "")
        found = [path for ending in endings if (path := self.folder / f"{accession}{ending}").exists()]
        if len(found) > 1:
            raise Unreadable(Reason.SEVERAL_LABELS)
        return found[0] if found else self.folder / f"{accession}.dcm"

    def files(self, accession: str) -> list[Path]:
        """All files of the study's labels. Raises as `path`."""
        path = self.path(accession)
        return regular_files(path) if path.is_dir() else [path] if path.is_file() else []

    def masks(self, accession: str, volume: Volume) -> dict[str, NDArray[np.bool_]]:
        """The study's masks by the names of `SEGMENTS`. Raises `Skip`: NO_SEGMENT; `Unreadable` as `read_labels`."""
        path = self.path(accession)
        numbers = {int(number): name for name, number in self.own.items() if number.isdecimal()}
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            found = read_labels(path, volume, numbers or dict(enumerate(SEGMENTS, start=1)))
        else:
            own = read_labels(path, volume, dict(enumerate(self.own.values())))
            found = {name: own[self.own[name]] for name in SEGMENTS if self.own[name] in own}
        self.note(name for name in found if found[name].any())
        if missing := [name for name in SEGMENTS if name not in found]:
            raise Skip(NO_SEGMENT[missing[0]])
        return found

    def note(self, marked: Iterable[str]) -> None:
        """The labels of a study were read, now or before they were cached, and mark these structures."""
        self.read = True
        self.marked.update(marked)

    def not_marked(self) -> list[str]:
        """The remark on each structure of which no labels that were read have a voxel: a wrong number is like that."""
        return [NOT_MARKED[name] for name in SEGMENTS if name not in self.marked] if self.read else []
