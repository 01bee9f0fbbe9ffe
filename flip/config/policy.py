"""A site's own policy: may this study run here? The site decides, and the answer to no is a reason.

A new rule is a field of `Policy`, its check in `Policy.read`, its line in a new site's file
(`flip.config.site_template`) and its words (`flip.deploy.permits`); and a line of `Policy.refuses` if it is on the
manifest, of `Policy.refuses_parts` if the study's parts show it.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flip.config.demands import Demand, refused_strategy
from flip.config.places import refusals
from flip.config.study import Manifest
from flip.config.targets import STUDY_TARGETS, prefix_problems
from flip.errors import UserError, close, nearest
from flip.messages import Fault
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg

PUBLIC = "public_data"
REQUIRED = "required"
SHA256 = re.compile("[0-9a-f]{64}")
UNITS = {
    "minimum_persons": "persons",
    "minimum_cell": "persons",
    "maximum_questions": "questions",
    "least_sites": "sites",
}
"""The rules that are whole numbers of 1 or more, and what they count."""
RELEASES = ("statistics", "describe", "metrics", "outcomes", "weights", "levels")
"""The kinds of what may leave a site: what sites agree on before the first round, a cohort's description (job=check,
job=statistics), losses and metrics, what a study adds to the report, trained weights, and the names of levels that the
data hold and the study does not declare."""
DECLARED = RELEASES[:-1]  # what leaves a hospital whose file does not say it: no text of its records

DEPLOYED: Mapping[str, float] = {
    "minimum_batch": 2,
    "persons_per_parameter": 3,
    "maximum_parameters": 100_000_000,
    "maximum_rounds": 200,
    "maximum_steps": 2_000,
    "maximum_seconds": 6 * 3600,
    "maximum_memory": 32,
    "maximum_change": 0.05,
    "share": 0.5,
}
"""A hospital's bounds where its file does not state them. Honest rounds of heart, dermatology, notes,
radiographs and lung moved the weights by .006 to .043 in three to five rounds; a cyclic round moved them by .13."""
REAL = ("maximum_seconds", "maximum_memory", "maximum_change", "share")  # those of the bounds that need not be whole


@dataclass(frozen=True)
class Policy:
    """What a site permits.

    Attributes:
        minimum_persons: distinct persons that a cohort must hold before anything is computed on it.
        minimum_cell: persons that must stand behind every number that leaves the site.
        targets: prefixes of the code that a study may name here, and single classes by name; of libraries and of the
            engine only what is listed (`flip.config.places`), unless its name stands here.

    What follows bounds what a study takes, and how far a coordinator can lead it; a simulation has no bound that it
    does not state, a hospital those of `DEPLOYED`.

        minimum_batch: distinct persons of a training batch, in most batches of a fit.
        persons_per_parameter: persons to train on for each parameter of a model that is one linear layer; 0: any.
        maximum_parameters: numbers that a model holds.
        maximum_rounds: federated rounds of a study.
        maximum_steps: optimizer steps of a site in a round.
        maximum_seconds: of one task; the site's process ends after them.
        maximum_memory: gigabytes (10^9 bytes) that the site's process may hold; beyond it the process ends.
        maximum_change: root mean square by which the weights that the site is sent may have moved in a round.
        maximum_questions: different questions about the cohort that are ever answered, over all runs and studies: a
            cohort as a study's dataset defines it, or the edges of its histograms. What was asked before is no new one.
        share: the largest part, above 0 and to 1, that a study's own weights may give one site in a round.
        least_sites: sites that a round of the study must have, by its `strategy.min_sites`.
        secure_aggregation: `REQUIRED` asks for a mechanism by which what the site sends is opened in a sum with other
            sites' alone (`Mechanism.secure_sums`), and refuses every study without one; None asks for none.
        privacy: the mechanism that a study must have, and the most that it may spend; None asks for none.
        models: sha256 of the weights trained elsewhere that a study may send here, to begin from them or to apply them;
            None: any. A hospital takes none that its file does not name.
        releases: the kinds of `RELEASES` that leave; all others stay. At a hospital `levels` stay unless it says so.
        trackers: the online trackers that a study's numbers may go to, by the name that its coordinator tells
            (`flip.config.online_trackers.online`); None permits any. At a hospital none unless it says so.
    """

    minimum_persons: int
    minimum_cell: int
    targets: Sequence[str] = STUDY_TARGETS
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
        rules = [field.name for field in fields(cls)]
        problems = [
            f"{where}.{key}: no such rule; {nearest(str(key), rules)}" for key in sorted(map(str, {*value} - {*rules}))
        ]
        misspelt = [close(str(key), rules) for key in {*value} - {*rules}]
        problems += [*_units(where, value, misspelt), *_bounds(where, value)]
        problems += [*_releases(where, value), *_models(where, value)]
        if deployed and value.get("minimum_persons") == value.get("minimum_cell") == 1:
            problems.append(
                f"{where}: minimum_persons: 1 and minimum_cell: 1 is {PUBLIC} by another name, for simulations; "
                "state how many persons a cohort must hold, and how many must stand behind every number"
            )
        problems += prefix_problems(f"{where}.targets", value.get("targets", STUDY_TARGETS))
        privacy = None
        try:
            if value.get("privacy") is not None:
                privacy = Demand.read(f"{where}.privacy", value["privacy"])
        except UserError as error:
            problems += error.problems
        if problems:
            raise UserError(problems)
        stated = {key: value[key] for key in (*UNITS, *DEPLOYED, "secure_aggregation") if key in value}
        bounds = DEPLOYED if deployed else {}
        return cls(**{**bounds, **stated, **_lists(value, deployed=deployed), "privacy": privacy})

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
        return (Fault.REFUSED_RULE, "; ".join(refused)) if refused else None

    def refuses_trackers(self, names: str) -> str:
        """Why a study whose numbers go to these online trackers (names with commas) is refused, for the log; or ""."""
        unknown = sorted({*names.split(",")} - {"", *self.trackers}) if self.trackers is not None else []
        listed = ", ".join(ascii(each)[:80] for each in unknown[:5])
        return f"policy.trackers: the study's numbers go to {listed}" if unknown else ""

    def refuses_cohort(self, persons: int) -> Fault | None:
        """The refusal of a cohort that is too small, or None."""
        return Fault.REFUSED_COHORT if persons < self.minimum_persons else None


def _lists(value: Mapping[str, Any], *, deployed: bool) -> dict[str, Sequence[str] | None]:
    """The rules that are lists, those of a hospital where its file does not state them; null is any."""
    strict: dict[str, Sequence[str] | None] = {"releases": DECLARED, "models": (), "trackers": ()}
    lists = strict if deployed else {}
    for key in ("targets", *strict):
        if key in value:
            lists[key] = None if value[key] is None else tuple(value[key])
    return lists


def _units(where: str, value: Mapping[str, object], misspelt: Sequence[str]) -> Iterator[str]:
    """What is no whole number of persons, questions or sites; a rule that is there, `misspelt`, is not missed too."""
    for key, unit in UNITS.items():
        if key not in value and key in misspelt:
            continue
        number = value.get(key, getattr(Policy, key, None))
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            yield f"{where}.{key}={number!r}: must be a whole number of {unit}, 1 or more"


def _bounds(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no number, or beyond what a bound may be."""
    for key in DEPLOYED:
        if key not in value:
            continue
        number, kinds = value[key], (int, float) if key in REAL else (int,)
        least = 0 if key == "persons_per_parameter" else math.ulp(0)  # 0: no such rule
        most = 1 if key == "share" else sys.float_info.max
        if not isinstance(number, kinds) or isinstance(number, bool) or not least <= number <= most:
            kind = "number above 0" if float in kinds else "whole number above 0" if least else "whole number"
            yield f"{where}.{key}={number!r}: must be a {kind}{', at most 1' if key == 'share' else ''}"


