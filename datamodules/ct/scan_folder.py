"""Where the CT studies of a site are that nobody has labeled: by its table, by a source, or by what a folder holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from datamodules.csv_table import read_csv
from datamodules.ct.cohort import NO_ACCESSION, NO_PERSON, Study, read_cohort
from datamodules.ct.image import image_path
from datamodules.ct.planes import Skip
from datamodules.dicom.files import is_dicom, read_dicom, regular_files
from datamodules.dicom.listing import named_as_image
from datamodules.dicom.volume import Reason, Unreadable

NOT_WHOLE = "the source has the study not whole, or of several patients"
MIXED = "a folder holds images of several studies: give each study a folder of its own"
PLACES = (MIXED, NOT_WHOLE, NO_PERSON, NO_ACCESSION)
TABLE, LEVELS = "cohort.csv", "levels.csv"
NO_LEVEL = "none"  # in LEVELS: the reader looked, and L3 is not in the scan
_TAGS = ("AccessionNumber", "StudyInstanceUID", "PatientID")


@dataclass(frozen=True)
class Place:
    """A study to be read: its accession, the person, what the site's table says of it (or None), where its images are,
    and why it cannot be used whatever they are (or nothing)."""

    accession: str
    person: str
    row: Study | None
    where: Path | Any  # a folder, or the source that fetches it
    reason: str = ""

    def folder(self) -> Path:
        """Where the images are, fetched if they are elsewhere.

        Raises `Skip` for a study that its source does not have or not whole, ConnectionError where none answers.
        """
        if self.reason:
            raise Skip(self.reason)
        if isinstance(self.where, Path):
            return self.where
        try:
            return Path(self.where.open(self.accession))
        except FileNotFoundError:
            raise Skip(Reason.NO_IMAGE.value) from None
        except ValueError:
            raise Skip(NOT_WHOLE) from None


def places(root: Path, columns: Mapping[str, str], images: Any) -> list[Place]:
    """The studies, in the order of the table, else of the accession.

    With a source of images its studies, or those of the table if there is one. Without, those of the table, each where
    `image_path` says; where there is no table, the studies of all DICOM files below `root`, in any folders.
    Raises FileNotFoundError and ValueError as `read_cohort` and the source do, and ValueError for a root without DICOM.
    """
    rows = read_cohort(root, columns)[0] if (root / TABLE).is_file() else None
    if rows is not None:
        return [_of_row(row, root if images is None else images) for row in rows]
    if images is not None:
        listed = images.accessions().to_dict("records")
        return [Place(str(each["accession"]), str(each["person"] or ""), None, images) for each in listed]
    if not (found := list(_found(root))):
        raise ValueError(f"{root} holds no DICOM file: set the site's `root` to the folder with the studies")
    return sorted(found, key=lambda place: place.accession)


def _of_row(row: Study, where: Any) -> Place:
    """A study of the table, whose sex and height may be unknown."""
    reason = row.problem if row.problem in (NO_PERSON, NO_ACCESSION) else ""
    if not isinstance(where, Path) or reason:
        return Place(row.accession, row.person, row, where, reason)
    try:
        folder = image_path(where, row.accession)
    except Unreadable as why:
        return Place(row.accession, row.person, row, where, str(why))
    # A NIfTI says nothing of the person and the series, which a SEG and an SR are of.
    return Place(row.accession, row.person, row, folder, Reason.NO_DICOM.value if folder.is_file() else "")


def _found(root: Path) -> Iterator[Place]:
    """The studies of the files below a folder; those that share folders with others have no folder of their own.

    A folder of damaged files, none of which says to which study it belongs, is one that cannot be read. Among those of
    a study they are left to the reader of the series.
    """
    folders: dict[tuple[str, str], set[Path]] = defaultdict(set)
    persons: dict[tuple[str, str], str] = {}
    damaged: set[Path] = set()
    for path in regular_files(root):
        head = _head(path)
        if head is None:
            continue
        key = (str(head.get("AccessionNumber") or "").strip(), str(head.get("StudyInstanceUID") or "").strip())
        if not any(key):
            damaged.add(path.parent)
            continue
        folders[key].add(path.parent)
        persons.setdefault(key, str(head.get("PatientID") or "").strip())
    numbers, read = [accession for accession, _ in folders], list[Path]()
    for (accession, study), own in folders.items():
        name = accession if accession and numbers.count(accession) == 1 else study or accession
        folder = _common(own)
        others = [each for key, theirs in folders.items() if key != (accession, study) for each in theirs]
        mixed = any(each.is_relative_to(folder) for each in others)
        read += own if mixed else [folder]
        yield Place(name, persons[accession, study], None, folder, MIXED if mixed else "")
    for folder in damaged:
        if not any(folder.is_relative_to(each) or each.is_relative_to(folder) for each in read):
            name = "_".join(folder.relative_to(root).parts) or root.name
            yield Place(name, "", None, folder, Reason.CORRUPT.value)


def _head(path: Path) -> Dataset | None:
    """What a file says of its study, nothing where it is damaged; None for a file that is no DICOM and not named so."""
    if not is_dicom(path):
        return Dataset() if named_as_image(path) else None
    try:
        return read_dicom(path, _TAGS)
    except Unreadable:
        return Dataset()


def _common(folders: set[Path]) -> Path:
    first, *rest = sorted(folders)
    while not all(each.is_relative_to(first) for each in rest):
        first = first.parent
    return first


def corrections(root: Path, accessions: Collection[str]) -> dict[str, str]:
    """By accession, the coordinate of L3 as text that a reader gives in `levels.csv` (`accession`, `level_mm`), if any.

    It is NO_LEVEL for a scan without L3. Raises ValueError for a table without these columns, with an accession twice
    or one that the site does not have, and for a row that says nothing.
    """
    path = root / LEVELS
    if not path.is_file():
        return {}
    table = read_csv(path)
    if missing := [name for name in ("accession", "level_mm") if name not in table]:
        raise ValueError(f"{path} has no column {missing[0]}: a correction is a row of accession and level_mm")
    if twice := table["accession"][table["accession"].duplicated()].tolist():
        raise ValueError(f"{path} has {len(twice)} accessions twice: keep one row of each")
    if strange := set(table["accession"]) - set(accessions):
        raise ValueError(f"{path} corrects {len(strange)} accessions that the site does not have: correct them")
    for number, text in enumerate(table["level_mm"], start=1):
        if not text:
            raise ValueError(
                f"{path}, row {number} below the header: level_mm is empty; give the mm at which L3 is, `{NO_LEVEL}` "
                "where L3 is not in the scan, or leave the row out for the model to look"
            )
    return dict(zip(table["accession"], table["level_mm"], strict=True))
