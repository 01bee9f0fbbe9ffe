"""The page on which a reader sees what was measured in each study: for the site's own eyes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.body_composition import RESEARCH_USE, CutOff
from models.body_composition.origin import Origin
from models.body_composition.report import COLORS, WINDOW, image

TISSUES = ("skeletal muscle", "subcutaneous fat", "visceral fat", "intermuscular fat")
SHADES = (*COLORS, "#8c4fa8")
QUANTITIES = {
    "muscle_area_cm2": "muscle area, cm2", "muscle_index": "muscle index, cm2/m2",
    "muscle_density_hu": "muscle density, HU", "intermuscular_fat_cm2": "intermuscular fat, cm2",
    "subcutaneous_fat_cm2": "subcutaneous fat, cm2", "visceral_fat_cm2": "visceral fat, cm2",
}  # fmt: skip


def overlay_page(
    rows: Sequence[Mapping[str, Any]], pictures: Sequence[tuple[str, str]], cut_off: CutOff, origin: Origin
) -> str:
    """The page, self-contained. `rows`: those of `biomarkers.csv`; `pictures`: (accession, inline PNG)."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    return templates.get_template("overlays.html.j2").render(
        use=RESEARCH_USE,
        rows=[row for row in rows if not row["reason"]],
        skipped=[row for row in rows if row["reason"]],
        pictures=pictures,
        cut_off=cut_off,
        origin=origin,
        quantities=QUANTITIES,
        key=list(zip(TISSUES, SHADES, strict=True)),
        said=_said,
    )


def _said(value: object) -> str:
    """A number as the page shows it."""
    if not isinstance(value, float | int) or math.isnan(value):
        return "-"
    return f"{value:.1f}"


def picture(hu: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    """The plane alone and with its tissues, cropped to these, as the address of an inline PNG."""
    marked, margin = np.argwhere(mask > 0), 8  # pixels about the tissues
    top, left = np.maximum(marked.min(0) - margin, 0)
    bottom, right = np.minimum(marked.max(0) + margin + 1, hu.shape)
    crop = np.s_[top:bottom, left:right]
    figure = Figure(figsize=(9.6, 4.8 * (bottom - top) / (right - left)), layout="constrained")
    for axes, shown in zip(figure.subplots(1, 2), (False, True), strict=True):
        axes.imshow(hu[crop], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="nearest")
        if shown:
            tissues = np.ma.masked_equal(mask[crop], 0)
            axes.imshow(
                tissues, cmap=ListedColormap(SHADES), vmin=1, vmax=len(SHADES), alpha=0.55, interpolation="nearest"
            )
        axes.set_axis_off()
    return image(figure)
