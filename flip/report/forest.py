"""Forest plots: a metric by site with its interval and the test examples behind it, beside the baselines."""

import math
import re
import textwrap
from typing import TYPE_CHECKING

from flip.files import CENTRALIZED, FINE_TUNED, POOLED
from flip.report.figures import INK, MUTED, RULE, WIDTH, colors
from flip.report.format import number
from flip.report.units import titled
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 28  # characters of a site's name in a line
Scale = tuple[float, float]


def forest(run: RunRecord, metric: str) -> "Figure | None":
    """A test metric by site and pooled: this run filled, the baselines hollow below it, each with its 95 % interval."""
    from matplotlib.figure import Figure

    rows: list[str | None] = [*(site for site in run.sites if math.isfinite(run.tested(metric, site))), None]
    if len(rows) < 3:
        return None
    paint, compared = colors(run.sites), any(name.startswith("baseline/") for name in run.metrics)
    figure = Figure(figsize=(WIDTH, 0.8 + (0.5 if compared else 0.32) * len(rows)), layout="constrained")
    axes = figure.subplots()
    said = []
    for y, site in enumerate(rows):
        baselines = [(f"baseline/{FINE_TUNED}/", "^", 0.12), (f"baseline/{CENTRALIZED}/", "D", 0.2)]
        baselines += [(f"baseline/alone/{site}/", "s", 0.36)] if site else []
        for prefix, marker, below in baselines:
            _estimate(axes, y + below, run, metric, site, prefix=prefix, marker=marker, color=MUTED)
        _estimate(axes, y, run, metric, site, prefix="", marker="o", color=paint[site] if site else INK)
        said.append(_said(run, metric, site))
    _labels(axes, rows, said, titled(run, metric))
    return figure


def _estimate(
    axes: "Axes", y: float, run: RunRecord, metric: str, site: str | None, *, prefix: str, marker: str, color: str
) -> None:
    """One value with its interval; nothing where there is no value."""
    value, ends = run.tested(metric, site, prefix), run.interval(metric, site, prefix)
    if not math.isfinite(value):
        return
    if ends:
        axes.plot(ends, [y, y], color=color, linewidth=1.6 if not prefix else 0.9, solid_capstyle="butt", zorder=2)
    face = "none" if prefix else color
    axes.plot(
        [value], [y], marker, markersize=5 if prefix else 7, markerfacecolor=face, markeredgecolor=color, zorder=3
    )


def _said(run: RunRecord, metric: str, site: str | None) -> str:
    examples = run.examples(site, "test") if site else tested_examples(run)
    value, ends = run.tested(metric, site), run.interval(metric, site)
    text = number(value) + (f" ({number(ends[0])} to {number(ends[1])})" if ends else "")
    return f"n = {examples:,}: {text}" if examples else text


def tested_examples(run: RunRecord) -> int:
    """Test examples behind a pooled number: those of the sites that train and were scored."""
    scored = [r for r in run.records if r["phase"] == "test" and r["site"] == POOLED]
    if scored:
        return int(scored[-1].get("examples") or 0)
    return sum(run.examples(site, "test") for site, about in run.cohort.items() if about.get("trains", True))


def in_lines(name: str) -> str:
    """A site's name in lines that end where a word does, if a word is not longer than a line."""
    lines = [""]
    for word in re.findall(r"[^_]*_|[^_]+", name):
        if lines[-1] and len(lines[-1]) + len(word) > LONGEST:
            lines.append("")
        lines[-1] += word
    return "\n".join(textwrap.fill(line, LONGEST) for line in lines)


def _labels(axes: "Axes", rows: list[str | None], said: list[str], title: str) -> None:
    """Sites at the left, values at the right, both whole."""
    axes.set_yticks(range(len(rows)), [in_lines(site) if site else "pooled" for site in rows])
    axes.set_ylim(len(rows) - 0.4, -0.5)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlabel(f"test {title}")
    axes.axhline(len(rows) - 1.45, color=RULE, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks(range(len(rows)), said)
    right.tick_params(axis="y", labelcolor=INK)
    right.grid(visible=False)
    right.spines[["left", "right"]].set_visible(False)
