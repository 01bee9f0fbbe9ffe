"""Muscle and fat at L3 of whole CT scans that nobody has labeled: measured, drawn and written at the site.

For each study that is measured a row of `biomarkers.csv`, a DICOM SEG, a DICOM SR and a picture on `overlays.html`; for
each other one a row with the reason. All of it is for the site alone.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from torch import Tensor

from models.body_composition import INTERMUSCULAR, RESEARCH_USE, CutOff, body_mass_index, measure, with_intermuscular
from models.body_composition.dicom_seg import segmentation
from models.body_composition.dicom_sr import MEASURES, structured_report
from models.body_composition.origin import Origin
from models.body_composition.overlays import overlay_page, picture
from models.body_composition.report import write_private
from models.body_composition.source_headers import whole
from models.body_composition.tables import table
from models.level_finder import Level

NO_LEVEL = "no L3 is found in the scan, or not surely enough"
NO_FINDER = "no model looks for L3 (companions.level), and no reader says where it is (levels.csv)"
CUT_LEVEL = "L3 is cut by the edge of the scan"
NO_MUSCLE = "no muscle is found at L3"
CUT_MUSCLE = "muscle at L3 is cut by the edge of the picture"
LONGEST = 200  # bytes of a file's name, before its ending and that of what is written first
CLEAR_MM = 10.0  # from the center of L3 that was found to the end of the scan: as surely as it is found

PERSON = ("sex", "height_m", "weight_kg", "age", "followup_days", "event")
LEVEL = ("level_slice", "level_mm", "level_confidence", "level_by")
COLUMNS = (
    "person_id", "accession_id", *PERSON, *LEVEL, *(each for name in MEASURES for each in (name, f"{name}_error")),
    "sarcopenia", "sarcopenia_by", "model", "reason", "use",
)  # fmt: skip


class Unmeasured(Exception):
    """A study that is not measured, for a reason without identifiers."""


class Volume(Protocol):
    """A scan as `datamodules.dicom.Volume` has it: HU (slice, row, column), voxel to LPS mm, spacing."""

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


class Scan(Protocol):
    """A study as `datamodules.ct.scans.Scan` has it."""

    accession: str
    person_id: str
    reason: str
    person: Mapping[str, float]
    volume: Volume | None
    reader_level: float | None

    def images(self, slices: Sequence[int]) -> list[Dataset]:
        """The header of the image of each slice."""

    def level_mm(self, position: float) -> float:
        """The patient's coordinate of a position among the slices, mm."""


class Scans(Protocol):
    """A site's scans as `datamodules.ct_scans.CTScans` has them."""

    def scans(self) -> Iterator[Scan]:
        """Each study."""

    def plane(self, scan: Scan, index: int) -> tuple[dict[str, Tensor], str]:
        """A slice as a batch of one, and why it is not to be measured."""


