"""`job=evaluate`: models that were trained elsewhere are scored at every site; nothing is trained, no weights leave."""

from flip.coordinator.cohorts import gather
from flip.coordinator.loop import Coordinator
from flip.errors import StudyUnfit
from flip.files import APPLIED
from flip.messages import Ask
from flip.runs.models import model_name


def evaluate(loop: Coordinator, ask: Ask) -> None:
    """Score each model at every site that has a cohort, also at those that only test; all count for what is pooled.

    The first one's metrics are named as those of a training, `test/...`, the others' `baseline/model_2/test/...`.
    Raises StudyFailed where too few sites can take part, or none has test data.
    """
    roster, ask = loop.roster, loop.through_mechanisms(ask)
    faults = gather(roster, ask, loop.reasons)
    roster.trains = dict.fromkeys(roster.trains, True)
    roster.enough(len(roster.sites(training=False)), faults, "to be tested on")
    if not loop.given:
        raise StudyUnfit("model_from: has no value, so there is nothing to evaluate")
    for number, model in enumerate(loop.given):
        roster.prepare_as(model)
        prefix = "test" if number == 0 else f"baseline/{model_name(number)}/test"
        loop.evaluation.test(
            ask,
            APPLIED,
            {} if loop.given_stays else model.weights,
            prefix,
            model=model.digest if loop.given_stays else "",
            pooled=model.pooled,
            main=number == 0,
            threshold=model.scores.get("threshold"),
        )
