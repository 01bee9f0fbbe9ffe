"""Models trained elsewhere that a site has on its own disk: a study names one by digest, and does not send it."""

from dataclasses import replace
from pathlib import Path

from flip.config.schema import Site
from flip.errors import UserError
from flip.messages import Fault, Payload, Task
from flip.messages.weights import digest
from flip.messages.weights_file import read_weights
from flip.site.protocol import MODEL
from flip.site.refusal import Refusal


def with_weights(task: Task, site: Site) -> Task:
    """The task with the weights that it names, from a file of the site's own; as it is where it names none.

    Raises Refusal where none of the files in the site's `models` has them.
    """
    named = task.params.get(MODEL)
    return task if named is None else replace(task, weights=_found(str(named), site))


def _found(named: str, site: Site) -> Payload:
    unread = []
    for path in site.models:
        try:
            weights = read_weights(Path(path))
        except UserError as error:
            unread += error.problems
            continue
        if digest(weights) == named:
            return weights
    why = "; ".join(
        [f"models: none of the {len(site.models)} files in the site's file has the sha256 {named}", *unread]
    )
    raise Refusal(Fault.REFUSED_NO_MODEL, why)
