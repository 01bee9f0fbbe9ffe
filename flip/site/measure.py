"""`job=measure` at a site: a finished run's model, applied to the whole cohort; what it measures stays there."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from flip.config import build
from flip.config.checks.manifest import manifest_problems
from flip.contracts import Agrees, GivesScans, MeasuresScans
from flip.messages import Fault, Task
from flip.messages.applied import Applied
from flip.messages.model_file import ModelFile
from flip.messages.weights import load_arrays
from flip.site.admission import Loaded, Place
from flip.site.refusal import Refusal

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule


def measure(place: Place, loaded: Loaded, task: Task) -> None:
    """Have the study's `outcomes` measure every person as one who is tested on, into the site's own folder.

    Of a dataset that gives scans without labels they measure these. Files are readable by their owner alone, as
    `outcomes` write for a site. Raises DataError for a cohort that cannot be read.
    """
    load_arrays(loaded.module, task.weights)
    data = build.datamodule(loaded.manifest, place.name, replace(place.site, trains=False))
    build.load_cohort(data)
    if loaded.agreed and isinstance(data, Agrees):
        data.agree(loaded.agreed)
    outcomes = loaded.outcomes
    assert outcomes is not None  # the job is for a study that has some (`flip.config.checks`)
    if not isinstance(data, GivesScans):
        outcomes.collect(loaded.module, data, place.home)
        return
    if not isinstance(outcomes, MeasuresScans):
        raise Refusal(Fault.REFUSED_MANIFEST, "the study's outcomes measure no scans without labels")
    known = Applied.of(task.state)
    companions = {name: companion(each, place, loaded) for name, each in known.companions.items()}
    build.of_data(
        lambda: outcomes.predict(
            loaded.module, data, place.home, companions=companions, scores=known.scores, digest=known.digest
        )
    )


def companion(model: ModelFile, place: Place, loaded: Loaded) -> "TrainableModule":
    """The module of a model of another study, held against the rules of the site as the study itself is."""
    text = json.dumps(model.manifest, sort_keys=True, separators=(",", ":"))
    if problems := manifest_problems(text, tuple(loaded.policy.targets), place.site.precision):
        raise Refusal(Fault.REFUSED_MANIFEST, "; ".join(problems))
    module = build.initial_module(json.loads(text))
    load_arrays(module, model.weights)
    return module