def is_sha256(value: object) -> bool:
    """Whether a value is a sha256 as the engine writes one."""
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _models(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no digest of a model's weights."""
    named = value.get("models")
    if named is not None and not isinstance(named, list | tuple):
        yield f"{where}.models={named!r}: must be a list of digests of models, or null for any"
        return
    for each in named or ():
        if not is_sha256(each):
            yield f"{where}.models: {each!r} is no sha256 of 64 digits, as `digest` in a run's result.json"


def _releases(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no kind of what may leave, or no way of asking that it leaves in sums alone."""
    if (secure := value.get("secure_aggregation")) not in (None, REQUIRED):
        yield f"{where}.secure_aggregation={secure!r}: must be {REQUIRED}, or null for no such rule"
    told = value.get("trackers")
    if told is not None and not (isinstance(told, list | tuple) and all(isinstance(each, str) for each in told)):
        yield f"{where}.trackers={told!r}: must be a list of names, as in [wandb], or null for any"
    named = value.get("releases", RELEASES)
    if not isinstance(named, list | tuple):
        yield f"{where}.releases={named!r}: must be a list of {', '.join(RELEASES)}"
        return
    for each in named:
        if each not in RELEASES:
            yield f"{where}.releases: {each!r} is no kind of what may leave; {nearest(str(each), RELEASES)}"


def widened(value: object, prefixes: Sequence[str]) -> object:
    """The `policy` of a simulated site with further code allowed: its owner is the owner of the study.

    A value that is not a policy is left as it is, for `Policy.read` to refuse.
    """
    rules = {"minimum_persons": 1, "minimum_cell": 1} if value == PUBLIC else value
    if not prefixes or not isinstance(rules, Mapping):
        return value
    allowed = rules.get("targets", list(STUDY_TARGETS))
    return {**rules, "targets": list(dict.fromkeys([*allowed, *prefixes]))} if isinstance(allowed, list) else value
