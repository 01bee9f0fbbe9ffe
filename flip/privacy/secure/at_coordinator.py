"""The coordinator's half of a secure sum: it asks for each step of it, and yields the mean."""

import json
import math
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flip.messages import ROOM, Ask, Fault, Payload, Reply, Scalar, Task
from flip.messages.safetensors import FORMATS
from flip.messages.wire import join, take
from flip.privacy import Broken
from flip.privacy.secure import shamir
from flip.privacy.secure.at_site import (
    AGREED,
    FORMS,
    LOST,
    MASKED,
    PRESENT,
    SAID,
    SHARES,
    TOLD,
    Settings,
    arrays,
    texts,
)
from flip.privacy.secure.keys import SIGNATURE, SIGNED, Keys, Round, verified
from flip.privacy.secure.opening import open_sum
from flip.privacy.secure.ring import Ring, decode
from flip.privacy.secure.session import HIDDEN, LEAST

HERE = np.ones(1, np.uint8)  # a name in a message that holds nothing but names


@dataclass
class Sum:
    """The sum of one fit over sites.

    Args:
        ask: what reaches the sites.
        task: the fit.
        settings: what the study states.
        weight: the weight of a reply in the mean.
        credible: whether a reply may count for as many examples as it says.
    """

    ask: Ask
    task: Task
    settings: Settings
    weight: Callable[[Reply], float]
    credible: Callable[[Reply], bool]
    session: str = field(default_factory=lambda: secrets.token_hex(16))
    faults: dict[str, Fault] = field(default_factory=dict)  # of the sites that came to no end, and why
    seconds: dict[str, float] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    forms: str = ""

    def replies(self, sites: Sequence[str]) -> Iterator[Reply]:
        """One reply per site, in the order of the sites: of those in the sum each has the mean for its arrays."""
        fits = {reply.site: reply for reply in self.ask(self.task, sites)}
        for site, reply in fits.items():
            self._note(reply)
            if reply.fault is None and (reply.task_digest != self.task.digest or not self.credible(reply)):
                self.faults[site] = Fault.IMPLAUSIBLE
        mean, state = self._mean(fits)
        for site in sites:
            seconds, sent = self.seconds[site], self.sent[site]
            if fault := self.faults.get(site):
                yield Reply(site, self.task.digest, fault=fault, seconds=seconds, sent=sent)
            else:
                yield replace(fits[site], weights=mean, state=state, seconds=seconds, sent=sent)

    def _mean(self, fits: Mapping[str, Reply]) -> tuple[Payload, Payload]:
        """The mean over the sites that came to the end, as weights and state; none where they are too few."""
        began = self._keys(fits)
        dealt = self._shares(began)
        total, present = self._masked(began, dealt)
        before = dict(self.faults)
        told = self._unmask(present, {*dealt} - present)
        if total is None or len(told) < LEAST:
            return self._unopened(present)
        keys = {site: Keys.of(text) for site, text in began.items()}
        whole = math.fsum(each.weight for each in keys.values())
        part = math.fsum(keys[site].weight / whole for site in present)
        try:
            wrong = open_sum(total, self._round, present, began=began, told=told)
        except Broken:
            return self._unopened(present)
        # who told no shares is in the sum all the same, and who told wrong ones is named
        self.faults = before | dict.fromkeys(wrong, Fault.INVALID)
        named = split(decode(total, part, bits=self.settings.bits), self.forms)
        return take(named, "weights"), take(named, "state")

    def _unopened(self, present: Collection[str]) -> tuple[Payload, Payload]:
        self.faults |= {site: Fault.UNOPENED for site in present if site not in self.faults}
        return {}, {}

    @property
    def _round(self) -> Round:
        return Round(self.task.run, self.task.round, self.session, self.task.digest)

    def _keys(self, fits: Mapping[str, Reply]) -> dict[str, bytes]:
        """The signed keys by site; one that says another weight than its fit has is left out."""
        began: dict[str, bytes] = {}

        def take_keys(reply: Reply) -> bool:
            if not of_bytes(reply.state, [SAID], SIGNED):
                return False
            text = reply.state[SAID].tobytes()
            keys = Keys.of(text)
            verified({reply.site: text}, {reply.site: keys.identity}, self._round)
            began[reply.site] = text
            return keys.weight == self.weight(fits[reply.site])

        able = self._asked("keys", [site for site in fits if site not in self.faults], {}, take_keys)
        return {site: began[site] for site in able}

    def _shares(self, began: Mapping[str, bytes]) -> dict[str, Mapping[str, bytes]]:
        """By site, its hidden shares for each other one."""
        dealt: dict[str, Mapping[str, bytes]] = {}

        def take_shares(reply: Reply) -> bool:
            dealt[reply.site] = texts(take(reply.state, SHARES))
            return of_bytes(reply.state, [f"{SHARES}/{site}" for site in began if site != reply.site], HIDDEN)

        able = self._asked("shares", began, join(**{SAID: arrays(began)}), take_shares)
        return {site: dealt[site] for site in able}

    def _masked(
        self, began: Mapping[str, bytes], dealt: Mapping[str, Mapping[str, bytes]]
    ) -> tuple[Ring | None, set[str]]:
        """The sum of the masked numbers, and the sites that are in it: each is added as it comes.

        Of several forms that of the most sites is summed: who sends another is lost, and named.
        """
        rows = {by: b"".join(each.get(site, bytes(HIDDEN)) for site in sorted(began)) for by, each in dealt.items()}
        state = {name: array.reshape(-1, HIDDEN) for name, array in arrays(rows).items()}
        totals: dict[str, Ring] = {}
        senders: dict[str, set[str]] = {}

        def add(reply: Reply) -> bool:
            numbers, forms = reply.state.get(MASKED), reply.state.get(FORMS)
            if {*reply.state} != {MASKED, FORMS} or numbers is None or forms is None or numbers.dtype != np.uint64:
                return False
            text = forms.tobytes().decode()
            if numbers.shape != (size_of(text, self.task.weights),):
                return False
            totals.setdefault(text, np.zeros_like(numbers))
            totals[text] += numbers
            senders.setdefault(text, set()).add(reply.site)
            return True

        able = {*self._asked("masked", dealt, join(**{SHARES: state}), add)}
        self.forms = max(senders, key=lambda text: len(senders[text]), default="")
        present = senders.get(self.forms, set())
        self.faults |= dict.fromkeys(able - present, Fault.INVALID)
        return totals.get(self.forms), present

    def _unmask(self, present: Collection[str], lost: Collection[str]) -> dict[str, dict[str, bytes]]:
        """By site, its shares of the secrets that take the masks out; who tells none is in the sum all the same."""
        told: dict[str, dict[str, bytes]] = {}
        signed: dict[str, bytes] = {}
        lists = {PRESENT: dict.fromkeys(present, HERE), LOST: dict.fromkeys(lost, HERE)}

        def take_signature(reply: Reply) -> bool:
            signed[reply.site] = reply.state[AGREED].tobytes()
            return of_bytes(reply.state, [AGREED], SIGNATURE)

        def take_told(reply: Reply) -> bool:
            told[reply.site] = texts(take(reply.state, TOLD))
            return of_bytes(reply.state, [f"{TOLD}/{site}" for site in (*present, *lost)], shamir.SHARE)

        agreed = self._asked("survivors", present, join(**lists), take_signature)
        state = join(**lists, **{AGREED: arrays({site: signed[site] for site in agreed})})
        able = self._asked("unmask", agreed, state, take_told)
        return {site: told[site] for site in able}

    def _asked(self, step: str, sites: Collection[str], state: Payload, takes: Callable[[Reply], bool]) -> list[str]:
        """Ask sites for a step; those whose answer could be taken. Of the others the fault is noted."""
        able: list[str] = []
        if len(sites) < LEAST:
            self._unopened(sites)
            return able
        room = sum(array.nbytes for array in (*self.task.weights.values(), *self.task.state.values()))
        params: dict[str, Scalar] = {"session": self.session, "fit": self.task.digest, ROOM: room}
        task = replace(self.task, step=step, weights={}, state=state, params={**self.task.params, **params})
        for reply in self.ask(task, sorted(sites)):
            self._note(reply)
            try:
                sound = reply.fault is None and reply.task_digest == task.digest and takes(reply)
            except (Broken, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                sound = False  # what no site of ours sends
            if sound:
                able.append(reply.site)
            else:
                self.faults[reply.site] = reply.fault or Fault.INVALID
        return able

    def _note(self, reply: Reply) -> None:
        """What a step took, and how much came."""
        if reply.fault is not None:
            self.faults[reply.site] = reply.fault
        self.seconds[reply.site] = self.seconds.get(reply.site, 0.0) + reply.seconds
        self.sent[reply.site] = self.sent.get(reply.site, 0) + sum(each.nbytes for each in reply.state.values())


def of_bytes(state: Payload, names: Collection[str], length: int) -> bool:
    """Whether a reply has bytes of this length under these names, and nothing else."""
    return {*state} == {*names} and all(each.dtype == np.uint8 and each.shape == (length,) for each in state.values())


def size_of(forms: str, weights: Payload) -> int:
    """How many numbers arrays of these forms hold. Raises ValueError where they are not those of the weights sent."""
    told = {name: (kind, tuple(shape)) for name, kind, shape in json.loads(forms)}
    sent = {f"weights/{name}": (array.dtype.str, array.shape) for name, array in weights.items()}
    if {name: each for name, each in told.items() if not name.startswith("state/")} != sent:
        raise ValueError("other weights than were sent")
    sizes = [each for _, shape in told.values() for each in shape]
    if not (
        all(kind in FORMATS for kind, _ in told.values()) and all(type(each) is int and each >= 0 for each in sizes)
    ):
        raise ValueError("arrays of an unknown form")
    return sum(math.prod(shape) for _, shape in told.values())


def split(numbers: np.ndarray, forms: str) -> dict[str, np.ndarray]:
    """Numbers [n] as arrays of their names, types and shapes; a whole number is the mean, rounded to nearest."""
    found, start = {}, 0
    for name, kind, shape in json.loads(forms):
        end = start + math.prod(shape)
        dtype, part = np.dtype(kind), numbers[start:end].reshape(shape)
        found[name] = (part if np.issubdtype(dtype, np.floating) else np.rint(part)).astype(dtype)
        start = end
    return found
