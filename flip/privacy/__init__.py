"""Privacy mechanisms: middleware around asking and answering. One file each.

`Mechanism` is what each may override; none of its methods does anything by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flip.messages import Answer, Ask, Fault, Reply, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from pytorch_lightning import LightningModule

    from flip.contracts.dataset import Loader


class Broken(ValueError):
    """What another party sent, or what this one would send, with which a mechanism cannot keep its promise.

    The site answers with `fault`; the text, which names no row, is for its own log.
    """

    def __init__(self, why: str, fault: Fault = Fault.REFUSED_PROTOCOL) -> None:
        super().__init__(why)
        self.fault = fault


NOISE_ROOM = 2.0
"""Deviations: 14 numbers have a root mean square beyond it once in a million rounds, more numbers never."""
UNIT = "person"
"""Whose presence the engine's mechanisms hide: a person with all of their rows, added or left out."""


@dataclass(frozen=True)
class Spent:
    """Privacy spent by a site: (epsilon, delta)-differential privacy of the stated unit."""

    epsilon: float
    delta: float
    unit: str = UNIT


Entry = dict[str, float | str]
"""What a fit, or another release, adds to a site's ledger: Gaussian noise on Poisson samples of persons.

`noise_multiplier` is the noise's deviation in units of what one person changes, `sample_rate` the probability with
which a person is in a step, `steps` their number; a number that is released once with noise is of rate 1 and 1 step.
What hides a whole site in place of a person says so (`unit`), and hides each person of it as well; `law` is that of
noise that is not Gaussian (`flip.privacy.accounting`). The ledger adds `run`, and `noise`, which tells its noise from
others'.
"""


class Store(Protocol):
    """What a site keeps of a run for itself; it never travels (`flip.site.state.LocalState`)."""

    def load(self, name: str, before: int) -> "Mapping[str, np.ndarray] | None":
        """Arrays saved under `name` in the latest round earlier than `before`; None if there never were any."""

    def save(self, name: str, round: int, arrays: "Mapping[str, np.ndarray]") -> None:
        """Keep arrays under `name` for this round."""


class Purse(Protocol):
    """The budget of a site's data and the ledger of what was spent (`flip.site.budget.Budget`)."""

    def reserve(self, entries: Sequence[Entry], noise_key: bytes) -> list[Entry]:
        """Spend what entries say before the noise of this key is used, which the same key again does not.

        Returns all that this run has spent; the site refuses the task where the budget has less left.
        """


class Rules(Protocol):
    """The site's policy, as far as a mechanism enforces it (`flip.config.policy.Policy`)."""

    @property
    def least_sites(self) -> int:
        """Sites that a round of the study must have."""

    @property
    def minimum_cell(self) -> int:
        """Persons that must stand behind every number that leaves the site."""

    @property
    def share(self) -> float | None:
        """The largest part of a round's mean that may be one site's; None: any."""


@dataclass(frozen=True)
class AtSite:
    """What a site lends to one mechanism for one task.

    Attributes:
        name: the site's name in the roster.
        key: 32 bytes that this site alone has, this mechanism's own: of the site's secret, which does not travel.
        store: what the site keeps of the run.
        ledger: where noise is paid for before it is used.
        policy: the site's rules, as its file holds them now.
        weight: the weight of a reply of this site in the strategy's mean.
        once: whether of a thing (the first text) a question (the second) is the first ever asked at this site, over all
            runs, or that one again.
        deployed: the site is a hospital's, not simulated.
        peers: by site the public key that its owner handed over, of 64 hexadecimal digits; empty: none did.
    """

    name: str
    key: bytes
    store: Store
    ledger: Purse
    policy: Rules
    weight: Callable[[Reply], float]
    once: Callable[[str, str], bool]
    deployed: bool
    peers: Mapping[str, str]


class Mechanism:
    """A privacy mechanism.

    Several lie around one another as layers do, in the study's order: the first acts on a task before the others at the
    coordinator, and after them at a site; on a reply before the others at a site, and after them at the coordinator.
    What one did to a reply at the site, its own other half finds there as it left it.
    """

    strategies: Sequence[str] = ("sum", "each")
    """Which kinds of strategy (`FedAvg.needs`) it can serve; another pairing is refused when the study is built."""

    private = False
    """Whether nothing of a person leaves a site but under its noise: all else stays there (`flip.site.releases`)."""

    secure_sums = False
    """Whether what a site sends can be opened in a sum over several sites alone (`policy.secure_aggregation`)."""

    sampled = True
    """Whether its epsilon counts on a person being in few batches: a site then refuses batches of nearly everybody."""

    keyed_as: "type[Mechanism] | None" = None
    """The class whose key of a site's secret it has, where that is not its own: one that others know the site by."""

    steps: Sequence[str] = ()
    """Steps of its own that it asks sites for (`flip.site.sums`): no study without it has them."""

    def lend(self, weight: Callable[[Reply], float]) -> None:
        """Take what the coordinator lends: the weight of a reply in the strategy's mean."""

    def wrap_ask(self, ask: Ask) -> Ask:
        """Change what the coordinator sends or receives."""
        return ask

    def wrap_answer(self, answer: Answer, site: AtSite) -> Answer:
        """Change what the site receives or sends; `site` is what it lends for this task."""
        return answer

    def check(self, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
        """Raise UserError, in one sentence, for a model or settings of Lightning's Trainer that it cannot protect."""

    def prepare(self, fit: "PrivateFit") -> None:
        """Change module, optimizer and loader of one local fit, before Lightning starts."""

    def metrics_noise(self) -> Entry | None:
        """What the ledger holds for the test metrics of one model; None: no metric leaves.

        Its `noise_multiplier` is the deviation of Gaussian noise, in units of what one person can change.
        """
        return None

    def stated(self) -> Spent | None:
        """The most that a study spends at any site, by its settings alone; None where that depends on the data."""
        return None

    def plan(self, batches: int, steps: int, rounds: int) -> list[Entry]:
        """What a study adds to the ledger of a site whose training data make so many batches, in so many steps in all.

        Raises UserError, which names key and remedy, for a target that cannot be met there.
        """
        return []

    def moves(self, rounds: int, sites: int) -> float | None:
        """Deviation of its noise in each number of a round's mean over so many sites that weigh the same.

        None: it lies on steps of a fit, or nowhere, and the size of what is sent does not follow from it.
        """
        return None

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Privacy spent by a run's entries in the ledger."""
        return None


def private_among(mechanisms: Sequence[Mechanism]) -> Mechanism | None:
    """The mechanism under which nothing leaves without noise; None where there is none."""
    return next((each for each in mechanisms if each.private), None)


def unit_of(mechanisms: Sequence[Mechanism]) -> str:
    """Of whom the epsilon is that the mechanisms spend, as the first that spends any says it."""
    return next((spent.unit for each in mechanisms if (spent := each.spent([]))), UNIT)


@dataclass
class PrivateFit:
    """One local fit as a mechanism sees and may change it.

    `ledger` has the entries of this run at this site so far; a mechanism appends this fit's, which the site writes down
    before it trains. `noise_key` is 32 bytes from HMAC(site secret, task digest and data fingerprint): the same task on
    the same data gives the same key. `whose` is a code of the person of each example, int64 [n], in the order of the
    loader's dataset; None: each example is a person's own.
    """

    module: "LightningModule"
    loader: "Loader"
    steps: int  # optimizer steps of this fit
    planned_steps: int  # of all rounds of the study at this site
    task: Task
    noise_key: bytes
    ledger: list[Entry]
    whose: "NDArray[np.int64] | None" = None
