"""Trackers: where the numbers go besides the run folder. The coordinator alone logs; a site never does."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from flip.files import NOT_SETTINGS, POOLED, write_atomic


class Tracker(Protocol):
    """Follows a run line by line, to its end."""

    def start(self, run: Path) -> None:
        """The run begins; its folder holds `run.yaml`."""

    def line(self, record: Mapping[str, Any]) -> None:
        """One line of `rounds.jsonl`, as it is written."""

    def finish(self, run: Path, result: Mapping[str, Any]) -> None:
        """The run has ended; its folder is complete."""


class CsvTracker:
    """Writes `metrics.csv` into the run folder: round (from 1), phase, site, metric, value. Always on.

    It is made from `rounds.jsonl` at the end, so that a resumed run's table is complete.
    """

    def start(self, run: Path) -> None:
        """Nothing: the table is made at the end."""

    def line(self, record: Mapping[str, Any]) -> None:
        """Nothing: `rounds.jsonl` has the line already."""

    def finish(self, run: Path, result: Mapping[str, Any]) -> None:
        """Write the table."""
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["round", "phase", "site", "metric", "value"])
        lines = (run / "rounds.jsonl").read_text().splitlines() if (run / "rounds.jsonl").exists() else []
        for record in map(json.loads, lines):
            for name, value in values_of(record):
                table.writerow([record["round"] + 1, record["phase"], record["site"], name, value])
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

    def start(self, run: Path) -> None:
        """Open the W&B run, its settings from `run.yaml`; once that file is written, to log while the study runs."""
        from omegaconf import OmegaConf

        os.environ["WANDB_ERROR_REPORTING"] = "false"  # W&B reads it when it is imported; it has no setting for this
        import wandb

        settings = OmegaConf.to_container(OmegaConf.load(run / "run.yaml"), resolve=False)
        config = {str(key): value for key, value in dict(settings).items() if key not in NOT_SETTINGS}  # type: ignore[arg-type]
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group or str(config.get("name", run.parent.name)),
            name=run.name,
            mode=self.mode,  # type: ignore[arg-type]
            dir=str(run),
            config=config,
            settings=wandb.Settings(**private_settings()),
        )
        self._run.define_metric("*", step_metric="round")
        while self._waiting:
            self._run.log(self._waiting.pop(0))

    def line(self, record: Mapping[str, Any]) -> None:
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

    def finish(self, run: Path, result: Mapping[str, Any]) -> None:
        """Log the result and the report, and close."""
        if self._run is None:
            self.start(run)
        import wandb

        self._run.summary.update({key: result.get(key) for key in ("status", "reason", "digest", "rounds", "seconds")})
        self._run.summary.update(dict(result.get("metrics") or {}))
        if (run / "report.html").exists():
            self._run.log({"report": wandb.Html((run / "report.html").read_text(), inject=False)})
        failed = int(result.get("status") != "ok")
        self._run.finish(exit_code=failed)
        wandb.teardown(exit_code=failed)  # W&B's own process writes its last records as it ends
        self._run = None


def values_of(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
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
