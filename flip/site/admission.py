"""Whether a study may run at this site: its policy, its code, the study itself, its cohort; then the study's parts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flip import numerics
from flip.config import build
from flip.config.build import initial_module
from flip.config.checks.devices import unfit_devices
from flip.config.checks.manifest import manifest_problems, read_manifest, rounds_of
from flip.config.opt_out import list_digest
from flip.config.places import LABELED
from flip.config.policy import Policy
from flip.config.schema import SIMULATED, Site
from flip.config.site_file import load_site
from flip.config.study import Manifest
from flip.contracts import Agrees, FederatedDataModule, GivesScans, NamesLevels, Outcomes
from flip.determinism import configure_torch
from flip.errors import UserError
from flip.files import ALONE, APPLIED, CENTRALIZED, FINE_TUNED
from flip.messages import Fault, Payload, Task
from flip.messages.weights import load_arrays, to_arrays
from flip.messages.wire import take
from flip.privacy import Mechanism
from flip.site.agreed import refuse_made_up, refuse_weighed
from flip.site.bounds import Refused, bounded_numbers, few_persons, refuse_size
from flip.site.given import start_of
from flip.site.log import site_log
from flip.site.persons import persons_of
from flip.site.protocol import WHOLE, Expected
from flip.site.recompute import as_kept
from flip.site.refusal import Refusal
from flip.site.state import LocalState
from flip.site.whose import ignores_list, rows_of_nobody, without_list
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule

OWN = "own-model"  # under which the whole model is kept that a site trains for itself alone


@dataclass(frozen=True)
class Place:
    """A site: its name in the roster, its own file, and the folder of its log, state and reports, which stays there.

    `deployed` is a hospital's, not simulated: its file may wave nothing through as public or simulated. `file` is where
    its file lies, `text` what it held when it was read, `listed` the digest of those who had opted out then.
    """

    name: str
    site: Site
    home: Path
    deployed: bool = False
    file: Path | None = None
    text: bytes | None = None
    listed: str = ""

    def now(self) -> "Place":
        """The site under its file, and the list that it names, as they are now; itself where both have not changed.

        Raises Refusal for one that cannot be read: a rule that is misspelt, or a list that is gone, refuses everything.
        """
        try:
            site, text = self.site, self.file.read_bytes() if self.file else None
            if self.file is not None and (text != self.text or self.file.is_symlink()):
                site = load_site(self.file)
            listed = list_digest(site)
            same = site is self.site and listed == self.listed
            return self if same else replace(self, site=site, text=text, listed=listed)
        except (OSError, UserError) as error:
            raise Refusal(Fault.REFUSED_POLICY, str(error)) from error

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
        return LocalState(self.home / "state", run, self.listed)


@dataclass(frozen=True)
class Accepted:
    """A study that the site has accepted, before any of its data are read.

    Attributes:
        digest: sha256 of the manifest as it was sent.
        expected: what its tasks hold.
        round_problems: why its model cannot be trained in rounds.
        strategy, mechanisms, module: the study's parts that are no data.
    """

    manifest: Manifest
    digest: str
    policy: Policy
    expected: Expected
    round_problems: Sequence[str]
    strategy: FedAvg
    mechanisms: list[Mechanism]
    module: "TrainableModule"


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
    few: Refused | None  # where it trains on fewer persons than the policy permits, or too few for its model
    agreed: Payload
    deployed: bool
    pooled: bool = False  # its owner has taken the rows out, to train on them with those of other sites
    cohort: str = ""  # what the site's journal calls the persons that it has
    apart: bool = False  # from every other cohort that was answered about
    vetted: bool = True  # what is agreed is held against this site's own rows

    def agree(self, task: Task) -> None:
        """Take what all sites agreed on into the data. Raises Refusal for what is made to single out rows: what goes
        with a model trained elsewhere is held against them before the study's next own task."""
        agreed = take(task.state, "statistics")
        changed = any(not np.array_equal(array, self.agreed.get(name, ())) for name, array in agreed.items())
        if isinstance(self.datamodule, Agrees):
            elsewhere = task.stage == APPLIED or task.step in WHOLE
            if not elsewhere and (changed or not self.vetted):
                refuse_made_up(agreed or self.agreed, self.datamodule)
                refuse_weighed(agreed or self.agreed, self.datamodule, self.policy.minimum_cell)
            self.vetted = not elsewhere or (self.vetted and not changed)
        if changed and isinstance(self.datamodule, Agrees):
            self.datamodule.agree(agreed)
            self.agreed = agreed

    def receive(self, task: Task, store: LocalState) -> None:
        """Agreed statistics into the data; the site's own parameters, then the sent ones, into the module.

        A run whose site has none of its own yet begins from the start's, whatever the module was trained on before.
        Where the strategy has the site keep a whole model for itself, that one is scored; and of the final weights that
        it has trained further, what came of them. Raises Refusal where it has not.
        """
        self.agree(task)
        before, scored = task.rounds_behind, task.step == "evaluate"
        own: Payload | None = store.load("personal", before)
        if own is None and set(to_arrays(self.module)) - set(task.weights):
            own = start_of(self.manifest, store)
        load_arrays(self.module, {**(own or {}), **task.weights})
        if scored and task.stage == FINE_TUNED:
            if (tuned := store.load(FINE_TUNED, before)) is None:
                raise Refusal(Fault.REFUSED_PROTOCOL, "a score of final weights that this site has not trained further")
            load_arrays(self.module, tuned)
        elif scored and task.stage not in (ALONE, CENTRALIZED) and self.strategy.own is not None:
            load_arrays(self.module, store.load(OWN, before) or {})


