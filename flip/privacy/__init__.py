"""Privacy mechanisms: middleware around asking and answering. One file each.

`Mechanism` is what each may override; none of its methods does anything by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flip.messages import Answer, Ask, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from pytorch_lightning import LightningModule

    from flip.contracts.dataset import Loader


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
The ledger adds `run`, and `noise`, which tells its noise from others'.
"""


class Mechanism:
    """A privacy mechanism; the outermost of several acts first on `ask`, last on `answer`."""

    strategies = ("sum", "each")
    """Which kinds of strategy (`FedAvg.needs`) it can serve; another pairing is refused when the study is built."""

    private = False
    """Whether nothing of a person leaves a site but under its noise: all else stays there (`flip.site.releases`)."""

    secure_sums = False
    """Whether what a site sends can be opened in a sum over several sites alone (`policy.secure_aggregation`)."""

    def wrap_ask(self, ask: Ask) -> Ask:
        """Change what the coordinator sends or receives."""
        return ask

    def wrap_answer(self, answer: Answer) -> Answer:
        """Change what the site receives or sends."""
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

    def plan(self, batches: int, steps: int) -> list[Entry]:
        """What a study adds to the ledger of a site whose training data make so many batches, in so many steps in all.

        Raises UserError, which names key and remedy, for a target that cannot be met there.
        """
        return []

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Privacy spent by a run's entries in the ledger."""
        return None


def private_among(mechanisms: Sequence[Mechanism]) -> Mechanism | None:
    """The mechanism under which nothing leaves without noise; None where there is none."""
    return next((each for each in mechanisms if each.private), None)


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
