"""Plots of the sites' cohorts, in the look of the report's other figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flip.report.cohorts import Cohorts
from flip.report.figures import DASHES, INK, MUTED, PALETTE, WIDTH, colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3  # histograms in a row
MOST_LEVELS = 8  # levels that are told apart by color; the rest, the rarest, are one


def histograms(cohorts: Cohorts) -> "Figure | None":
    """One panel a column: share of the site's persons by bin, one line a site."""
    from matplotlib.figure import Figure

    edges = cohorts.run.description.get("edges") or {}
    shown = [column for column in edges if any(f"histogram/{column}" in named for named in cohorts.told.values())]
    if not shown:
        return None
    rows = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(WIDTH, 1.95 * rows + 0.15))
    paint = colors(cohorts.run.sites)
    panels = figure.subplots(rows, ACROSS, squeeze=False).flatten()
    for axes, column in zip(panels, shown, strict=False):
        for index, site in enumerate(cohorts.run.sites):
            values = cohorts.told.get(site, {}).get(f"histogram/{column}")
            if values and sum(values) and len(values) + 1 == len(edges[column]):
                share = [100 * value / sum(values) for value in values]
                dash = DASHES[index // len(PALETTE) % len(DASHES)]
                axes.stairs(share, edges[column], color=paint[site], linestyle=dash, linewidth=1.3)
        axes.set_title(column)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
        axes.tick_params(labelsize=7.5)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.tight_layout(pad=0.4, h_pad=1.1, w_pad=1.2)
    return figure


def shares(cohorts: Cohorts, groups: dict[str, dict[str, str]]) -> "Figure | None":
    """One panel a group: a bar a site, parted by level. `groups`: title -> level -> name of its count."""
    from matplotlib.figure import Figure

    groups = {title: levels for title, levels in groups.items() if levels}
    if not groups:
        return None
    sites = [site for site in cohorts.run.sites if site in cohorts.told]
    across = 2
    rows = -(-len(groups) // across)
    figure = Figure(figsize=(WIDTH, rows * (0.22 * len(sites) + 0.85)))
    panels = figure.subplots(rows, across, squeeze=False).flatten()
    for axes, (title, levels) in zip(panels, groups.items(), strict=False):
        _bars(axes, title, _parts(cohorts, sites, levels), sites)
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    figure.tight_layout(pad=0.4, h_pad=1.2, w_pad=2.0)
    return figure


def _parts(cohorts: Cohorts, sites: Sequence[str], levels: Mapping[str, str]) -> dict[str, list[float]]:
    """Percent of each site's persons by level, the rarest levels as one; less than 100 where some are kept back."""
    counts = {level: [cohorts.count(site, name) or 0.0 for site in sites] for level, name in levels.items()}
    column = next(iter(levels.values())).split("/")[1]  # of levels; for classes there is no such column
    shown = [sum(each) or 1.0 for each in zip(*counts.values(), strict=True)]
    totals = [max(cohorts.known(site, column) or 0.0, each) for site, each in zip(sites, shown, strict=True)]
    parts = {level: [100 * a / b for a, b in zip(row, totals, strict=True)] for level, row in counts.items()}
    kept = sorted(counts, key=lambda level: -sum(counts[level]))[:MOST_LEVELS]
    rest = [parts[level] for level in parts if level not in kept]
    others = {f"{len(rest)} others": [sum(column) for column in zip(*rest, strict=True)]} if rest else {}
    return {level: parts[level] for level in parts if level in kept} | others


def _bars(axes: "Axes", title: str, parts: Mapping[str, Sequence[float]], sites: Sequence[str]) -> None:
    left = [0.0] * len(sites)
    for number, (level, part) in enumerate(parts.items()):
        color = PALETTE[number] if number < len(PALETTE) else MUTED
        axes.barh(sites, part, left=left, color=color, height=0.7, label=level)
        left = [a + b for a, b in zip(left, part, strict=True)]
    axes.set_title(title, pad=16)
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(labelsize=7.5)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.97), ncols=5, fontsize=7, handlelength=0.9, columnspacing=0.9,
        handletextpad=0.4, borderpad=0, labelcolor=INK,
    )  # fmt: skip
