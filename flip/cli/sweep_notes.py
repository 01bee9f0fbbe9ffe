"""What becomes of each run of a sweep, on disk: a note for each run while the sweep goes on, then `sweep.csv`."""

import csv
import io
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flip.cli.compose import split
from flip.errors import UserError
from flip.files import POOLED, relative, write_atomic
from flip.processes import descendants
from flip.runs.provenance import public_arguments
from flip.runs.record import RunRecord

GRACE = 20.0  # seconds that runs in other processes have to write their results when the sweep is ended
LOOK = 0.1  # seconds between looks whether they have


@dataclass(frozen=True)
class Note:
    """One run of a sweep.

    Attributes:
        number: its place in the sweep, from 0.
        folder: its run's folder.
        overrides: its `key=value`s.
        process: the number of the process that runs it.
        mistakes: why it was not run.
        ended: whether it has ended, in whatever way.
    """

    number: int
    folder: Path
    overrides: tuple[str, ...]
    process: int
    mistakes: tuple[str, ...] = ()
    ended: bool = False

    @property
    def result(self) -> Mapping[str, Any]:
        """What the run wrote as its result; empty before."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @property
    def status(self) -> str:
        """The run's own, or `not run`, `running`, or `lost` where its process has ended without a word."""
        return str(self.result.get("status") or ("not run" if self.mistakes else "lost" if self.ended else "running"))


@dataclass(frozen=True)
class Notes:
    """The notes of a sweep, in a folder of its own while it goes on."""

    folder: Path

    @property
    def place(self) -> Path:
        """Where the notes lie."""
        return self.folder / ".notes"

    @property
    def shown(self) -> str:
        """The table, as one would type it."""
        return f"{relative(self.folder)}/sweep.csv"

    def write(self, note: Note) -> None:
        """Keep a note, in place of the run's earlier one."""
        text = json.dumps({**asdict(note), "folder": str(note.folder)})
        write_atomic(self.place / f"{note.number}.json", text.encode(), 0o600)

    def read(self) -> list[Note]:
        """The notes, in the order of the runs."""
        notes = []
        for path in self.place.glob("*.json"):
            known = json.loads(path.read_text())
            lists = {key: tuple(known[key]) for key in ("overrides", "mistakes")}
            notes.append(Note(**{**known, **lists, "folder": Path(known["folder"])}))
        return sorted(notes, key=lambda note: note.number)

    def stop(self) -> None:
        """Have no other run begin."""
        write_atomic(self.place / "stopped", b"")

    def stopped(self) -> bool:
        """Whether the sweep has been told to end, so that no other run begins."""
        return (self.place / "stopped").exists()

    def end_others(self, number: int) -> None:
        """Have no other run begin, and hand a signal on to those in other processes; wait for their results."""
        self.stop()
        deadline, told = time.monotonic() + GRACE, set[int]()
        while time.monotonic() < deadline:
            ours = descendants(os.getpid())
            running = {note.process for note in self.read() if not note.ended} & ours
            for process in running - told:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            told |= running
            if not running:
                return
            time.sleep(LOOK)

    def close(self) -> list[Note]:
        """Write the table a last time and put the notes away; returns them."""
        known = self.read()
        self.table()
        shutil.rmtree(self.place, ignore_errors=True)
        if not any((note.folder / "result.json").is_file() for note in known):
            (self.folder / "sweep.csv").unlink(missing_ok=True)
        return known

    def table(self) -> None:
        """Write `sweep.csv`: a line for each run with its values, status, objective and test metrics of all sites."""
        rows = [row_of(note) for note in self.read()]
        names = list(dict.fromkeys(name for row in rows for name in row))
        out = io.StringIO()
        table = csv.DictWriter(out, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        if rows:
            write_atomic(self.folder / "sweep.csv", out.getvalue().encode())


def row_of(note: Note) -> dict[str, object]:
    """A run's line of the table."""
    values = {key.lstrip("+~"): value for each in public_arguments(note.overrides) for _, key, value in [split(each)]}
    row: dict[str, object] = {"run": note.number, **values, "status": note.status}
    row["reason"] = note.result.get("reason") or " ".join(note.mistakes)
    record = record_of(note.folder)
    if record is not None:
        monitor = record.result.get("monitor")
        found = objective(record)
        row |= {f"validate/{POOLED}/{monitor}": "" if math.isnan(found) else found} if monitor else {}
        row |= {name: value for name, value in record.metrics.items() if name.startswith(f"test/{POOLED}/")}
        row |= {"digest": record.result.get("digest"), "seconds": record.result.get("seconds")}
    return row


def record_of(folder: Path) -> RunRecord | None:
    """A run read back; None where there is none."""
    try:
        return RunRecord.read(folder)
    except UserError:
        return None


def objective(record: RunRecord | None) -> float:
    """The main metric where the final weights were validated: in the last round (without federation, epoch)."""
    if record is None or record.result.get("status") != "ok":
        return math.nan
    monitor = record.result.get("monitor")
    lines = [each for each in record.records if (each["phase"], each["site"]) == ("validate", POOLED)]
    return float(lines[-1]["metrics"].get(monitor, math.nan)) if lines else math.nan
