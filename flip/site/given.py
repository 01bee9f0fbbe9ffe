"""Weights that the coordinator was given, from a run or a file: a site takes those alone that its own policy names.

`Policy.models` was held against the manifest, which names their digests (`given`), when the study was accepted; here
the arrays are held against the manifest: of weights to begin from these alone, of a model to apply what its rows are
prepared by as well.
"""

from flip.config.build import initial_module
from flip.config.study import Manifest
from flip.messages import Fault, Payload, Task
from flip.messages.match import match
from flip.messages.model_file import model_digest
from flip.messages.weights import digest, to_arrays
from flip.messages.wire import take
from flip.site.refusal import Refusal
from flip.site.state import LocalState

GIVEN = "given"  # under which name a site keeps the weights that the rounds begin from


def refuse_unnamed(manifest: Manifest, found: str) -> None:
    """Raises Refusal for a digest that the manifest does not name."""
    named = manifest["given"] or []
    if found not in named:
        raise Refusal(
            Fault.REFUSED_WEIGHTS, f"their digest is {found}, and the study's manifest names {named or 'none'}"
        )


def refuse_other_model(manifest: Manifest, task: Task) -> None:
    """Raises Refusal for a model to apply, with what its rows are prepared by, that the manifest does not name."""
    refuse_unnamed(manifest, model_digest(task.weights, take(task.state, "statistics")))


def begin(manifest: Manifest, weights: Payload, store: LocalState) -> None:
    """Keep the weights from which the rounds of this run begin. Raises Refusal for others than the manifest names."""
    refuse_unnamed(manifest, digest(weights))
    own = to_arrays(initial_module(manifest))
    store.save(GIVEN, 0, {**own, **match(own, weights).taken})


def start_of(manifest: Manifest, store: LocalState) -> Payload:
    """All weights of the model before the first round: the seeded ones, with those in their place that were given.

    Raises Refusal where the study names given ones and they have not been sent.
    """
    if manifest["given"] is None:
        return to_arrays(initial_module(manifest))
    if (found := store.load(GIVEN, 1)) is None:
        raise Refusal(Fault.REFUSED_WEIGHTS, "the study begins from given weights, and they have not been sent")
    return found
