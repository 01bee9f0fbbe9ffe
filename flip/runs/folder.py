"""The folder of a run: what is written when, each file whole or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from flip.files import append_whole, write_atomic
from flip.messages import Payload
from flip.messages.safetensors import load_file, save_file
from flip.messages.summary import Summaries, Summary, Topic
from flip.messages.wire import join, take
from flip.runs.recorder import Progress

LINES, COHORT, DESCRIPTION = "rounds.jsonl", "cohort.json", "description.json"
PROGRESS = Path("state") / "round.safetensors"
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
        folder.mkdir(parents=True, exist_ok=True)

    def line(self, record: Mapping[str, object]) -> None:
        """Append one line to `rounds.jsonl`, and tell the listeners."""
        append_whole(self.folder / LINES, (json.dumps(record) + "\n").encode())
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

    def cohort(self, cohort: Mapping[str, object]) -> None:
        """Write `cohort.json`."""
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
        """Write what a resume needs after a round."""
        arrays = join(weights=progress.weights, state=progress.state, agreed=progress.agreed)
        plain = ("round", "best", "privacy", "best_watched", "waited")
        head = {name: getattr(progress, name) for name in plain}
        save_file(self.folder / PROGRESS, arrays, head)

    def progress(self) -> Progress | None:
        """What the last complete round left, to go on from; `rounds.jsonl` then ends with that round."""
        self.forget_unfinished()
        if self.last_round() < 0:
            return None
        arrays, head = load_file(self.folder / PROGRESS)
        weights, state, agreed = (take(arrays, group) for group in ("weights", "state", "agreed"))
        return Progress(weights=weights, state=state, agreed=agreed, **head)

    def last_round(self) -> int:
        """The last complete round, from 0; -1 before the first."""
        path = self.folder / PROGRESS
        return int(load_file(path)[1]["round"]) if path.exists() else -1

    def forget_unfinished(self) -> None:
        """Drop the lines that the run will write again, and one that was cut off: all but those of complete rounds."""
        path, round = self.folder / LINES, self.last_round()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        records = [(line, json.loads(line)) for line in lines if line.endswith(b"\n")]
        kept = [line for line, record in records if record["phase"] in ROUND_PHASES and record["round"] <= round]
        if len(kept) < len(lines):
            write_atomic(path, b"".join(kept))

    def result(self) -> dict[str, Any] | None:
        """What `result.json` says; None before the end of the run."""
        path = self.folder / "result.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def best(self, weights: Payload) -> None:
        """Write `weights/best.safetensors`."""
        save_file(self.folder / "weights" / "best.safetensors", weights)

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


def plain_summaries(by_site: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Summaries by site and name as JSON has them."""
    return {
        site: {
            name: {"kind": s.kind.value, "values": s.values.tolist(), "persons": s.persons} for name, s in found.items()
        }
        for site, found in by_site.items()
    }