def accept(text: str, place: Place, policy: Policy) -> Accepted:
    """Hold a manifest, which comes from elsewhere, against the policy and all that the coordinator's check knows.

    Raises Refusal; its details name keys and values of the study, for the site's own log.
    """
    try:
        manifest = read_manifest(text)
        if refused := policy.refuses(manifest):
            raise Refusal(*refused)
        if manifest["code"] != build.code_digest(build.targets(manifest)):
            raise Refusal(Fault.REFUSED_CODE)
        if problems := manifest_problems(text, tuple(policy.targets), place.site.precision):
            raise UserError(problems)
        if why := numerics.refusal(manifest["numerics"], place.site.accelerator):
            raise Refusal(Fault.REFUSED_NUMERICS, f"{why}. {numerics.REMEDY}")
        strategy = build.strategy(manifest)
        mechanisms = build.mechanisms(manifest)
        if refused := policy.refuses_parts(manifest, strategy, mechanisms):
            raise Refusal(*refused)
        if why := rows_of_nobody(manifest, place.site, deployed=place.deployed) or ignores_list(manifest, place.site):
            raise Refusal(Fault.REFUSED_RULE, why)
        with bounded_numbers(policy):
            module = initial_module(manifest)
    except UserError as error:
        raise Refusal(Fault.REFUSED_MANIFEST, "; ".join(error.problems)) from error
    shared, unfit = rounds_of(manifest, module, strategy)
    expected = Expected.of(strategy, module, shared, models=len(manifest["given"] or ()), mechanisms=mechanisms)
    refuse_size(policy, module, strategy)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Accepted(manifest, digest, policy, expected, unfit, strategy, mechanisms, module)


def admit(accepted: Accepted, place: Place) -> Loaded:
    """Build an accepted study over the site's data. Raises Refusal, and DataError for an unread cohort."""
    manifest, policy = accepted.manifest, accepted.policy
    configure_torch(int(manifest["trainer"]["threads"]))
    datamodule = build.datamodule(manifest, place.name, place.site)
    persons = build.persons(datamodule)
    unlabeled = manifest["dataset"].get(LABELED) is False or isinstance(datamodule, GivesScans)
    ours = unlabeled and not place.deployed  # a model is applied by the machine's owner:
    if not ours and (fault := policy.refuses_cohort(persons)):  # no number leaves, and one person may be predicted for
        raise Refusal(fault)
    if isinstance(datamodule, NamesLevels) and datamodule.names_levels and "levels" not in policy.releases:
        columns = ", ".join(datamodule.names_levels)
        why = f"policy.releases: levels are not among them, and the study does not declare those of {columns}"
        raise Refusal(Fault.REFUSED_RULE, why)
    build.load_cohort(datamodule)
    if words := without_list(datamodule, place.site):
        site_log(place.name, place.home).info("%s", words)
    return Loaded(
        manifest=manifest,
        policy=policy,
        datamodule=datamodule,
        strategy=accepted.strategy,
        mechanisms=accepted.mechanisms,
        outcomes=build.outcomes(manifest),
        module=protected(accepted.module, manifest, place.site, accepted.mechanisms),
        persons=persons,
        few=few_persons(policy, accepted.module, persons_of(datamodule, "train", policy.minimum_cell).number),
        agreed={},
        deployed=place.deployed,
    )


def protected(
    module: "TrainableModule", manifest: Manifest, site: Site, mechanisms: list[Mechanism]
) -> "TrainableModule":
    """A new module of the study, once the privacy mechanisms agree to it and to how this site trains."""
    settings = build.trainer_arguments(manifest) | ({"precision": site.precision} if site.precision else {})
    for mechanism in mechanisms:
        mechanism.check(module, settings)
    if reason := unfit_devices(site, manifest, module, mechanisms, settings):
        raise Refusal(Fault.REFUSED_RULE, f"devices: {site.devices} in the site's file: {reason}")
    return as_kept(module, site, mechanisms)
