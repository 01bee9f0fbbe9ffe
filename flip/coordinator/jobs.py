"""What each `job=` does."""

from collections.abc import Callable, Mapping
from typing import Any

from flip.config import build
from flip.config.targets import resolve
from flip.coordinator.describe import describe
from flip.coordinator.loop import Coordinator
from flip.messages import Ask, Payload
from flip.runs.folder import RunFolder


def coordinator(
    run: str, manifest: Mapping[str, Any], *, text: str, trains: Mapping[str, bool], files: RunFolder, alone: bool
) -> Coordinator:
    """The coordinator of a study; goes on after the last complete round that the folder holds."""
    from flip.config.build import initial_module

    return Coordinator(
        run=run,
        manifest=text,
        seed=manifest["seed"],
        module=initial_module(manifest),
        strategy=build.strategy(manifest),
        trains=trains,
        recorder=files,
        outcomes=build.outcomes(manifest),
        mechanisms=build.mechanisms(manifest),
        reasons=getattr(resolve(manifest["dataset"]["_target_"]), "REASONS", frozenset()),
        alone=alone,
        progress=files.progress(),
    )


def program(job: str, loop: Coordinator) -> Callable[[Ask], Payload | None]:
    """What the coordinator does with an `Ask`: trains, or describes the sites' cohorts."""
    return loop if job == "train" else lambda ask: describe(loop, ask, job)
