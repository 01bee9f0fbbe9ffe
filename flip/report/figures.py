"""The report's plots as inline SVG: Matplotlib figures drawn in the page's own colors and typeface.

Matplotlib is imported by the functions: it costs a quarter of a second, which only a run that writes a report pays.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flip.files import POOLED
from flip.report.series import mean_series, series, validation_metric, validation_phase
from flip.report.units import titled
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by color-blind readers; adjusted to hold on a light and on a dark page.
PALETTE = ("#2f7fc1", "#d9662b", "#16936b", "#b4609c", "#c9930a", "#4fa9cf", "#7a6fd0", "#8a8f3c")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))  # a ninth site has the first one's color, dashed
# Stand-ins, replaced in the SVG by the page's variables, so that one figure serves the light and the dark page.
INK, MUTED, RULE = "#010203", "#040506", "#070809"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}
WIDTH = 10.0  # inches; 72 units of the SVG each
SCALE = 1.45  # pixels of the page to a unit at most, so that text is as large in a narrow figure as in a wide one
LEAST = 600  # pixels; on a narrower screen a figure scrolls


def colors(sites: Sequence[str]) -> dict[str, str]:
    """One color a site, the same in every plot and table."""
    return {site: PALETTE[index % len(PALETTE)] for index, site in enumerate(sites)}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's look: no frame, transparent, text as text, names taken literally, the same bytes."""
    import matplotlib
    from cycler import cycler

    look: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "flip",
        "text.parse_math": False,
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=PALETTE),
        "grid.linewidth": 0.6,
        "grid.color": RULE,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "axes.titlecolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.4,
        "legend.frameon": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with matplotlib.rc_context(look):
        yield


def to_svg(figure: "Figure", key: str, label: str) -> str:
    """A figure as an `<svg>` to put into the page: fluid width, ids of its own (`key`), `label` for screen readers."""
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'((?:href="|url\()#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r'font: ([^;"]*?)px [^;"]*', r"font-size: \1px", svg)  # the page's typeface
    width, height = (figure.get_size_inches() * 72).tolist()  # units of the SVG
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    most = width * SCALE
    shape = f'viewBox="0 0 {width:g} {height:g}" style="max-width: {most:.0f}px; min-width: {min(most, LEAST):.0f}px"'
    head = f'<svg {shape} role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :]


def learning_curves(run: RunRecord) -> "Figure | None":
    """Training loss and validation metric over the rounds, one line a site, the pooled one in ink."""
    from matplotlib.figure import Figure

    panels = [("training loss", series(run, "fit", "loss"))]
    if run.backend != "none":
        panels[0][1][POOLED] = mean_series(run)
    if metric := validation_metric(run):
        panels.append((f"validation {titled(run, metric)}", series(run, validation_phase(run), metric)))
    panels = [(title, lines) for title, lines in panels if any(len(x) for x, _ in lines.values())]
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _lines(axes, run, lines)
        axes.set(title=title, xlabel="epoch" if run.backend == "none" else "round")
    return figure


def _lines(axes: "Axes", run: RunRecord, lines: Mapping[str, tuple[list[int], list[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    paint = colors(run.sites)
    for name in [site for site in run.sites if site in lines]:
        x, y = lines[name]
        dash = DASHES[run.sites.index(name) // len(PALETTE) % len(DASHES)]
        axes.plot(x, y, color=paint[name], linestyle=dash, marker="o" if len(x) < 40 else "", markersize=2.4)
    if POOLED in lines and lines[POOLED][0]:
        axes.plot(*lines[POOLED], color=INK, linewidth=2.2, solid_capstyle="round")
    axes.grid(visible=False, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.spines["left"].set_visible(False)


def privacy_curve(run: RunRecord) -> "Figure | None":
    """Privacy spent (epsilon) by each site over the rounds."""
    from matplotlib.figure import Figure

    lines: dict[str, tuple[list[int], list[float]]] = {}
    units = {str(spent["unit"]) for record in run.records if (spent := record.get("privacy"))}
    for record in run.records:
        epsilon = (record.get("privacy") or {}).get("epsilon")
        if record["phase"] == "fit" and epsilon is not None and math.isfinite(epsilon):
            x, y = lines.setdefault(str(record["site"]), ([], []))
            x.append(int(record["round"]) + 1)
            y.append(float(epsilon))
    if not any(len(x) > 1 for x, _ in lines.values()):
        return None
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    axes = figure.subplots()
    _lines(axes, run, lines)
    axes.set(
        title=f"privacy spent, epsilon per {', '.join(sorted(units))}",
        xlabel="epoch" if run.backend == "none" else "round",
    )
    axes.set_ylim(bottom=0)
    return figure
