"""At a live federation's server: a submission becomes a run."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from flip import numerics
from flip.config.study import Manifest
from flip.messages import Ask


@dataclass(frozen=True)
class Submission:
    """What the server's app gets of a study; no folder and no site's file stands in it.

    Attributes:
        run: identifier of the run, kept when it is resumed.
        manifest: the study as canonical JSON.
        trains: by site, whether it trains or is only tested on.
        alone: also train each site by itself, for comparison.
        timeout: seconds that one task may take at the slowest site.
        job: what is to be done with the study (`flip.config.jobs`).
        trackers: the online trackers to which who submits it sends its numbers, with commas.
        fine_tuned: for how many rounds more each site trains the final weights, for comparison; None: not at all.
    """

    run: str
    manifest: str
    trains: Mapping[str, bool]
    alone: bool
    timeout: float
    job: str = "train"
    trackers: str = ""
    fine_tuned: int | None = None

    def to_json(self) -> str:
        """The submission as one string."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Submission":
        """The inverse. Raises ValueError for anything else."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError("not a submission") from error


def serve(submission: Submission, folder: Path, ask: Ask) -> None:
    """At the server: run the study into `folder`, from its last complete round where it holds one.

    A study that fails, or that names code which this server does not have or does not allow, says so in `result.json`.
    """
    from flip.coordinator.jobs import coordinator, program
    from flip.coordinator.result import Ending, no_result
    from flip.determinism import configure_torch
    from flip.runs.folder import RunFolder

    started, manifest, files = time.perf_counter(), json.loads(submission.manifest), RunFolder(folder, [])
    if refused := unfit(manifest):
        files.json("result.json", no_result(refused, 0.0))
        return
    configure_torch(int(manifest["trainer"]["threads"]))
    loop = coordinator(
        submission.run,
        manifest,
        text=submission.manifest,
        trains=submission.trains,
        files=files,
        alone=submission.alone,
        fine_tuned=submission.fine_tuned,
        trackers=submission.trackers,
    )
    Ending(files, loop, partial(program(submission.job, loop), ask), "RUN", served=True).reach(started)


def unfit(manifest: Manifest) -> str:
    """Why this server does not run a study: code not allowed or of another version, numerics; empty if it does."""
    from flip.config.code import code_digest
    from flip.config.places import refusals
    from flip.config.targets import STUDY_TARGETS, targets

    if refused := next(refusals(manifest, STUDY_TARGETS), None):
        return f"the server does not allow this study: {refused}"
    if manifest["code"] != code_digest(targets(manifest)):
        return "the server has another version of the engine or of the study's code; install the same on both"
    if why := numerics.refusal(manifest["numerics"], "cpu"):
        return f"the study asks for numerics: portable, but the server's {why}. {numerics.REMEDY}"
    return ""
