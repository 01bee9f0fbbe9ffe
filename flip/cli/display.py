"""What the terminal shows while a study runs: one live display, or in a log plain lines."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flip.errors import several
from flip.files import CENTRALIZED, FINE_TUNED, POOLED
from flip.report.format import number as number_text
from flip.report.tables import fault_text
from flip.text import LONGEST_LINE, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

REFRESH = 4  # times a second; a rendering takes some milliseconds
STATES = {
    "statistics": "ready", "describe": "described", "plan": "surveyed",
    "measure": "measured", "fit": "trained", "validate": "validated",
    "threshold": "validated", "test": "tested", "alone": "baseline",
}  # fmt: skip

BASELINES = {
    CENTRALIZED: "centralized, on all data in one place",
    "alone": "each site alone",
    FINE_TUNED: "trained further at each site",
}


@dataclass
class SiteRow:
    """What is known of one site."""

    state: str = "waiting"
    loss: float | None = None
    name: str = ""  # of the validation metric
    score: float | None = None
    seconds: float = 0.0


class Display:
    """Follows a run line by line; use as a context manager.

    Args:
        study: the study's name.
        backend: the federation backend, "none" without federation (a round is then an epoch).
        rounds: rounds planned.
        sites: names of the sites.
        console: where to show it; a terminal gets one live display, anything else plain lines, one a round.
    """

    def __init__(self, *, study: str, backend: str, rounds: int, sites: Sequence[str], console: "Console") -> None:
        self.study, self.backend, self.rounds, self.console = study, backend, rounds, console
        self.rows = {site: SiteRow() for site in sites}
        self._round: dict[str, Mapping[str, Any]] = {}  # the fits of the round that is under way, by site
        self._number: int | None = None
        self._done = 0
        self._baseline = ""
        self._started = self._latest = self._closed = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._started = self._latest = self._closed = time.monotonic()
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=REFRESH,
                redirect_stdout=False,  # what libraries print is the log's, by file descriptor: Live would show it
                redirect_stderr=False,
            )
            self._live.start()
        else:
            how = "without federation" if self.backend == "none" else f"federation={self.backend}"
            planned = several(self.rounds, self._unit) if self.rounds else "no training"
            self.note(f"{self.study}  {how}  {several(len(self.rows), 'site')}  {planned}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def _unit(self) -> str:
        return "epoch" if self.backend == "none" else "round"

    def end(self, complete: int) -> None:
        """End the round under way; it is finished if it is one of the run's so many complete ones."""
        if self._number is not None and self._number < complete:
            self._close_round()
        elif self._number is not None and self._live is None:
            faults = [f"{site} {fault_words(fit['fault'])}" for site, fit in self._round.items() if fit.get("fault")]
            self.note("  ".join([f"{self._unit} {self._number + 1}/{self.rounds}", "not finished", *faults]))

    def note(self, text: str) -> None:
        """Show a message of one line."""
        self.console.print(printable(text, LONGEST_LINE), markup=False, highlight=False, soft_wrap=True)

    def line(self, record: Mapping[str, Any]) -> None:
        """Take in a line of `rounds.jsonl` as it is written. Cheap: nothing is drawn here but a round's plain line."""
        phase, site, number = str(record["phase"]), str(record["site"]), int(record["round"])
        if self._number is not None and (number != self._number or phase not in ("fit", "validate")):
            self._close_round()
        self._latest = time.monotonic()
        if site in self.rows:
            self._update(self.rows[site], record)
        if phase == "statistics" and record.get("fault"):
            self.note(f"{site}  {fault_text(str(record['fault']))}")
        if phase == "fit":
            self._number = number
            self._round[site] = record
            if self.backend == "none":
                self._close_round()
        elif site == POOLED and phase == "validate":
            self._close_round(record.get("metrics"))
        elif phase in BASELINES:
            self._announce(phase)
        elif site == POOLED and phase == "test" and self._live is None:
            self.note("  ".join(["test", *_numbers(record.get("metrics") or {})]))

    def _update(self, row: SiteRow, record: Mapping[str, Any]) -> None:
        fault, phase, metrics = record.get("fault"), str(record["phase"]), record.get("metrics") or {}
        row.state = fault_words(fault) if fault else STATES.get(phase, "baseline")
        row.seconds += float(record.get("seconds") or 0)
        if phase == "fit" and "loss" in metrics:
            row.loss = float(metrics["loss"])
        if phase == "validate":
            row.name, row.score = next(
                ((n, float(v)) for n, v in metrics.items() if n != "loss"), (row.name, row.score)
            )

    def _announce(self, phase: str) -> None:
        """Say once which baseline is being trained and scored."""
        if self._baseline != BASELINES[phase]:
            self._baseline = BASELINES[phase]
            if self._live is None:
                self.note(f"baseline  {self._baseline}")

    def _close_round(self, pooled: Mapping[str, float] | None = None) -> None:
        """End the round under way: a plain line of it, where there is no live display."""
        if self._number is None:
            return
        fits, self._round = self._round, {}
        number, self._number = self._number, None
        seconds, self._closed = self._latest - self._closed, self._latest
        self._done = number + 1
        if self._live is not None:
            return
        words = [f"{self._unit} {self._done}/{self.rounds}"]
        if (loss := _mean_loss(fits.values())) is not None:
            words.append(f"loss {number_text(loss)}")
        if self.backend == "none":
            words += [
                text
                for fit in fits.values()
                for text in _numbers(fit.get("metrics") or {})
                if not text.startswith("loss")
            ]
        else:
            scores = [text for text in _numbers(pooled or {}) if not text.startswith("loss")]
            words += ["validation", *scores] if scores else []
            words.append(f"sites {sum(not fit.get('fault') for fit in fits.values())}/{len(fits)}")
        faults = [f"{site} {fault_words(fit['fault'])}" for site, fit in fits.items() if fit.get("fault")]
        self.note("  ".join([*words, f"{seconds:.2f} s", *faults]))

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._started
        left = (self._closed - self._started) / self._done * self.rounds - elapsed if self._done else None
        head = Table.grid(padding=(0, 2))
        running = self._done < self.rounds
        doing = (
            f"{self._unit} {self._done + 1}/{self.rounds}"
            if running
            else f"baseline: {self._baseline}"
            if self._baseline
            else "scoring"
        )
        clock = clock_text(elapsed) + (f", {clock_text(max(left, 0))} left" if left is not None and running else "")
        bar = ProgressBar(total=max(self.rounds, 1), completed=self._done, width=30)
        head.add_row(Text(printable(self.study), style="bold"), bar, Text(doing), Text(clock))
        return Group(head, self._site_table())

    def _site_table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("site", overflow="ellipsis", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for title in ("loss", "validation", "seconds"):
            table.add_column(title, justify="right", no_wrap=True)
        for site, row in list(self.rows.items()):
            wrong = row.state not in STATES.values() and row.state != "waiting"
            score = f"{row.name} {row.score:.3f}" if row.score is not None else ""
            loss = number_text(row.loss) if row.loss is not None else ""
            table.add_row(
                Text(printable(site)),
                Text(printable(row.state), style="red" if wrong else ""),
                loss,
                Text(printable(score)),
                f"{row.seconds:.1f}",
            )
        return table


def clock_text(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def fault_words(fault: object) -> str:
    """A fault's name for reading."""
    return str(fault).lower().replace("_", " ")


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    """The metrics in words, without intervals and subgroups."""
    return [f"{name} {value:.3f}" for name, value in metrics.items() if "/" not in name]


def _mean_loss(fits: Iterable[Mapping[str, Any]]) -> float | None:
    """Mean of the sites' losses, weighted by their examples."""
    found = [((fit.get("metrics") or {}).get("loss", math.nan), fit.get("examples") or 1) for fit in fits]
    known = [(loss, weight) for loss, weight in found if math.isfinite(loss)]
    return sum(loss * weight for loss, weight in known) / sum(weight for _, weight in known) if known else None
