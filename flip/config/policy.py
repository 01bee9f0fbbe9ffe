"""A site's own policy: may this study run here? The site decides, and the answer to no is a reason.

A new rule is a field of `Policy`, its check in `Policy.read`, its line in a new site's file
(`flip.config.site_template`) and its words (`flip.deploy.permits`); and a line of `Policy.refuses` if it is on the
manifest, of `Policy.refuses_parts` if the study's parts show it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

from flip.config import rules
from flip.config.approvers import NOBODY, Approvers, Release
from flip.config.demands import Demand, moved_by_noise, refused_strategy
from flip.config.places import refusals
from flip.config.rules import DEPLOYED, REFUSED, RELEASES, REQUIRED, UNITS
from flip.config.study import Manifest
from flip.config.targets import STUDY_TARGETS, prefix_problems
from flip.errors import UserError, close, nearest
from flip.messages import Fault
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg

PUBLIC = "public_data"
Read = TypeVar("Read")


@dataclass(frozen=True)
class Policy:
    """What a site permits.

    Attributes:
        minimum_persons: distinct persons that a cohort must hold before anything is computed on it.
        minimum_cell: persons that must stand behind every number that leaves the site.
        near_cohorts: `REFUSED` is a cohort that differs by fewer persons than minimum_cell from one that was answered
            about, in whichever study, since the two answers together tell of these few; `ANSWERED` asks for nothing.
        rounding: what every count that leaves is a multiple of; 1: as it is.
        targets: prefixes of the code that a study may name here, and single classes by name; of libraries and of the
            engine only what is listed (`flip.config.places`), unless its name stands here.

    What follows bounds what a study takes, and how far a coordinator can lead it; a simulation has no bound that it
    does not state, a hospital those of `DEPLOYED`.

        minimum_batch: distinct persons of a training batch, in most batches of a fit.
        persons_per_parameter: persons to train on for each parameter of a model that is one linear layer; 0: any.
        maximum_parameters: numbers that a model holds.
        maximum_rounds: federated rounds of a study.
        maximum_steps: optimizer steps of a site in a round, and in all further training after the last one.
        maximum_seconds: of one task; the process in which the site computes ends after them.
        maximum_memory: gigabytes (10^9 bytes) that the site's process may hold; beyond it the process ends.
        maximum_change: root mean square by which the weights that the site is sent may have moved in a round.
        maximum_questions: different questions about the cohort that are ever answered, over all runs and studies: a
            cohort as a study's dataset defines it, or the edges of its histograms. What was asked before is no new one.
        share: the largest part, above 0 and to 1, that a study's own weights may give one site in a round.
        least_sites: sites that a round of the study must have, by its `strategy.min_sites`.
        secure_aggregation: `REQUIRED` asks for a mechanism by which what the site sends is opened in a sum with other
            sites' alone (`Mechanism.secure_sums`), and refuses every study without one; None asks for none.
        privacy: the mechanism that a study must have, and the most that it may spend; None asks for none.
        models: sha256 of what was trained elsewhere and a study may send here: of weights, to begin from them, and of
            weights with what rows are prepared by, to apply them (`flip.messages.model_file.model_digest`); None: any.
            A hospital takes none that its file does not name.
        releases: the kinds of `RELEASES` that leave; all others stay. At a hospital `levels` stay unless it says so.
        trackers: the online trackers that a study's numbers may go to, by the name that its coordinator tells
            (`flip.config.online_trackers.online`); None permits any. At a hospital none unless it says so.
        approval: who must have approved a study, and how many of them; None asks for none. A hospital whose file does
            not say it has nobody who can, and refuses every study.
        release: the stages of a run at which what would leave waits for a person to release it; None: it leaves.
    """

    minimum_persons: int
    minimum_cell: int
    targets: Sequence[str] = STUDY_TARGETS
    near_cohorts: str = REFUSED
    rounding: int = 1
    minimum_batch: int = 1
    persons_per_parameter: int = 0
    maximum_parameters: int | None = None
    maximum_rounds: int | None = None
    maximum_steps: int | None = None
    maximum_seconds: float | None = None
    maximum_memory: float | None = None
    maximum_change: float | None = None
    maximum_questions: int = 10
    share: float | None = None
    least_sites: int = 1
    secure_aggregation: str | None = None
    privacy: Demand | None = None
    models: Sequence[str] | None = None
    releases: Sequence[str] = RELEASES
    trackers: Sequence[str] | None = None
    approval: Approvers | None = None
    release: Release | None = None

    @property
    def digest(self) -> str:
        """Sha256 over every rule: what was answered under one policy is not handed out under another."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, site: str, value: object, *, deployed: bool = False) -> "Policy":
        """Read the `policy` key of a site's file. Raises UserError naming site, key and remedy.

        `deployed` is a hospital under its own file, which may not wave its data through as public.
        """
        where = f"sites.{site}.policy"
        if value == PUBLIC and deployed:
            raise UserError(
                f"{where}={PUBLIC}: is for simulations; a hospital's own file states minimum_persons and minimum_cell"
            )
        if value == PUBLIC:
            return cls(minimum_persons=1, minimum_cell=1)
        if not isinstance(value, Mapping):
            raise UserError(
                f"{where}={value!r}: write 'public_data' for public or synthetic data, "
                "else a mapping with minimum_persons and minimum_cell"
            )
        names = [field.name for field in fields(cls)]
        others = sorted(map(str, {*value} - {*names}))
        problems = [f"{where}.{key}: no such rule; {nearest(key, names)}" for key in others]
        misspelt = [close(key, names) for key in others]
        problems += [*rules.units(where, value, misspelt, vars(cls)), *rules.bounds(where, value)]
        problems += [*rules.releases(where, value), *rules.models(where, value)]
        if deployed and value.get("minimum_persons") == value.get("minimum_cell") == 1:
            problems.append(
                f"{where}: minimum_persons: 1 and minimum_cell: 1 is {PUBLIC} by another name, for simulations; "
                "state how many persons a cohort must hold, and how many must stand behind every number"
            )
        problems += prefix_problems(f"{where}.targets", value.get("targets", STUDY_TARGETS))
        demand, approval = value.get("privacy"), NOBODY if deployed else None
        privacy = None if demand is None else part(Demand.read, f"{where}.privacy", demand, problems)
        if "approval" in value:
            approval = part(Approvers.read, f"{where}.approval", value["approval"], problems)
        held = value.get("release")
        release = None if held is None else part(Release.read, f"{where}.release", held, problems)
        if problems:
            raise UserError(problems)
        stated = {key: value[key] for key in (*UNITS, *DEPLOYED, "secure_aggregation", "near_cohorts") if key in value}
        stated = {**(DEPLOYED if deployed else {}), **stated, **rules.lists(value, deployed=deployed)}
        return cls(**stated, privacy=privacy, approval=approval, release=release)

    def refuses(self, manifest: Manifest) -> tuple[Fault, str] | None:
        """Why a study may not run here, by its manifest, with what the site's own log adds; None where it may.

        A rule without a fault of its own gives `REFUSED_RULE`, and names itself and its value for the log.
        """
        if refused := [*refusals(manifest, self.targets)]:
            return Fault.REFUSED_TARGET, "; ".join(refused)
        given = manifest.get("given") or []
        if self.models is not None and (unknown := [each for each in given if each not in self.models]):
            return Fault.REFUSED_MODEL, f"policy.models: {', '.join(map(ascii, unknown))} is not among them"
        return None

    def refuses_parts(
        self, manifest: Manifest, strategy: FedAvg, mechanisms: Sequence[Mechanism]
    ) -> tuple[Fault, str] | None:
        """The same by the study's parts, once they are made from a manifest in which there is no mistake."""
        refused = [*refused_strategy(strategy, self.share, self.least_sites)]
        if self.secure_aggregation == REQUIRED and not any(each.secure_sums for each in mechanisms):
            why = "the study has no mechanism by which only a sum over sites is opened"
            refused.append(f"policy.secure_aggregation={REQUIRED}: {why}")
        if self.privacy is not None and (unmet := self.privacy.unmet(manifest, mechanisms)):
            refused.append(unmet)
        most = self.maximum_change
        if most is not None and (strategy.most_change or 0) > most and moved_by_noise(mechanisms, strategy.rounds):
            why = f"the study's noise moves the weights by up to strategy.most_change={strategy.most_change:g}"
            refused.append(f"policy.maximum_change={most:g}: {why}, which would be refused once it is spent")
        return (Fault.REFUSED_RULE, "; ".join(refused)) if refused else None

    def refuses_trackers(self, names: str) -> str:
        """Why a study whose numbers go to these online trackers (names with commas) is refused, for the log; or ""."""
        unknown = sorted({*names.split(",")} - {"", *self.trackers}) if self.trackers is not None else []
        listed = ", ".join(ascii(each)[:80] for each in unknown[:5])
        return f"policy.trackers: the study's numbers go to {listed}" if unknown else ""

    def refuses_cohort(self, persons: int) -> Fault | None:
        """The refusal of a cohort that is too small, or None."""
        return Fault.REFUSED_COHORT if persons < self.minimum_persons else None


def part(read: Callable[[str, object], Read], where: str, value: object, problems: list[str]) -> Read | None:
    """A rule that has keys of its own, or None with its mistakes among the problems."""
    try:
        return read(where, value)
    except UserError as error:
        problems += error.problems
        return None


def widened(value: object, prefixes: Sequence[str]) -> object:
    """The `policy` of a simulated site with further code allowed: its owner is the owner of the study.

    A value that is not a policy is left as it is, for `Policy.read` to refuse.
    """
    stated = {"minimum_persons": 1, "minimum_cell": 1} if value == PUBLIC else value
    if not prefixes or not isinstance(stated, Mapping):
        return value
    allowed = stated.get("targets", list(STUDY_TARGETS))
    return {**stated, "targets": list(dict.fromkeys([*allowed, *prefixes]))} if isinstance(allowed, list) else value
