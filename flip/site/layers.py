"""A study's privacy mechanisms around a site's answer to one task."""

from flip.messages import Answer, Reply, Task
from flip.privacy import AtSite, Broken
from flip.site.admission import Loaded, Place
from flip.site.budget import Budget
from flip.site.counters import Counter
from flip.site.refusal import Refusal
from flip.site.secret import mechanism_key, site_secret


def through_mechanisms(answer: Answer, place: Place, loaded: Loaded, task: Task) -> Answer:
    """The answer as the mechanisms let it leave: the coordinator's layers mirrored, its outermost one innermost here.

    Were they in the same order at both ends, a layer would be handed what another has changed, and undo the wrong one.
    What a mechanism cannot keep its promise with is a Refusal.
    """

    def answered(task: Task) -> Reply:
        wrapped = answer
        try:
            for number, mechanism in enumerate(loaded.mechanisms):
                wrapped = mechanism.wrap_answer(wrapped, at_site(number, place, loaded, task))
            return wrapped(task)
        except Broken as error:
            raise Refusal(error.fault, str(error)) from error

    return answered


def at_site(number: int, place: Place, loaded: Loaded, task: Task) -> AtSite:
    """What the site lends to one mechanism of the study, by its place among them, for one task.

    Its key is of the site's secret, the mechanism's class and how many of that come before, so that none has the key
    of another, be it of the same class, of noise or of the ledger. Raises as `site_secret`.
    """
    secret = site_secret(place.name, place.site, place.home, task)
    kinds = [each.keyed_as or type(each) for each in loaded.mechanisms[: number + 1]]
    kind, before = kinds[-1], kinds[:-1].count(kinds[-1])
    key = mechanism_key(secret, kind, before)
    asked = Counter(place.home / "state" / "once.jsonl")
    return AtSite(
        name=place.name,
        key=key,
        store=place.store(task.run),
        ledger=Budget(place, loaded.policy, task),
        policy=loaded.policy,
        weight=loaded.strategy.weight,
        once=lambda thing, question: asked.take(thing, question, 1),
        deployed=place.deployed,
        peers=place.site.peers,
    )
