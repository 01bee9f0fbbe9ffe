"""Trackers: where the numbers go besides the run folder. The coordinator alone logs; a site never does."""

import csv
import io
import json
import math
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flip.files import NOT_SETTINGS, POOLED, write_atomic
from flip.text import printable

Fields = Mapping[str, Any]  # of a line of rounds.jsonl, or of result.json
PATIENCE = 60.0  # seconds that W&B's server may take to begin a run, and to end it


class Tracker(Protocol):
    """Follows a run line by line, to its end."""

    def start(self, run: Path) -> str | None:
        """The run begins; its folder holds `run.yaml`. Returns a sentence to the user, if there is need of one."""

    def line(self, record: Fields) -> None:
        """One line of `rounds.jsonl`, as it is written."""

    def finish(self, run: Path, result: Fields) -> None:
        """The run has ended; its folder is complete."""


class Guarded:
    """A tracker whose failure is told, and is not taken for the run's, which goes on without it.

    Args:
        key: where it stands in the configuration.
        tracker: the tracker.
        note: shows a sentence to the user.
    """

    def __init__(self, key: str, tracker: Tracker, note: Callable[[str], None] = print) -> None:
        self.key, self.tracker, self.note, self.failed = key, tracker, note, False

    def start(self, run: Path) -> None:
        """Start the tracker, and show what it has to say."""
        sentence = self._try(lambda: self.tracker.start(run))
        if sentence:
            self.note(f"{self.key}: {sentence}")

    def line(self, record: Fields) -> None:
        """Hand on a line."""
        self._try(lambda: self.tracker.line(record))

    def finish(self, run: Path, result: Fields) -> None:
        """End the tracker."""
        self._try(lambda: self.tracker.finish(run, result))

    def _try(self, call: Callable[[], str | None]) -> str | None:
        """Call a tracker that has not failed; its traceback is in the log."""
        try:
            return None if self.failed else call()
        except Exception as error:  # whatever it is, it is the tracker's and not the run's
            self.failed = True
            traceback.print_exc()
            self.note(f"{self.key}: failed ({type(error).__name__}, see log.txt); the run goes on without it")
            return None


class CsvTracker:
    """Writes `metrics.csv` into the run folder: round (from 1), phase, site, metric, value. Always on.

    It is made from `rounds.jsonl` at the end, so that a resumed run's table is complete.
    """

    def start(self, run: Path) -> None:
        """Nothing: the table is made at the end."""

    def line(self, record: Fields) -> None:
        """Nothing: `rounds.jsonl` has the line already."""

    def finish(self, run: Path, result: Fields) -> None:
        """Write the table."""
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["round", "phase", "site", "metric", "value"])
        lines = (run / "rounds.jsonl").read_text().splitlines() if (run / "rounds.jsonl").exists() else []
        for record in map(json.loads, lines):
            about = [record["round"] + 1, printable(record["phase"]), printable(record["site"])]
            for name, value in values_of(record):
                table.writerow([*about, printable(name), value])
        write_atomic(run / "metrics.csv", out.getvalue().encode())


