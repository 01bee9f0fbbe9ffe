"""What a model shows of its test metrics in the report, made at the coordinator from the sums that left the sites."""

import copy
import json
import math
import traceback
from collections.abc import Collection, Mapping

import numpy as np

from flip.config.outcome_names import outcome_names
from flip.contracts import DrawsScores, FederatedModule
from flip.contracts.model import SummableMetric
from flip.coordinator.pooled_metrics import Scored
from flip.files import POOLED
from flip.messages.summary import Topic
from flip.metrics import filled


def panels_of(
    module: FederatedModule, scored: Scored, manifest: str, without: Collection[str] = ()
) -> list[dict[str, object]]:
    """The module's panels; empty for one that has none. `without` are metrics that say nothing, by name.

    A mistake in the module's own code is a panel that says so: it must not cost the run's results.
    """
    if not isinstance(module, DrawsScores):
        return []
    states: dict[str, Mapping[str, np.ndarray]] = {
        site: {name: summary.values for name, summary in reply.summaries.get(Topic.METRIC, {}).items()}
        for site, reply in scored.replies.items()
    }
    places = {place: _metrics(module, found, without) for place, found in {**states, POOLED: scored.states}.items()}
    try:
        found = module.panels(places, outcome_names(json.loads(manifest).get("dataset") or {}))
        return [json.loads(json.dumps(_plain(panel), allow_nan=False)) for panel in found]
    except Exception as error:  # the study's own code, or what it returns
        traceback.print_exc()
        text = f"{type(module).__name__} could not draw its panels: {type(error).__name__}: {error}"
        return [{"title": "The model's own panels", "note": text}]


def _metrics(
    module: FederatedModule, states: Mapping[str, np.ndarray], without: Collection[str]
) -> dict[str, SummableMetric]:
    """Copies of the module's metrics whose states are all there, holding them."""
    own = {name: copy.deepcopy(metric) for name, metric in module.metrics.items() if name not in without}
    return filled(own, states)


def _plain(value: object) -> object:
    """Without the numbers that JSON lacks: NaN and infinity are None."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case float():
            return value if math.isfinite(value) else None
    return value
