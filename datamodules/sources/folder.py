"""Images in a folder, by accession: a folder of DICOM files each, or one NIfTI or picture file each."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datamodules.dicom.files import is_dicom, read_dicom, regular_files
from datamodules.dicom.volume import Unreadable

ENDINGS = (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
LAYOUTS = ("accession", "person/accession", "header")


class Folder:
    """An image source: what lies in a folder.

    Args:
        path: the folder.
        layout: "accession": each folder or file in it is named after its accession (`A-17/`, `A-17.nii.gz`);
            "person/accession": these stand in a folder for each person; "header": DICOM files in folders of any name,
            whose headers say the person and the accession.
        endings: the files that are images, besides folders.
        root: folder that a relative path is below.
    """

    def __init__(
        self, path: str, *, layout: str = "accession", endings: Sequence[str] = ENDINGS, root: str = "."
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"`layout` is one of {', '.join(LAYOUTS)}, not {layout!r}")
        self.path, self.layout, self.endings = Path(root) / path, layout, tuple(endings)
        self._found: dict[str, tuple[str | None, Path]] | None = None

    def accessions(self) -> pd.DataFrame:
        """`person` (None where the layout does not say) and `accession`, in order of the accession.

        Raises FileNotFoundError for a missing folder, ValueError for an empty one, or for an accession in two places.
        """
        rows = [(person, accession) for accession, (person, _) in sorted(self._index().items())]
        return pd.DataFrame(rows, columns=["person", "accession"], dtype=object)

    def open(self, accession: str) -> Path:
        """The folder or file of an accession. Raises FileNotFoundError where there is none."""
        if accession not in self._index():
            raise FileNotFoundError(f"{self.path} has no images of accession {accession}")
        return self._index()[accession][1]

    def _index(self) -> dict[str, tuple[str | None, Path]]:
        """By accession, the person and where its images are; read once."""
        if self._found is None:
            if not self.path.is_dir():
                raise FileNotFoundError(f"no folder {self.path}: set `path` in the site's `sources`")
            self._found = self._by_header() if self.layout == "header" else self._by_name()
            if not self._found:
                raise ValueError(f"{self.path} holds no images in the layout {self.layout!r} (`layout`)")
        return self._found

    def _by_name(self) -> dict[str, tuple[str | None, Path]]:
        found: dict[str, tuple[str | None, Path]] = {}
        persons = [self.path] if self.layout == "accession" else _visible(self.path)
        for person in persons:
            for image in _visible(person) if person.is_dir() else []:
                ending = next((each for each in self.endings if image.name.lower().endswith(each)), "")
                if image.is_dir() or ending:
                    name = image.name if image.is_dir() else image.name[: -len(ending)]
                    if name in found:
                        raise ValueError(
                            f"{self.path} has the accession {name} twice: {found[name][1].name}, {image.name}"
                        )
                    found[name] = (None if self.layout == "accession" else person.name, image)
        return found

    def _by_header(self) -> dict[str, tuple[str | None, Path]]:
        """Each accession's folder, which no other accession may share."""
        places: dict[str, set[Path]] = {}
        persons: dict[str, str] = {}
        owners: dict[Path, str] = {}
        for file in regular_files(self.path):
            if not is_dicom(file):
                continue
            try:
                header = read_dicom(file, ["PatientID", "AccessionNumber"])
            except Unreadable:
                continue  # the reader of the series refuses it and says why
            accession = str(header.get("AccessionNumber") or "").strip()
            if not accession:
                continue
            if owners.setdefault(file.parent, accession) != accession:
                raise ValueError(f"{file.parent} holds images of several accessions: give each a folder of its own")
            places.setdefault(accession, set()).add(file.parent)
            persons[accession] = str(header.get("PatientID") or "").strip()
        return {name: (persons[name] or None, _common(name, folders, owners)) for name, folders in places.items()}


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _common(accession: str, folders: set[Path], owners: dict[Path, str]) -> Path:
    """The one folder above an accession's folders. Raises ValueError if it holds other accessions too."""
    common = Path(os.path.commonpath(folders))
    if strangers := [each for each in owners if owners[each] != accession and each.is_relative_to(common)]:
        raise ValueError(f"{common} holds accession {accession} and others, such as {strangers[0]}: give each a folder")
    return common
