"""A site's half of a secure sum to which each site adds its share of the noise, in the ring, before it masks."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from flip.messages import Fault, Reply, Task
from flip.privacy import Broken
from flip.privacy.released import Floats, Paid, Update, noise_on, only_once, stream_of
from flip.privacy.secure.at_site import SumAtSite, as_array
from flip.privacy.secure.ring import Ring, encode
from flip.privacy.secure.session import Rules, Session

MOVE = "sum-move"  # what is kept in the site's store of an update
ROOM = 4  # numbers of a sum are so many times smaller than without noise, of which each is one of three parts


@dataclass(frozen=True)
class Share:
    """What a site needs to know to add its share.

    Attributes:
        paid: what the ledger holds for the fit; None in the other steps of a sum.
        bounded: the move of an update that is noised, and the norm of what one unit changes of it.
        deviation: of a site's noise in steps, of the multiplier and that norm, the site's part of the mean, how many
            numbers have noise, and how many shares make the whole.
        colluding: sites of a sum that may tell their noise to the coordinator.
    """

    paid: Paid | None
    bounded: Callable[[Update], tuple[Floats, float]]
    deviation: Callable[[tuple[float, float], float, int, int], int]
    colluding: int


@dataclass(frozen=True)
class NoisedSumAtSite(SumAtSite):
    """One task of a secure sum under noise at one site."""

    share: Share = field(kw_only=True)

    def keep(self, task: Task, reply: Reply) -> Reply:
        """Keep what was trained, and how its noise is paid. Raises Broken where nothing is paid, or it was used."""
        paid = self.share.paid
        if paid is None or paid.task != task.digest:
            raise Broken("nothing in the ledger is for this fit", Fault.REFUSED_BUDGET)
        update = Update.of(task, reply, paid.trained)
        moved, norm = self.share.bounded(update)
        only_once(self.site, paid, moved)
        kept = {"fit": as_array(task.digest.encode()), "paid": as_array(paid.noise.encode())}
        kept |= {"change": np.array([paid.multiplier, norm]), "noised": update.noised, "base": update.base}
        self.site.store.save(MOVE, task.round, {**kept, "moved": moved})
        return super().keep(task, reply)

    def numbers(self, task: Task, session: Session) -> Ring:
        """The site's part of the mean in the ring, under its share of the noise.

        Raises Broken where the sites do not weigh the same, or too few of them keep their noise to themselves.
        """
        kept = self._moved(task)
        began = {site: keys.weight for site, keys in session.public.items()}
        sites = len(began)
        if len({*began.values()}) != 1:
            raise Broken("sites of different weight, of which one would change the mean by more", Fault.REFUSED_RULE)
        honest = Rules(threshold=self.settings.threshold).needed(sites) - self.share.colluding
        if honest < 1:
            raise Broken("a sum in which no site keeps its noise to itself", Fault.REFUSED_RULE)
        noised, (multiplier, norm) = kept["noised"].astype(np.bool_), kept["change"].tolist()
        deviation = self.share.deviation((multiplier, norm), 1 / sites, int(noised.sum()), honest)
        # of one fit the noise is another for each set of sites; that one of them alone is opened, `question` sees to
        purpose = json.dumps(["distributed_dp/noise", *sorted(began)])
        noise = noise_on(
            noised, stream_of(self.site, kept["paid"].tobytes().decode(), purpose, kept["moved"]), deviation
        )
        parts = [
            encode(kept[each], 1 / sites, sites=ROOM * sites, bits=self.settings.bits) for each in ("base", "moved")
        ]
        return parts[0] + parts[1] + noise.view(np.uint64)

    def question(self, session: Session, present: Collection[str]) -> str:
        """What may be opened of one fit once: the sum over these sites, with the noise of those that it began with."""
        return json.dumps([sorted(present), sorted(session.began)])

    def _moved(self, task: Task) -> Mapping[str, np.ndarray]:
        kept = self.site.store.load(MOVE, task.round + 1) or {}
        if "fit" not in kept or kept["fit"].tobytes().decode() != task.params["fit"]:
            raise Broken("a sum of a fit that this site has not done, or no longer has")
        return kept
