"""What a model shows of its test metrics, drawn from `panels.json`: tables, matrices, and lines with their intervals.

A panel has `title`, `note`, maybe `method` (how intervals are made) and any of `table` (`columns`, `rows`), `matrix`
(`names`, `columns`, `counts`) and `plots`: each `title`, `x`, `y`, `lines` (`name`, `x`, `y`; maybe `low`, `high`,
`step`), and maybe `unit` (both axes from 0 to 1), `diagonal` and `below`, a table under the plot.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flip.report.figures import MUTED, PALETTE, WIDTH, to_svg
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL = "95 % interval"
NOISED = "All counts have noise for privacy, so that no interval is given."
ONE = 5.0  # inches: width of a plot that stands alone
Plot = Mapping[str, Any]
Panel = Mapping[str, Any]


def drawn(run: RunRecord) -> list[Panel]:
    """The panels of a run, each plot as SVG; call it in `figures.style`."""
    from markupsafe import Markup

    found: list[Panel] = []
    for index, panel in enumerate(run.panels.get("panels") or []):
        plots = [plot for plot in panel.get("plots") or [] if any(line["x"] for line in plot["lines"])]
        svg = to_svg(figure(plots), f"shown{index}", str(panel["title"])) if plots else None
        found.append(
            {
                "title": panel["title"],
                "note": f"{panel.get('note', '')} {NOISED if run.noised else panel.get('method', '')}".strip(),
                "svg": Markup(svg) if svg else None,  # noqa: S704 - escaped by Matplotlib
                "tables": [without_intervals(each) if run.noised else each for each in _tables(panel, plots)],
                "matrix": shaded(panel["matrix"]) if panel.get("matrix") else None,
            }
        )
    return found


def _tables(panel: Panel, plots: Sequence[Plot]) -> list[Panel]:
    own = [panel["table"]] if panel.get("table") else []
    return [*(plot["below"] for plot in plots if plot.get("below")), *own]


def without_intervals(table: Panel) -> dict[str, object]:
    """A table without its intervals, which would leave out the noise of its counts."""
    kept = [index for index, name in enumerate(table["columns"]) if name != INTERVAL]
    return {
        "columns": [table["columns"][index] for index in kept],
        "rows": [[row[index] for index in kept] for row in table["rows"]],
    }


def shaded(matrix: Panel) -> dict[str, object]:
    """A matrix with the share of its row in each cell, in percent of the accent color: darker holds more."""
    rows = []
    for name, counts in zip(matrix["names"], matrix["counts"], strict=True):
        whole = sum(counts)
        rows.append((name, [(int(count), round(62 * count / whole) if whole else 0) for count in counts]))
    return {"columns": list(matrix["columns"]), "rows": rows}


def figure(plots: Sequence[Plot]) -> "Figure":
    """One plot, or several side by side."""
    from matplotlib.figure import Figure

    made = Figure(
        figsize=(WIDTH if len(plots) > 1 else ONE if plots[0].get("unit") else WIDTH, 3.9), layout="constrained"
    )
    for axes, plot in zip(made.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        _draw(axes, plot)
    return made


def _draw(axes: "Axes", plot: Plot) -> None:
    if plot.get("diagonal"):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for line, color in zip(plot["lines"], PALETTE * (1 + len(plot["lines"]) // len(PALETTE)), strict=False):
        x, y, low, high = (line.get(key) or [] for key in ("x", "y", "low", "high"))
        if line.get("step"):
            axes.step(x, y, where="post", color=color, label=line["name"])
            axes.fill_between(x, low, high, step="post", color=color, alpha=0.15, linewidth=0) if low else None
        else:
            axes.plot(x, y, color=color, label=line["name"], marker="o" if low else "", markersize=4)
            axes.vlines(x, low, high, color=color, linewidth=1) if low else None
    if plot.get("unit"):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_box_aspect(0.8)
    elif any(line.get("step") for line in plot["lines"]):
        axes.set(ylim=(0, 1.02), xlim=(0, None))
    axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"])
    axes.legend(loc="best", fontsize=8)