@dataclass(frozen=True)
class Measuring:
    """How a scan is measured.

    `segment`: a batch of one plane to classes [1, R, C] on the grid of its `hu`. `find`: HU (slice, row, column) and
    spacing, mm, to the level of L3; None where no model looks for it. `origin`: the model that segments.
    """

    segment: Callable[[Mapping[str, Tensor]], Tensor]
    find: Callable[[NDArray[np.float32], Sequence[float]], Level] | None
    cut_off: CutOff
    origin: Origin

    def write(self, data: Scans, folder: Path) -> list[dict[str, Any]]:
        """Measure all scans, write the files into `folder`, and return the rows of `biomarkers.csv`."""
        rows, pictures = list[dict[str, Any]](), list[tuple[str, str]]()
        for scan in data.scans():
            names = {"person_id": scan.person_id, "accession_id": scan.accession, "use": RESEARCH_USE}
            row = dict.fromkeys(COLUMNS, "") | names | scan.person
            rows.append(row)
            try:
                if scan.volume is None:
                    raise Unmeasured(scan.reason)
                row |= self.level(scan)
                pictures.append((scan.accession, self._measured(data, scan, row, folder)))
            except Unmeasured as why:
                row["reason"] = str(why)
        write_private(folder / "biomarkers.csv", table(rows, COLUMNS))
        write_private(folder / "overlays.html", overlay_page(rows, pictures, self.cut_off, self.origin))
        return rows

    def level(self, scan: Scan) -> dict[str, Any]:
        """Where L3 is: a reader's word goes before the model's. Raises `Unmeasured`."""
        assert scan.volume is not None
        slices = len(scan.volume.voxels)
        if scan.reader_level is not None:
            position, confidence, by = scan.reader_level, math.nan, "reader"
        elif self.find is None:
            raise Unmeasured(NO_FINDER)
        else:
            found = self.find(scan.volume.voxels, scan.volume.spacing)
            if found.position is None:
                raise Unmeasured(NO_LEVEL)
            position, confidence, by = found.position, found.confidence, "model"
            if min(position, slices - 1 - position) * scan.volume.spacing[0] < CLEAR_MM:
                raise Unmeasured(CUT_LEVEL)
        index = min(max(round(position), 0), slices - 1)
        return dict(zip(LEVEL, (index, scan.level_mm(index), confidence, by), strict=True))

    def _measured(self, data: Scans, scan: Scan, row: dict[str, Any], folder: Path) -> str:
        """Fill in the row of one scan and write its SEG and SR; its picture. Raises `Unmeasured`."""
        assert scan.volume is not None
        index, spacing = row["level_slice"], scan.volume.spacing[1:]
        batch, reason = data.plane(scan, index)
        if reason:
            raise Unmeasured(reason)
        try:
            image = whole(*scan.images([index]), scan.volume.affine)
        except ValueError as error:
            raise Unmeasured(str(error)) from error
        mask, hu = self.segment(batch)[0].cpu().numpy(), batch["hu"][0].numpy()
        if not (mask == 1).any():
            raise Unmeasured(NO_MUSCLE)
        if (mask[[0, -1]] == 1).any() or (mask[:, [0, -1]] == 1).any():
            raise Unmeasured(CUT_MUSCLE)
        mask = with_intermuscular(mask, hu, spacing)
        area = float(batch["pixel_area_cm2"][0])
        row |= measure(mask, hu, pixel_area_cm2=area, height_m=row["height_m"]).as_row("")
        row["intermuscular_fat_cm2"] = float((mask == INTERMUSCULAR).sum()) * area
        row |= {f"{name}_error": self.origin.errors.get(name, "") for name in MEASURES}
        low = float(self.cut_off.low(row["muscle_index"], row["sex"], body_mass_index(row)))
        row |= {"sarcopenia": low, "sarcopenia_by": self.cut_off.name, "model": self.origin.version}
        self._objects(image, scan, row, mask=mask, folder=folder)
        return picture(hu, mask)

    def _objects(
        self, image: Dataset, scan: Scan, row: Mapping[str, Any], *, mask: NDArray[np.uint8], folder: Path
    ) -> None:
        """Write the SEG and the SR of a study, each named after its accession."""
        assert scan.volume is not None
        affine = scan.volume.affine.copy()
        affine[:3, 3] += row["level_slice"] * affine[:3, 2]
        seg = segmentation([image], mask[None], affine, self.origin)
        name = file_name(scan.accession)
        write_private(folder / "seg" / f"{name}.dcm", as_file(seg))
        write_private(folder / "sr" / f"{name}.dcm", as_file(structured_report(image, seg, row, self.origin)))


def file_name(accession: str) -> str:
    """An accession, which may hold a slash, as a file's name without its ending.

    A long one is named by its beginning and sha256: most disks take 255 bytes.
    """
    name = quote(accession, safe="")
    return name if len(name) <= LONGEST else f"{name[:40]}-{hashlib.sha256(accession.encode()).hexdigest()}"


def as_file(made: hd.SOPClass) -> bytes:
    """A DICOM object as a file's content."""
    content = io.BytesIO()
    made.save_as(content)
    return content.getvalue()


@torch.no_grad()
def segmenting(module: Any) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The module's `segment`, on its own device."""
    module.eval()
    device = next(module.parameters()).device
    return lambda batch: module.segment({name: value.to(device) for name, value in batch.items()})
