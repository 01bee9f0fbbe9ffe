"""The stages of a run at which a site may hold what would leave until a person there has seen it."""

from flip.files import ALONE, APPLIED, CENTRALIZED, FINE_TUNED
from flip.messages import Task

STATISTICS, TRAINING, RESULTS = "statistics", "training", "results"
STAGES = (STATISTICS, TRAINING, RESULTS)
"""What is told of the cohort; all weights and validation; final scores and measures."""
OF_STEP = {"statistics": STATISTICS, "describe": STATISTICS, "plan": STATISTICS, "measure": RESULTS, "predict": RESULTS}
FINAL = ("test", ALONE, FINE_TUNED, CENTRALIZED, APPLIED)
"""Stages of the protocol in which models are scored that no later task depends on."""


def release_stage(task: Task) -> str:
    """The stage that the answer to a task is of; empty for one that tells nothing of the cohort."""
    if task.step == "begin" or (task.step == "describe" and task.params.get("tries")):
        return ""
    if task.step == "evaluate":
        return RESULTS if task.stage in FINAL else TRAINING
    return OF_STEP.get(task.step, TRAINING)


def is_last_question(task: Task) -> bool:
    """Whether nothing that is asked later depends on the answer: the run goes on without it for the time being."""
    return task.step == "evaluate" and task.stage in FINAL and task.params.get("split") == "test"
