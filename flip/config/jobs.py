"""What each `job=` does: the one table that a new job is added to.

A job is a function of the coordinator's, `(loop, ask) -> final weights, or None`, in a file of its own. It begins with
`flip.coordinator.cohorts.gather` (every site's cohort; returns the faults) or `agree` (the same, and raises StudyFailed
if too few sites can train), through `loop.through_mechanisms(ask)`, so that the study's privacy mechanisms see every
task. It asks through `loop.roster.asked`, which checks and records each reply, and raises StudyFailed for what ends the
run. What it learns of the cohorts goes to `loop.roster.recorder.description`, from which the report's page is made.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        runs: dotted name of the coordinator's function. It is named as text, as a `_target_` is, since a configuration
            is read where no coordinator is loaded.
        about: what it does, for `flip --help`: a line of at most 38 characters.
        trains: whether it trains: it has rounds and weights.
        scores: whether it tests a model, so that its report is of scores; the others describe the cohorts.
        applies: the most models of `model_from` that it applies.
    """

    runs: str
    about: str
    trains: bool = False
    scores: bool = False
    applies: int = 0


JOBS = {
    "train": Job("flip.coordinator.jobs.train", "train the study", trains=True, scores=True),
    "check": Job("flip.coordinator.describe.check", "what each site would bring"),
    "statistics": Job("flip.coordinator.describe.statistics", "the same, as a page with plots"),
    "plan": Job("flip.coordinator.plan.plan", "propose grid, patch and network"),
    "evaluate": Job("flip.coordinator.apply.evaluate", "score model_from=RUN, train nothing", scores=True, applies=20),
    "measure": Job("flip.coordinator.measure.measure", "apply model_from=RUN to whole cohorts", applies=1),
    "predict": Job("flip.coordinator.measure.predict", "predict by model_from=RUN, unlabeled", applies=1),
}
