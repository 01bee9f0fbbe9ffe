"""Whether a study may run at this site: its policy, its code, its cohort; then the study's parts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flip import numerics
from flip.config import build
from flip.config.build import initial_module
from flip.config.policy import Policy
from flip.config.schema import SIMULATED, Site
from flip.config.study import Manifest
from flip.contracts import Agrees, FederatedDataModule, Outcomes
from flip.determinism import configure_torch
from flip.errors import UserError
from flip.messages import Fault, Payload, Task
from flip.messages.weights import load_arrays
from flip.messages.wire import take
from flip.privacy import Mechanism
from flip.site.bounds import bounded_numbers, refuse_size
from flip.site.disclosure import enough
from flip.site.persons import persons_of
from flip.site.refusal import Refusal
from flip.site.state import LocalState
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule


@dataclass(frozen=True)
class Place:
    """A site: its name in the roster, its own file, and the folder of its log, state and reports, which stays there.

    `deployed` is a hospital's, not simulated: its file may wave nothing through as public or simulated.
    """

    name: str
    site: Site
    home: Path
    deployed: bool = False

    def policy(self) -> Policy:
        """The site's policy. Raises Refusal for a file that does not permit a study."""
        try:
            if self.deployed and self.site.secret == SIMULATED:
                raise UserError(f"secret: '{SIMULATED}' protects nothing; name a file, or null for one of its own")
            return Policy.read(self.name, self.site.policy, deployed=self.deployed)
        except UserError as error:
            raise Refusal(Fault.REFUSED_POLICY, str(error)) from error

    def store(self, run: str) -> LocalState:
        """What the site keeps for itself of a run."""
        return LocalState(self.home / "state", run)


@dataclass
class Loaded:
    """What a site keeps between the tasks of one study; `persons` are those of the whole cohort."""

    manifest: Manifest
    policy: Policy
    module: "TrainableModule"
    datamodule: FederatedDataModule
    strategy: FedAvg
    mechanisms: list[Mechanism]
    outcomes: Outcomes | None
    persons: int
    agreed: Payload
    deployed: bool
    pooled: bool = False  # its owner has taken the rows out, to train on them with those of other sites

    def agree(self, task: Task) -> None:
        """Take the statistics that all sites agreed on into the data."""
        agreed = take(task.state, "statistics")
        changed = any(
            name not in self.agreed or not np.array_equal(array, self.agreed[name]) for name, array in agreed.items()
        )
        if changed and isinstance(self.datamodule, Agrees):
            self.datamodule.agree(agreed)
            self.agreed = agreed

    def receive(self, task: Task, store: LocalState) -> None:
        """Agreed statistics into the data; the site's own parameters, then the sent ones, into the module."""
        self.agree(task)
        before = task.round + (1 if task.step == "evaluate" else 0)
        load_arrays(self.module, {**(store.load("personal", before) or {}), **task.weights})


def admit(text: str, place: Place) -> Loaded:
    """Build the study of a manifest, once the site agrees to it. Raises Refusal, and DataError for an unread cohort."""
    manifest, policy = json.loads(text), place.policy()
    if refused := policy.refuses(manifest):
        raise Refusal(*refused)
    if manifest["code"] != build.code_digest(build.targets(manifest)):
        raise Refusal(Fault.REFUSED_CODE)
    if why := numerics.refusal(manifest["numerics"], place.site.accelerator):
        raise Refusal(Fault.REFUSED_NUMERICS, f"{why}. {numerics.REMEDY}")
    configure_torch(int(manifest["trainer"]["threads"]))
    datamodule = build.datamodule(manifest, place.name, place.site)
    persons = build.persons(datamodule)
    if fault := policy.refuses_cohort(persons):
        raise Refusal(fault)
    build.load_cohort(datamodule)
    trained = persons_of(datamodule, "train", policy.minimum_cell).number
    if trained and not enough(trained, policy.minimum_cell):
        raise Refusal(Fault.REFUSED_FEW_PERSONS, f"{trained} persons to train on, minimum_cell: {policy.minimum_cell}")
    mechanisms, strategy = build.mechanisms(manifest), build.strategy(manifest)
    with bounded_numbers(policy):
        module = protected_module(manifest, place.site, mechanisms)
    refuse_size(policy, module, strategy, trained)
    return Loaded(
        manifest=manifest,
        policy=policy,
        module=module,
        datamodule=datamodule,
        strategy=strategy,
        mechanisms=mechanisms,
        outcomes=build.outcomes(manifest),
        persons=persons,
        agreed={},
        deployed=place.deployed,
    )


def protected_module(manifest: Manifest, site: Site, mechanisms: list[Mechanism]) -> "TrainableModule":
    """The study's module, once the privacy mechanisms agree to it and to how this site trains."""
    module = initial_module(manifest)
    settings = build.trainer_arguments(manifest)
    settings |= {"precision": site.precision} if site.precision else {}
    for mechanism in mechanisms:
        mechanism.check(module, settings)
    return module
