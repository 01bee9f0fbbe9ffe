"""A site's half of a secure sum: what it trained stays in its store until it is masked, as do the round's secrets."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.messages import Fault, Payload, Reply, Task
from flip.messages.weights import digest
from flip.messages.wire import join, take
from flip.privacy import AtSite, Broken
from flip.privacy.secure.keys import KEY, Keys, Pair, Round
from flip.privacy.secure.ring import Ring, encode
from flip.privacy.secure.session import STEPS, Rules, Session

SAID, SHARES, PRESENT, LOST, TOLD = "keys", "shares", "present", "lost", "told"  # groups of arrays in messages
MASKED, FORMS, AGREED = "masked", "forms", "agreed"
UPDATE, SESSION, PEERS = "sum-update", "sum-session", "sum-peers"  # what is kept in the site's store


@dataclass(frozen=True)
class Settings:
    """What a study states of its sums: the scale in bits behind the point, and the part of sites that must stay."""

    bits: int
    threshold: float


@dataclass(frozen=True)
class SumAtSite:
    """One task of a secure sum at one site."""

    settings: Settings
    site: AtSite
    identity: Ed25519PrivateKey

    def keep(self, task: Task, reply: Reply) -> Reply:
        """Keep what was trained, with the weight that it has in the mean; the reply goes on without it.

        Raises Broken for numbers that are none.
        """
        trained = {**reply.weights, **reply.state}
        if not all(np.isfinite(each).all() for each in trained.values() if np.issubdtype(each.dtype, np.inexact)):
            raise Broken("what was trained holds NaN or infinite numbers", Fault.NOT_FINITE)
        kept = {"fit": as_array(task.digest.encode()), "weight": np.array([self.site.weight(reply)])}
        self.site.store.save(UPDATE, task.round, {**kept, **join(weights=reply.weights, state=reply.state)})
        return replace(reply, weights={}, state={})

    def answer(self, task: Task) -> Reply:
        """One step of a sum. Raises Broken, after which the site takes no other step of the same one."""
        session = self._session(task)
        steps = (self._keys, self._shares, self._masked, self._survivors, self._unmask)
        try:
            state = steps[STEPS.index(task.step)](task, session)
        finally:
            self.site.store.save(SESSION, task.round, kept_session(session))
        return Reply(self.site.name, task.digest, state=state)

    def _keys(self, task: Task, session: Session) -> Payload:
        weight = float(self._update(task)["weight"][0])
        return {SAID: as_array(session.keys(weight))}

    def _shares(self, task: Task, session: Session) -> Payload:
        said = texts(take(task.state, SAID))
        session.roster = self._roster(said, task.round)
        made = session.shares(said)
        self.site.store.save(PEERS, task.round, arrays(session.roster))
        return join(**{SHARES: arrays(made)})

    def _masked(self, task: Task, session: Session) -> Payload:
        names, rows = sorted(session.began), take(task.state, SHARES)
        if any(each.shape[0] != len(names) for each in rows.values()):
            raise Broken("shares for other sites than the round began with")
        own = names.index(self.site.name) if self.site.name in names else 0
        shares = {by: each[own].tobytes() for by, each in rows.items() if by != self.site.name}
        forms = forms_of(numbers_in(self._update(task)))
        return {MASKED: session.masked(shares, self.numbers(task, session)), FORMS: as_array(forms.encode())}

    def numbers(self, task: Task, session: Session) -> Ring:
        """The site's part of the mean in the ring."""
        update = numbers_in(self._update(task))
        flat = np.concatenate([array.reshape(-1).astype(np.float64) for array in ordered(update)] or [np.zeros(0)])
        part = session.part() if session.began else 1.0
        return encode(flat, part, sites=max(len(session.began), 1), bits=self.settings.bits)

    def question(self, session: Session, present: Collection[str]) -> str:
        """What may be opened of numbers once: the sum over these sites."""
        return json.dumps(present)

    def _survivors(self, task: Task, session: Session) -> Payload:
        return {AGREED: as_array(session.survivors(*came(task)))}

    def _unmask(self, task: Task, session: Session) -> Payload:
        sealed, (present, lost) = digest(numbers_in(self._update(task))), came(task)
        told = session.unmask(present, lost, texts(take(task.state, AGREED)))
        if not self.site.once(f"sum of {sealed}", self.question(session, sorted(present))):
            raise Broken("the very same numbers were opened in a sum over other sites, from which this could be taken")
        return join(**{TOLD: arrays(told)})

    def _update(self, task: Task) -> Mapping[str, np.ndarray]:
        """What the fit that is to be summed gave here. Raises Broken where this site has not done it."""
        kept = self.site.store.load(UPDATE, task.round + 1) or {}
        if "fit" not in kept or kept["fit"].tobytes().decode() != task.params["fit"]:
            raise Broken("a sum of a fit that this site has not done, or no longer has")
        return kept

    def _roster(self, said: Mapping[str, bytes], round: int) -> dict[str, bytes]:
        """The identity keys of all sites: those of the site's file; simulated without any, those of first use."""
        own = {self.site.name: self.identity.public_key().public_bytes_raw()}
        if self.site.peers:
            return {**{name: bytes.fromhex(key) for name, key in self.site.peers.items()}, **own}
        before = self.site.store.load(PEERS, round + 1) or {}
        return {**{site: Keys.of(text).identity for site, text in said.items()}, **texts(before), **own}

    def _session(self, task: Task) -> Session:
        """The session of a task, which "keys" begins. Raises Broken for one that this site has not, or no longer."""
        round = Round(task.run, task.round, str(task.params["session"]), str(task.params["fit"]))
        policy = self.site.policy
        rules = Rules(policy.least_sites, self.settings.threshold, policy.share)
        session = Session(round, self.site.name, self.identity, {}, rules)
        kept = self.site.store.load(SESSION, task.round + 1) or {}
        same = "round" in kept and kept["round"].tobytes() == round.salt()
        if task.step == STEPS[0] and not same:
            return session
        if not same:
            raise Broken("a sum that this site has not begun, or no longer has")
        secrets = kept["pair"].tobytes()
        session.pair = Pair(*(secrets[start : start + KEY] for start in range(0, 3 * KEY, KEY)))
        session.began, session.held = texts(take(kept, "began")), texts(take(kept, "held"))
        session.due, session.list = kept["due"].tobytes().decode(), kept["list"].tobytes()
        return session


