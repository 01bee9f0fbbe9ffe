"""The folder of a run: what is written when, each file whole or not at all."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from flip.errors import UserError, several
from flip.files import append_whole, relative, write_atomic
from flip.messages import Payload
from flip.messages.model_file import ModelFile, save_model
from flip.messages.safetensors import load_file, save_file
from flip.messages.summary import Summaries, Summary, Topic
from flip.messages.weights import LAST_WEIGHTS, digest
from flip.messages.wire import join, take
from flip.runs.missing_sites import warnings_of
from flip.runs.record import records
from flip.runs.recorder import Progress
from flip.runs.untouched import OtherData

LINES, COHORT, DESCRIPTION = "rounds.jsonl", "cohort.json", "description.json"
PROGRESS = Path("state") / "round.safetensors"
BEFORE = Path("state") / "round_before.safetensors"  # the same of the round before, for a run whose last is damaged
RESERVE = Path("state") / "reserve"
RESERVED = 4 * 2**20  # bytes: the result, the report and the end of the log of a large study
ROUND_PHASES = ("fit", "validate")


class Listener(Protocol):
    """Who is told of every line as it is written: the display and the trackers."""

    def line(self, record: Mapping[str, object]) -> None:
        """One line of `rounds.jsonl`."""


class RunFolder:
    """Writes a run's folder; the coordinator's `Recorder`.

    Args:
        folder: `runs/<name>/<time>`.
        listeners: told of every line.
    """

    def __init__(self, folder: Path, listeners: Sequence[Listener]) -> None:
        self.folder, self.listeners = folder, listeners
        self._written = 0  # lines of complete rounds, and of the one that is going on
        folder.mkdir(parents=True, exist_ok=True)

    def line(self, record: Mapping[str, object]) -> None:
        """Append one line to `rounds.jsonl`, and tell the listeners."""
        append_whole(self.folder / LINES, (json.dumps(record) + "\n").encode())
        self._written += record["phase"] in ROUND_PHASES
        for listener in self.listeners:
            listener.line(record)

    def reserve(self) -> None:
        """Keep some space of the disk for the result and the report of a run that fills it. Raises OSError."""
        path = self.folder / RESERVE
        path.parent.mkdir(exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVED)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the reserved space back."""
        (self.folder / RESERVE).unlink(missing_ok=True)

    def cohort(self, cohort: Mapping[str, Mapping[str, Any]]) -> None:
        """Write `cohort.json`. Raises OtherData where a run would go on over other data than it was begun with."""
        path = self.folder / COHORT
        if (self.folder / PROGRESS).exists() and path.exists():
            begun: dict[str, Mapping[str, Any]] = json.loads(path.read_text())
            read = {site: [each.get(site, {}).get("fingerprint", {}) for each in (begun, cohort)] for site in begun}
            pairs = {site: (was.get("data"), now.get("data")) for site, (was, now) in read.items()}
            if others := [site for site, (was, now) in pairs.items() if was and now and was != now]:
                raise OtherData(
                    f"the data of {', '.join(others)} are others than when the run was begun; restore them, or start a "
                    "new run"
                )
        self.json(COHORT, cohort)

    def description(self, job: str, edges: Payload, found: Mapping[str, Summaries]) -> None:
        """Write `description.json`."""
        columns, shapes = (
            plain_summaries({site: told.get(topic, {}) for site, told in found.items()})
            for topic in (Topic.DESCRIPTION, Topic.SHAPE)
        )
        bins = {name: array.tolist() for name, array in edges.items()}
        self.json(DESCRIPTION, {"job": job, "edges": bins, "sites": columns, "shapes": shapes})

    def complete(self, progress: Progress) -> None:
        """Write what a resume needs after a round; what it needed after the round before is kept beside it."""
        arrays = join(weights=progress.weights, state=progress.state, agreed=progress.agreed)
        plain = ("round", "best", "privacy", "best_watched", "waited")
        head = {name: getattr(progress, name) for name in plain} | {"lines": self._written}
        head["digests"] = [*self.digests()[: progress.round], digest(progress.weights)]
        if (self.folder / PROGRESS).exists():
            keep(self.folder / PROGRESS, self.folder / BEFORE)
        save_file(self.folder / PROGRESS, arrays, head)

    def progress(self) -> Progress | None:
        """What the last complete round left, to go on from; `rounds.jsonl` then ends with that round."""
        self.forget_unfinished()
        if self.last_round() < 0:
            return None
        arrays, head = load_file(self.folder / PROGRESS)
        del head["lines"], head["digests"]
        weights, state, agreed = (take(arrays, group) for group in ("weights", "state", "agreed"))
        return Progress(weights=weights, state=state, agreed=agreed, **head)

    def digests(self) -> list[str]:
        """The digest of the shared weights after each complete round."""
        path = self.folder / PROGRESS
        found: Sequence[str] = load_file(path)[1].get("digests", []) if path.exists() else []
        return list(found)

    def last_round(self) -> int:
        """The last complete round, from 0; -1 before the first."""
        path = self.folder / PROGRESS
        return int(load_file(path)[1]["round"]) if path.exists() else -1

    def forget_unfinished(self) -> None:
        """Drop the lines that the run will write again, and one that was cut off: all but those of complete rounds."""
        path = self.folder / LINES
        kept, every = self._lines(self.last_round())
        self._written = len(kept)
        if len(kept) < every:
            write_atomic(path, b"".join(kept))

    def mend(self, *, look: bool = False) -> str:
        """Go back to the round before where what the last one left is damaged; with `look` only say so.

        Returns what is damaged, empty where nothing is. Raises UserError where no whole round is left.
        """
        damaged = []
        for path in (self.folder / PROGRESS, self.folder / BEFORE):
            if reason := self._damage(path) if path.exists() else "":
                damaged.append(reason)
            elif path.exists():
                if damaged and not look:
                    path.replace(self.folder / PROGRESS)
                return damaged[0] if damaged else ""
        if damaged:
            raise UserError([f"{each}; restore it from a copy, or start a new run" for each in damaged])
        return ""

    def _damage(self, path: Path) -> str:
        """What is wrong with the state of a round, or with the lines up to it; empty where all is whole."""
        try:
            head = load_file(path)[1]
            round, lines = int(head["round"]), int(head["lines"])
        except (KeyError, ValueError):
            return f"{relative(path)}: is damaged, the state of a round is cut off or overwritten"
        found = len(self._lines(round)[0])
        if found < lines:
            wrong = f"{found} of {several(lines, 'whole line')} of the first {several(round + 1, 'round')} left"
            return f"{relative(self.folder / LINES)}: is damaged, {wrong}"
        return ""

    def _lines(self, last: int) -> tuple[list[bytes], int]:
        """The whole lines of rounds up to the last complete one, and how many lines there are of all kinds."""
        path = self.folder / LINES
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if _round(line) <= last], len(lines)

    def warnings(self) -> list[str]:
        """What the lines say of sites that were not in the run, or not in all of it."""
        return warnings_of(self.lines(), self.folder)

    def lines(self) -> Sequence[Mapping[str, object]]:
        """Every whole line of `rounds.jsonl`. Raises UserError for one that is damaged."""
        return records(self.folder / LINES)

    def result(self) -> dict[str, Any] | None:
        """What `result.json` says; None before the end of the run."""
        path = self.folder / "result.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def best(self, model: ModelFile) -> None:
        """Write `weights/best.safetensors`."""
        save_model(self.folder / "weights" / "best.safetensors", model)

    def last(self, model: ModelFile) -> None:
        """Write `weights/last.safetensors`."""
        save_model(self.folder / LAST_WEIGHTS, model)

    def outcomes(self, outcomes: Mapping[str, Mapping[str, Summary]]) -> None:
        """Write `outcomes.json`."""
        self.json("outcomes.json", plain_summaries(outcomes))

    def panels(self, panels: Sequence[Mapping[str, object]]) -> None:
        """Write `panels.json`, where there are any."""
        if panels:
            self.json("panels.json", {"panels": list(panels)})

    def json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file."""
        write_atomic(self.folder / name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def text(self, name: str, content: str, mode: int = 0o644) -> None:
        """Write a text file with these permissions."""
        write_atomic(self.folder / name, content.encode(), mode)


def keep(path: Path, copy: Path) -> None:
    """Have a file under a second name too, whole or not at all, in place of what lies there."""
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a disk that knows no second names
            shutil.copyfile(path, temporary)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _round(line: bytes) -> float:
    """The round that a line of `rounds.jsonl` is of; infinite where it is of none, cut off or overwritten."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return math.inf
    told = found if isinstance(found, dict) and found.get("phase") in ROUND_PHASES else {}
    number = told.get("round")
    return number if isinstance(number, int) else math.inf


def plain_summaries(by_site: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Summaries by site and name as JSON has them."""
    return {
        site: {
            name: {"kind": s.kind.value, "values": s.values.tolist(), "persons": s.persons} for name, s in found.items()
        }
        for site, found in by_site.items()
    }
