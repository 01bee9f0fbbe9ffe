"""Reads a scan for its level: its pictures, its axis, and what its labels say, or the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules import studies_of_site
from datamodules.ct.image import read_ct
from datamodules.ct.planes import CUT_LEVEL, NO_LEVEL, Skip
from datamodules.description import Description
from datamodules.dicom import Decoder, Volume
from datamodules.dicom.remarks import noted
from datamodules.levels import positions
from datamodules.levels.examples import Pictures
from datamodules.levels.positions import ABSENT, NOT_A_NUMBER, axis_of, position_in, position_on
from datamodules.levels.projections import Projections
from datamodules.segmentation import labels as segments
from datamodules.segmentation.labels import Structures
from datamodules.studies_of_site import StudiesOfSite
from datamodules.volume_cache import Arrays

LEVEL_MM = "level_mm"
REASONS = studies_of_site.REASONS | {*positions.UNFIT, *segments.UNFIT, CUT_LEVEL, NO_LEVEL}
REMARKS = studies_of_site.REMARKS


class LevelReader:
    """Reads scans.

    Args:
        projections: what the network sees of a scan.
        structures: the level first, then other vertebrae, in a site's masks; None where its table has `level_mm`.
    """

    def __init__(self, projections: Projections, structures: Structures | None) -> None:
        self.projections, self.structures = projections, structures

    def settings(self) -> dict[str, Any]:
        """What decides on the arrays of a study besides its files, as plain values."""
        names = None if self.structures is None else [self.structures.names, list(self.structures.own.items())]
        return {"projections": self.projections.settings(), "structures": names}

    def read(self, image: Path, labels: Path, decoder: Decoder, *, train: bool) -> Arrays:
        """The arrays of a study. Raises `Skip`, `Unreadable`.

        `views` float16 [2, rows, width] and `rows` [2], their scale and offset, as `Projections`; `axis` as
        `positions.axis_of`; `position` [1] of the masks, NaN where they show none and where there are none;
        `series` as `dicom.remarks.noted`.
        """
        volume = self._volume(image, labels, decoder)
        position = ABSENT
        if self.structures is not None:
            label, labeled = self.structures.of_volume(labels, volume)
            position = position_in(label == 1, labeled=bool(labeled[0]) or bool(label.any()))
        views, rows = self.projections(volume.voxels, volume.spacing)
        found = {"views": views.astype(np.float16), "rows": rows, "axis": axis_of(volume)}
        return found | {"position": np.array([position]), "series": noted(volume.series_number, volume.remarks)}

    def _volume(self, image: Path, labels: Path, decoder: Decoder) -> Volume:
        if self.structures is None:
            return read_ct(image, decoder)
        return read_ct(image, decoder, labels, partial(self.structures.fit, labels))


class LevelsOfSite(StudiesOfSite[Pictures]):
    """Scans with their level, by split and row of the table; arguments as of its base."""

    reader: LevelReader

    def made(self, row: int, arrays: Arrays, beside: Mapping[str, int]) -> Pictures:
        """A scan with the row of its level. Raises `Skip` for a level of the table that cannot be taken."""
        position = float(arrays["position"][0])
        if self.reader.structures is None and (stated := self._stated(row)) is not None:
            position = position_on(arrays["axis"], stated)
        scale, offset = arrays["rows"].tolist()
        views, top = arrays["views"].astype(np.float32), arrays["views"].shape[1] - 1
        level = position if math.isnan(position) else min(max(scale * position + offset, 0.0), top)
        return Pictures(views, level, self.reader.projections.step_mm, beside)

    def _stated(self, row: int) -> float | None:
        """What the table says of a row, mm; None where it says that the level is not in the scan."""
        text = self.cohort.table[LEVEL_MM].iloc[row]
        if pd.isna(text):
            return None
        try:
            found = float(text)
        except ValueError:
            raise Skip(NOT_A_NUMBER) from None
        if not math.isfinite(found):
            raise Skip(NOT_A_NUMBER)
        return found

    def describe(self, told: Description) -> Description:
        """Tell rows, and who has a scan with the level in view."""
        scans = self.every()
        rows = range(len(self.cohort.person))
        told.rows("studies", np.ones(len(rows), bool))
        told.rows("labels", np.array([row in scans for row in rows]))
        told.known("level", np.array([row in scans and not math.isnan(scans[row].level) for row in rows]))
        return told
