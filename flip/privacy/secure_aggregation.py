"""Secure aggregation (Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flip.errors import UserError
from flip.messages import Answer, Ask, Fault, Reply, Task
from flip.privacy import AtSite, Broken, Mechanism
from flip.privacy.secure.session import STEPS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from flip.privacy.secure.at_site import Settings, SumAtSite

MOST = 10**8  # examples of a site where none has said how many it has
SCALES = (8, 40)  # bits behind the point, of the 62 that a sum has


@dataclass
class SecureAggregation(Mechanism):
    """Of what the sites trained in a round the coordinator learns the weighted mean alone.

    Each pair of sites agrees on a mask that one adds and the other subtracts, and each site adds one of its own; shares
    of what the masks come from are with all others, so that those of a site that is lost can be taken out. What was
    trained stays at a site until the others' signed keys are there. A number is a multiple of 2^-scale in the ring of
    integers modulo 2^64: the mean is within sites * 2^-(scale + 1) of the exact one, divided by the part of the weight
    that came to the end. Whole numbers (counters of layers) become their mean, rounded to nearest.

    What else leaves a site (examples, losses, metrics, statistics) is each site's own, as without it.

    Args:
        scale: bits behind the point, from 8 to 40; a site whose numbers do not fit beside it refuses.
        threshold: part of the sites of a round that must come to its end, above two thirds and to 1.
    """

    scale: int = 32
    threshold: float = 0.7
    _weight: Callable[[Reply], float] | None = field(default=None, init=False, repr=False)
    _told: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    strategies = ("sum",)
    secure_sums = True
    steps = STEPS

    def __post_init__(self) -> None:
        problems = []
        if not SCALES[0] <= self.scale <= SCALES[1]:
            problems.append(f"privacy.secure_aggregation.scale={self.scale}: must be from {SCALES[0]} to {SCALES[1]}")
        if not 2 / 3 < self.threshold <= 1:
            problems.append(
                f"privacy.secure_aggregation.threshold={self.threshold}: must be above 2/3 and at most 1: with fewer "
                "sites a coordinator that lies to them could open one site's numbers"
            )
        if problems:
            raise UserError(problems)

    def lend(self, weight: Callable[[Reply], float]) -> None:
        """Take the strategy's weight of a reply."""
        self._weight = weight

    def wrap_ask(self, ask: Ask) -> Ask:
        """Have what is trained in a round come as a sum; each site's reply to a fit then holds the mean."""
        from flip.privacy.secure.at_coordinator import Sum

        def asked(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
            if (task.step, task.stage) != ("fit", "study"):
                for reply in ask(task, sites):
                    if task.step == "statistics":
                        self._told[reply.site] = reply.examples
                    yield reply
                return
            assert self._weight is not None
            yield from Sum(ask, task, self._settings, self._weight, self._credible).replies(sites)

        return asked

    def wrap_answer(self, answer: Answer, site: AtSite) -> Answer:
        """Keep what was trained here until it is masked; answer the steps of a sum.

        Raises Broken at a hospital whose file does not name the other sites' keys.
        """
        from flip.privacy.secure.keys import identity_of

        identity = identity_of(site.key)
        if site.deployed and not {*site.peers} - {site.name}:
            own = identity.public_key().public_bytes_raw().hex()
            raise Broken(
                "privacy=secure_aggregation: this site's file names no peers, so that anyone could pose as the others; "
                f"write their names and keys under peers. The key of this one is {own}",
                Fault.REFUSED_RULE,
            )

        def answered(task: Task) -> Reply:
            if task.step in STEPS:
                return self._at_site(site, identity).answer(task)
            if task.step == "fit" and task.stage == "alone":
                raise Broken("privacy=secure_aggregation: a training alone is in no sum", Fault.REFUSED_RULE)
            reply = answer(task)
            trained = task.step == "fit" and task.stage == "study" and reply.fault is None
            return self._at_site(site, identity).keep(task, reply) if trained else reply

        return answered

    def _at_site(self, site: AtSite, identity: "Ed25519PrivateKey") -> "SumAtSite":
        """What answers the steps of a sum at a site, and keeps what was trained."""
        from flip.privacy.secure.at_site import SumAtSite

        return SumAtSite(self._settings, site, identity)

    @property
    def _settings(self) -> "Settings":
        from flip.privacy.secure.at_site import Settings

        return Settings(self.scale, self.threshold)

    def _credible(self, reply: Reply) -> bool:
        """Whether a site says no more examples than before the rounds; one that said none, than all others together."""
        return 0 < reply.examples <= self._told.get(reply.site, sum(self._told.values()) or MOST)
