"""The beginning and the end of a run besides the run itself: its trackers, its report, its last words."""

import time
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flip.config.checks.effects import unused_here
from flip.config.targets import TARGET
from flip.coordinator.result import INTERRUPTED, ResultFile
from flip.errors import HELD, UserError, several
from flip.files import relative
from flip.runs.folder import PLAN
from flip.runs.given import allowing
from flip.runs.missing_sites import last_error
from flip.signals import Interrupted, interruptible
from flip.site.environment import ignored
from flip.text import LONGEST_LINE, printable
from flip.tracking import Guarded

if TYPE_CHECKING:
    from flip.cli.display import Display
    from flip.config.study import Study
    from flip.tracking import Tracker


def begin(study: "Study", folder: Path, trackers: "Sequence[Tracker]", display: "Display") -> None:
    """Start the trackers; what they have to say is shown, and what of the environment or of a sweep has no effect."""
    for words in (ignored(), *unused_here(study)):
        if words:
            display.note(words)
    for tracker in trackers:
        if isinstance(tracker, Guarded):
            tracker.note = display.note
        tracker.start(folder)


def close(
    folder: Path,
    trackers: "Sequence[Tracker]",
    result: ResultFile,
    *,
    display: "Display",
    asked: Interrupted | None,
) -> tuple[float | None, Interrupted | None]:
    """Write the report and end the trackers; returns the report's seconds, and the signal that came first, if any.

    A signal that comes here cuts short what it meets: the report is None then.
    """
    report = None
    display.end(int(result["rounds"]))
    try:
        with interruptible():
            report = write_report(folder, display)
    except Interrupted as signaled:
        asked = asked or signaled
    for tracker in trackers:
        try:
            with interruptible():
                tracker.finish(folder, result)
        except Interrupted as signaled:
            asked = asked or signaled
    return report, asked


def write_report(folder: Path, display: "Display") -> float:
    """Write the report, and return its seconds; one that cannot be drawn does not take the results with it."""
    from flip.report.page import write

    started = time.perf_counter()
    try:
        write(folder)
    except Exception:  # the results are on disk already; the report can be made again from the folder
        traceback.print_exc()
        display.note(
            f"the report could not be drawn (see {folder}/log.txt); python -m flip report {folder} tries again"
        )
    return time.perf_counter() - started


def last_words(result: ResultFile, folder: Path, report: float | None, *, study: "Study") -> str:
    """How the run ended, and where to look; one without federation that was cut off cannot be resumed."""
    place, allowed = relative(folder), allowing(study.allow_targets)
    if result["status"] == INTERRUPTED:
        how = f"go on: python -m flip resume={place}{allowed}"
        if not study.federation.get(TARGET):
            how = f"begin again: python -m flip --config-dir {place} --config-name run{allowed}"
        return f"{INTERRUPTED}  {result['reason']}, {several(result['rounds'], 'round')} complete; {how}"
    page = f"report  {place}/report.html"
    if (folder / PLAN).exists():
        page += f"\nplan    {place}/{PLAN}"
    for name in sorted({each.name for each in folder.glob("sites/*/*.csv")}):  # what a job applies a model for
        sites = [each.parent.name for each in folder.glob(f"sites/*/{name}")]
        page += f"\ntable   {place}/sites/{sites[0] if len(sites) == 1 else '*'}/{name}"
    if report is None:
        page = f"report  not written, it was interrupted; python -m flip report {place} writes it"
    if result["status"] == "ok":
        digest = f"  digest {result['digest'][:12]}" if result["digest"] else ""
        early = f"{result['stopped']}\n" if result["stopped"] else ""
        took = f", report {report:.1f} s" if report is not None else ""
        return f"{early}ok  {result['seconds']:.1f} s{took}{digest}\n{page}"
    if result["status"] == HELD:
        page = f"go on   once it is released there: python -m flip resume={place}{allowed}\n{page}"
    return f"{result['status']}  {printable(result['reason'], LONGEST_LINE)}\n{page}\nlog     {place}/log.txt"


def rerun_words(before: Path, now: Path) -> str:
    """`identical` to the run that was run again, or the first difference."""
    from flip.runs.identity import difference

    try:
        return difference(before, now)
    except UserError as error:  # the first has not ended, or was tidied away: this run is whole
        return f"cannot be compared: {'; '.join(error.problems)}"


def show_result(folder: Path, *, scores: bool) -> None:
    """The final test table on the screen, or of a job that tests nothing the sites' cohorts."""
    from rich.console import Console

    from flip.cli.final import show
    from flip.report.cohorts import screen_table
    from flip.runs.record import RunRecord

    record = RunRecord.read(folder)
    show(record, Console()) if scores else Console().print(screen_table(record))


def show_logs(folder: Path, sites: Collection[str] | None) -> None:
    """The last words of these sites' own logs, of those that are on this machine and have a complaint; None is all.

    What several say is said once.
    """
    said: dict[str, list[str]] = {}
    for log in sorted((folder / "sites").glob("*/site.log")):
        name = log.parent.name
        if (sites is None or name in sites) and (words := last_error(folder, name)):
            said.setdefault(words, []).append(name)
    for words, names in said.items():
        print(f"{', '.join(names)}: {printable(words, LONGEST_LINE)}")
