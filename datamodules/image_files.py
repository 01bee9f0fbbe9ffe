"""Files of images by the name that a table gives them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from datamodules.dicom import Reason, Unreadable
from datamodules.dicom.files import regular_files
from datamodules.pictures import Unfit

DICOM, PICTURES, NIFTI = (".dcm", ".dicom", ""), (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), (".nii", ".nii.gz")
ARRAY = ".npy"


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


def label_path(folder: Path, accession: str, endings: Iterable[str]) -> Path:
    """A study's file or folder of labels, which may be absent. Raises `Unreadable`: SEVERAL_LABELS."""
    endings = list(endings)
    found = [path for ending in endings if (path := folder / f"{accession}{ending}").exists()]
    if len(found) > 1:
        raise Unreadable(Reason.SEVERAL_LABELS)
    return found[0] if found else folder / f"{accession}{endings[0]}"


def files_at(path: Path) -> list[Path]:
    """A file, or all files of a folder; none where neither is there."""
    return regular_files(path) if path.is_dir() else [path] if path.is_file() else []
