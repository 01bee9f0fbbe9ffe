"""The coordinator of a study, and what it does with an `Ask` for each `job=`."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial

from flip.config import build
from flip.config.jobs import JOBS
from flip.config.study import Manifest
from flip.config.targets import resolve
from flip.contracts import ComparesSites, DeclaresReasons, DeclaresRemarks, KnowsWhatOccurs
from flip.coordinator.evaluation import Evaluation
from flip.coordinator.loop import Coordinator
from flip.coordinator.roster import Roster
from flip.messages import Ask, Payload
from flip.messages.match import begin_from
from flip.messages.summary import EVERYBODY
from flip.privacy import private_among, unit_of
from flip.runs.folder import RunFolder
from flip.runs.models import kept_models, kept_start, stays


def coordinator(
    run: str,
    manifest: Manifest,
    *,
    text: str,
    trains: Mapping[str, bool],
    files: RunFolder,
    alone: bool,
    trackers: str,
    fine_tuned: int | None = None,
) -> Coordinator:
    """The coordinator of a study; goes on after the last complete round that the folder holds."""
    strategy, dataset = build.strategy(manifest), resolve(str(manifest["dataset"]["_target_"]))
    roster = Roster(run, text, trains, strategy.min_sites, files, trackers)
    whole_cohort(roster, manifest)
    mechanisms, module = build.mechanisms(manifest), build.initial_module(manifest)
    private, start = private_among(mechanisms), kept_start(files.folder)
    roster.unit = unit_of(mechanisms)
    begin_from(module, start)
    return Coordinator(
        roster,
        Evaluation(roster, module, build.outcomes(manifest), strategy.rounds, private=private),
        seed=manifest["seed"],
        strategy=strategy,
        mechanisms=mechanisms,
        reasons=declared(dataset),
        alone=alone,
        fine_tuned=fine_tuned,
        progress=files.progress(),
        given=kept_models(files.folder),
        start=start,
        given_stays=stays(files.folder),
    )


def whole_cohort(roster: Roster, manifest: Manifest) -> None:
    """Tell the roster what a dataset that knows it asks of all sites together; of no other one is anything made."""
    if not any(hasattr(resolve(str(manifest["dataset"]["_target_"])), name) for name in ("occurs", "compared")):
        return
    dataset = build.declared(manifest["dataset"])
    if isinstance(dataset, KnowsWhatOccurs):
        roster.must_occur = list(dataset.must_occur)
    if isinstance(dataset, ComparesSites):
        roster.compare = dataset.unlearnable


def declared(dataset: object) -> frozenset[str]:
    """The reasons and remarks of a class of datasets, these also as of everybody."""
    reasons = dataset.REASONS if isinstance(dataset, DeclaresReasons) else frozenset[str]()
    remarks = dataset.REMARKS if isinstance(dataset, DeclaresRemarks) else frozenset[str]()
    return reasons | remarks | {EVERYBODY + each for each in remarks}


def program(job: str, loop: Coordinator) -> Callable[[Ask], Payload | None]:
    """What the coordinator does with an `Ask` for this job (`flip.config.jobs`)."""
    module, _, name = JOBS[job].runs.rpartition(".")
    runs: Callable[[Coordinator, Ask], Payload | None] = getattr(importlib.import_module(module), name)
    return partial(runs, loop)


def train(loop: Coordinator, ask: Ask) -> Payload:
    """`job=train`: the federated study; its final weights."""
    return loop(ask)