class WandbTracker:
    """Logs to Weights & Biases: settings of the study, metrics by site and pooled, the report. Offline by default.

    Nothing of the machine is collected: no host, user, path, source code, git remote, console, packages or hardware.
    The files lie under the run folder (`wandb/`); `wandb sync` sends an offline run later.

    Args:
        project: project name.
        mode: "offline" (no network), or "online".
        group: name under which runs are grouped; None takes the study's name.
        entity: user or team that owns the project; None is the account's default.
    """

    def __init__(
        self, project: str, mode: str = "offline", group: str | None = None, entity: str | None = None
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"tracking.wandb.mode={mode}: must be offline or online")
        self.project, self.mode, self.group, self.entity = project, mode, group, entity
        self._waiting: list[dict[str, float]] = []
        self._run: Any = None

    def start(self, run: Path) -> str | None:
        """Open the W&B run, its settings from `run.yaml`; once that file is written, to log while the study runs.

        Without a key, or where the network or W&B is away, it is an offline run; returns a sentence that says so.
        """
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # W&B reads it when it is imported; it has no setting for this
        import wandb
        from wandb.sdk.data_types._private import MEDIA_TMP

        MEDIA_TMP.name = tempfile.mkdtemp(prefix="wandb-media")  # made at its import, in the folder of the run then
        why = None
        try:
            with no_keyboard():
                self._open(run, self.mode)
        except wandb.Error as error:
            if self.mode == "offline":
                raise
            wandb.teardown(exit_code=1)
            why = str(error).partition("\n")[0]
            self._open(run, "offline")
        self._run.define_metric("*", step_metric="round")
        while self._waiting:
            self._run.log(self._waiting.pop(0))
        later = f"this run is logged offline, and `wandb sync {run}/wandb/offline-run-*` sends it"
        return why and f"W&B cannot be used online ({why}); {later}"

    def _open(self, run: Path, mode: str) -> None:
        """Begin a run of W&B's. Raises wandb.Error."""
        import wandb
        from omegaconf import OmegaConf

        settings = OmegaConf.to_container(OmegaConf.load(run / "run.yaml"), resolve=False)
        config = {str(key): value for key, value in dict(settings).items() if key not in NOT_SETTINGS}  # type: ignore[arg-type]
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group or str(config.get("name", run.parent.name)),
            name=run.name,
            mode=mode,  # type: ignore[arg-type]
            dir=str(run),
            config=config,
            settings=wandb.Settings(**private_settings(), init_timeout=PATIENCE),
        )

    def line(self, record: Fields) -> None:
        """Log a line's numbers; they wait until the W&B run is open."""
        where = POOLED if record["site"] == POOLED else f"site/{record['site']}"
        row = {f"{record['phase']}/{where}/{name}": value for name, value in values_of(record)}
        if not row:
            return
        row["round"] = int(record["round"]) + 1
        if self._run is None:
            self._waiting.append(row)
        else:
            self._run.log(row)

    def finish(self, run: Path, result: Fields) -> None:
        """Log the result and the report, and close a run that was begun. Raises TimeoutError."""
        if self._run is None:
            self.start(run)
        self._run.summary.update({key: result.get(key) for key in ("status", "reason", "digest", "rounds", "seconds")})
        self._run.summary.update(dict(result.get("metrics") or {}))
        if (run / "report.html").exists():
            import wandb

            self._run.log({"report": wandb.Html((run / "report.html").read_text(), inject=False)})
        ending = threading.Thread(target=end, args=[self._run, int(result.get("status") != "ok")], daemon=True)
        ending.start()
        ending.join(PATIENCE)
        self._run = None
        if ending.is_alive():
            raise TimeoutError(f"W&B has not taken the last records within {PATIENCE:g} s")


def end(run: Any, failed: int) -> None:
    """End a W&B run, and W&B's own process, which writes its last records then."""
    import wandb

    run.finish(exit_code=failed)
    wandb.teardown(exit_code=failed)


@contextmanager
def no_keyboard() -> Iterator[None]:
    """Nobody answers a library's question meanwhile: the screen does not show it."""
    before = sys.stdin
    with open(os.devnull) as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = before


def values_of(record: Fields) -> Iterator[tuple[str, float]]:
    """The finite numbers of a line: its metrics, examples, bytes, seconds, and the privacy spent."""
    found = {name: record.get(name) for name in ("examples", "bytes_down", "bytes_up", "seconds")}
    spent = record.get("privacy") or {}
    found |= {f"privacy/{name}": spent[name] for name in ("epsilon", "delta") if name in spent}
    for name, value in {**(record.get("metrics") or {}), **found}.items():
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, value


def private_settings() -> dict[str, Any]:
    """W&B settings that keep it from collecting anything of the machine."""
    return {
        "console": "off",
        "silent": True,
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "save_code": False,
        "host": "coordinator",
        "username": "coordinator",
        "email": "",
        "program": "flip",
        "program_relpath": "flip",
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
    }
