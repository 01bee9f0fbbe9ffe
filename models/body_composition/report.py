"""The site's own report on muscle at L3: one self-contained page with patients in it, which stays at the site."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.body_composition import CutOff

COLORS = ("#2f7fc1", "#d9662b", "#16936b")
WINDOW = (-160.0, 240.0)  # HU shown: the usual window of the abdomen


class Shown(Protocol):
    """What the report shows of a person: a row of the site's table, and a plane with its two masks."""

    @property
    def row(self) -> dict[str, Any]:
        """Quantities by name, with `accession_id`."""

    @property
    def hu(self) -> NDArray[np.float32]:
        """The plane (row, column), HU."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class of each pixel by the model."""

    @property
    def reference(self) -> NDArray[np.int64]:
        """Class of each pixel by the labels."""


def site_report(
    cases: Sequence[Shown],
    cut_off: CutOff,
    *,
    skipped: Sequence[tuple[str, str]],
    series: Sequence[tuple[str, str]],
    synthetic: bool,
    tissues: Sequence[str],
) -> str:
    """The page. `skipped` lists (accession, reason), `series` (accession, which series was read and what lay beside it)
    of the studies that hold several; `synthetic` says on the page that no patient is in it."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    ranked = sorted((case for case in cases if not math.isnan(_dice(case))), key=_dice)
    places = {"Best": -1, "Median": len(ranked) // 2, "Worst": 0} if ranked else {}
    return templates.get_template("report.html.j2").render(
        synthetic=synthetic,
        cut_off=cut_off,
        skipped=skipped,
        series=series,
        tissues=[name.replace("_", " ") for name in tissues],
        colors=COLORS,
        overlays=[
            (f"{name}: {ranked[at].row['accession_id']}", _dice(ranked[at]), image(overlay(ranked[at])))
            for name, at in places.items()
        ],
        index=image(index_plot([case.row for case in cases])) if cases else "",
        agreement=image(bland_altman([case.row for case in cases])) if cases else "",
        rows=[case.row for case in cases],
        summary=_summary([case.row for case in cases]),
    )


def _dice(case: Shown) -> float:
    return float(case.row["dice_muscle"])


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not rows:
        return {}
    difference = np.array([row["predicted_muscle_index"] - row["reference_muscle_index"] for row in rows])
    overlap = np.array([row["dice_muscle"] for row in rows])
    low = [[row[f"{which}_sarcopenia"] for row in rows] for which in ("predicted", "reference")]
    known = int(np.sum(~np.isnan(low[0]) & ~np.isnan(low[1])))
    return {
        "persons measured": f"{len(rows)}",
        "Dice of muscle, mean": f"{np.nanmean(overlap):.3f}" if not np.isnan(overlap).all() else "-",
        "index error, mean absolute": f"{np.abs(difference).mean():.2f} cm2/m2",
        "index bias": f"{difference.mean():+.2f} cm2/m2",
        "sarcopenic by prediction": f"{np.nansum(low[0]):.0f} of {known}",
        "sarcopenic by reference": f"{np.nansum(low[1]):.0f} of {known}",
    }


def overlay(case: Shown) -> Figure:
    """The plane alone, with the prediction and with the reference, side by side, cropped to the body."""
    marked = np.argwhere((case.predicted > 0) | (case.reference > 0))
    margin = 6  # pixels about the tissues
    top, left = np.maximum(marked.min(0) - margin, 0) if len(marked) else (0, 0)
    bottom, right = np.minimum(marked.max(0) + margin, case.hu.shape) if len(marked) else case.hu.shape
    crop = np.s_[top:bottom, left:right]
    height = 3.2 * (bottom - top) / (right - left)
    figure = Figure(figsize=(9.6, height + 0.3), layout="constrained")
    colors = ListedColormap(COLORS)
    for axes, name, mask in zip(
        figure.subplots(1, 3), ("CT", "predicted", "reference"), (None, case.predicted, case.reference), strict=True
    ):
        axes.imshow(case.hu[crop], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="nearest")
        if mask is not None:
            shown = np.ma.masked_equal(mask[crop], 0)
            axes.imshow(shown, cmap=colors, vmin=1, vmax=len(COLORS), alpha=0.55, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    return figure


def index_plot(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Reference and predicted index of each person, in the order of the reference."""
    ordered = sorted(rows, key=lambda row: row["reference_muscle_index"])
    figure = Figure(figsize=(6.4, 1.4 + 0.2 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(ordered):
        axes.plot(
            [row["reference_muscle_index"], row["predicted_muscle_index"]],
            [place, place],
            color="#bbbbbb",
            linewidth=1.2,
        )
    for which, color, marker in (("reference", COLORS[1], "o"), ("predicted", COLORS[0], "D")):
        axes.plot(
            [row[f"{which}_muscle_index"] for row in ordered],
            range(len(ordered)),
            marker,
            color=color,
            markersize=4.5,
            label=which,
        )
    names = [f"{row['accession_id']} {'M' if row['sex'] == 1 else 'F'}" for row in ordered]
    axes.set_yticks(range(len(ordered)), names, fontsize=7)
    axes.set_ylim(-0.8, len(ordered) - 0.2)
    axes.set_xlabel("skeletal muscle index at L3, cm2/m2")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _plain(figure)


def bland_altman(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Difference against mean of the two indices, with bias and limits of agreement."""
    predicted, reference = (
        np.array([row[f"{which}_muscle_index"] for row in rows]) for which in ("predicted", "reference")
    )
    difference, mean = predicted - reference, (predicted + reference) / 2
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(mean, difference, s=20, color=COLORS[0])
    half = 1.96 * float(difference.std(ddof=1)) if len(rows) > 1 else 0.0
    for value, name in ((0.0, "bias"), (-half, "-1.96 SD"), (half, "+1.96 SD")):
        level = float(difference.mean()) + value
        axes.axhline(level, color=COLORS[1], linewidth=1, linestyle="-" if name == "bias" else "--")
        axes.annotate(f"{name} {level:+.1f}", (1, level), (-2, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
    axes.set(xlabel="mean of predicted and reference index, cm2/m2", ylabel="predicted - reference, cm2/m2")
    axes.margins(y=0.25)
    return _plain(figure)


def _plain(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure


def image(figure: Figure) -> str:
    """A figure as the address of an inline PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone, as is a folder that is made for it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
