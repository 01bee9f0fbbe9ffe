"""What each `job=` does: the one table that a new job is added to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        runs: dotted name of the coordinator's function, `(loop, ask) -> final weights, or None`. It is named as text,
            as a `_target_` is, since a configuration is read where no coordinator is loaded.
        trains: whether it trains: it has rounds, weights and a report of scores; the others describe the cohorts.
    """

    runs: str
    trains: bool = False


JOBS = {
    "train": Job("flip.coordinator.jobs.train", trains=True),
    "check": Job("flip.coordinator.describe.check"),
    "statistics": Job("flip.coordinator.describe.statistics"),
    "measure": Job("flip.coordinator.measure.measure"),
}