def kept_session(session: Session) -> dict[str, np.ndarray]:
    """A session as arrays of the site's store; once its last step is done its secrets are not among them."""
    over = session.due == ""
    secrets = bytes(3 * KEY) if over else session.pair.hides + session.pair.masks + session.pair.seed
    kept = {"round": session.round.salt(), "pair": secrets, "due": session.due.encode(), "list": session.list}
    held = {} if over else session.held
    return {
        **{name: as_array(text) for name, text in kept.items()},
        **join(began=arrays(session.began), held=arrays(held)),
    }


def came(task: Task) -> tuple[set[str], set[str]]:
    """Who is in the sum and who was lost, as a task says it."""
    return {*take(task.state, PRESENT)}, {*take(task.state, LOST)}


def as_array(text: bytes) -> np.ndarray:
    """Bytes as an array."""
    return np.frombuffer(text, np.uint8)


def arrays(named: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Bytes by name as arrays."""
    return {name: as_array(text) for name, text in named.items()}


def texts(named: Payload) -> dict[str, bytes]:
    """The inverse of `arrays`."""
    return {name: array.tobytes() for name, array in named.items()}


def ordered(named: Payload) -> Iterable[np.ndarray]:
    """Arrays in the order in which all sites have them."""
    return (named[name] for name in sorted(named))


def numbers_in(update: Payload) -> dict[str, np.ndarray]:
    """Of what is kept of a fit the arrays that are summed."""
    return {name: array for name, array in update.items() if "/" in name}


def forms_of(named: Payload) -> str:
    """Names, types and shapes of what is summed, as JSON, in the order of the numbers."""
    return json.dumps([[name, named[name].dtype.str, list(named[name].shape)] for name in sorted(named)])
