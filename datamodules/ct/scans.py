"""One unlabeled CT study, read whole, or why it was not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from datamodules.ct.planes import Skip
from datamodules.ct.scan_folder import NO_LEVEL, Place
from datamodules.ct.scan_header import about_person, contrast_seconds, has_contrast
from datamodules.dicom import Decoder, Unreadable, Volume, read_series
from datamodules.dicom.instances import headers_of
from datamodules.levels.positions import NOT_A_NUMBER, OUTSIDE, TILTED, level_mm_of, position_of

TOO_THICK = "the slices are thicker than those that the study is for (dataset.thickest_mm)"
CONTRAST = "the scan names a contrast agent, and the study is for scans without (dataset.contrast)"
NO_CONTRAST = "the scan names no contrast agent, and the study is for scans with one (contrast, contrast_seconds)"
OTHER_SECONDS = (
    "the time from the start of the contrast agent to the scan is outside the training's (dataset.contrast_seconds)"
)
NO_SECONDS = "the scan does not say how long after a contrast agent it was taken (dataset.contrast_seconds)"
OF_READER = {
    NOT_A_NUMBER: "the reader's level_mm (levels.csv) is no number in mm",
    OUTSIDE: "the reader's level_mm (levels.csv) lies outside the scan, as that of another series does",
    TILTED: "the scan is tilted, so that the reader's level_mm (levels.csv) names no slice",
}
"""A reader's level that names no slice, by the reason that the same has of a training's table."""
ABSENT = "the reader saw no L3 in the scan (levels.csv)"
UNFIT_SCANS = (TOO_THICK, CONTRAST, NO_CONTRAST, OTHER_SECONDS, NO_SECONDS, *OF_READER.values(), ABSENT)


@dataclass(frozen=True)
class Scan:
    """A study.

    - `reason`: why it was not read; empty where it was.
    - `person`: `sex` 0 female, 1 male, `height_m`, `weight_kg`, `age` in years, and of the site's table
      `followup_days` and `event`; NaN where unknown. `person_id`: as table, source or header name the person.
    - `reader_level`: where a reader says that L3 is, in slices, the lowest 0; None where none does.
    """

    accession: str
    reason: str
    person: Mapping[str, float]
    volume: Volume | None = None
    folder: Path | None = None
    reader_level: float | None = None
    person_id: str = ""

    def images(self, slices: Sequence[int]) -> list[Dataset]:
        """The header of the image of each of these slices. Raises `Unreadable` where a file is no longer there."""
        assert self.volume is not None and self.folder is not None
        return headers_of(self.folder, [self.volume.sop_instance_uids[index] for index in slices])

    def level_mm(self, position: float) -> float:
        """The patient's coordinate of a position among the slices, z, mm."""
        assert self.volume is not None
        return level_mm_of(position, self.volume)


@dataclass(frozen=True)
class ScanReader:
    """Reads studies. `levels`: by accession, what a reader says of L3, mm; others as `datamodules.ct_scans.CTScans`."""

    thickest_mm: float
    contrast: bool | None
    contrast_seconds: Sequence[float] | None
    levels: Mapping[str, str]

    def read(self, place: Place, decoder: Decoder) -> Scan:
        """A study, or why it was not read."""
        try:
            folder = place.folder()
            volume = read_series(folder, decoder=decoder)
            (head,) = headers_of(folder, volume.sop_instance_uids[:1])
            self._check(head, volume)
            level = self._level(place.accession, volume)
        except (Skip, Unreadable) as why:
            return Scan(place.accession, str(why), about_person(place.row, None), person_id=place.person)
        return Scan(place.accession, "", about_person(place.row, head), volume, folder, level, place.person)

    def _check(self, head: Dataset, volume: Volume) -> None:
        """Raises `Skip` for a scan that is none of those that the study is for."""
        if max(_thickness(head), volume.spacing[0]) > self.thickest_mm:
            raise Skip(TOO_THICK)
        wanted = True if self.contrast_seconds is not None else self.contrast
        if wanted is not None and has_contrast(head) != wanted:
            raise Skip(NO_CONTRAST if wanted else CONTRAST)
        if self.contrast_seconds is not None:
            seconds, (least, most) = contrast_seconds(head), self.contrast_seconds
            if not least <= seconds <= most:
                raise Skip(NO_SECONDS if math.isnan(seconds) else OTHER_SECONDS)

    def _level(self, accession: str, volume: Volume) -> float | None:
        """Where a reader says that L3 is. Raises `Skip` for a coordinate that is none of this scan, and for no L3."""
        text = self.levels.get(accession)
        if text is None:
            return None
        if text.lower() == NO_LEVEL:
            raise Skip(ABSENT)
        try:
            return position_of(float(text), volume)
        except ValueError:
            raise Skip(OF_READER[NOT_A_NUMBER]) from None
        except Skip as why:
            raise Skip(OF_READER[str(why)]) from None


def _thickness(head: Dataset) -> float:
    """Of a slice as the header has it, mm; 0 where it does not say, as enhanced objects do, whose spacing remains."""
    return float(head.get("SliceThickness") or 0)
