"""A study's privacy mechanisms around a site's answer to one task."""

import hashlib
import hmac

from flip.messages import Answer, Task
from flip.privacy import AtSite
from flip.site.admission import Loaded, Place
from flip.site.budget import Budget
from flip.site.secret import site_secret


def through_mechanisms(answer: Answer, place: Place, loaded: Loaded, task: Task) -> Answer:
    """The answer as the mechanisms let it leave: the coordinator's layers mirrored, its outermost one innermost here.

    Were they in the same order at both ends, a layer would be handed what another has changed, and undo the wrong one.
    """
    for number, mechanism in enumerate(loaded.mechanisms):
        answer = mechanism.wrap_answer(answer, at_site(number, place, loaded, task))
    return answer


def at_site(number: int, place: Place, loaded: Loaded, task: Task) -> AtSite:
    """What the site lends to one mechanism of the study, by its place among them, for one task.

    Its key is of the site's secret, the mechanism's class and its place, so that none has the key of another, be it of
    the same class, of noise or of the ledger. Raises as `site_secret`.
    """
    kind, secret = type(loaded.mechanisms[number]), site_secret(place.name, place.site, place.home, task)
    own = f"mechanism:{number}:{kind.__module__}.{kind.__qualname__}".encode()
    key = hmac.new(secret, own, hashlib.sha256).digest()
    return AtSite(place.name, key, place.store(task.run), Budget(place, loaded.policy, task), loaded.policy)
