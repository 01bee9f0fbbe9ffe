"""A site's own policy: may this study run here? The site decides, and the answer to no is a reason.

A new rule is a field of `Policy`, its check in `Policy.read`, and a line of `Policy.refuses` if it is on the manifest.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flip.config.places import refusals
from flip.config.study import Manifest
from flip.config.targets import STUDY_TARGETS, prefix_problems
from flip.errors import UserError
from flip.messages import Fault

PUBLIC = "public_data"
UNITS = {"minimum_persons": "persons", "minimum_cell": "persons", "maximum_questions": "questions"}
"""The rules that are numbers, and what they count."""


DEPLOYED: Mapping[str, float] = {
    "minimum_batch": 2,
    "persons_per_parameter": 3,
    "maximum_parameters": 100_000_000,
    "maximum_rounds": 200,
    "maximum_steps": 2_000,
    "maximum_seconds": 6 * 3600,
    "maximum_change": 0.05,
}
"""A hospital's bounds where its file does not state them. Honest rounds of heart, dermatology, notes,
radiographs and lung moved the weights by .006 to .043 in three to five rounds; a cyclic round moved them by .13."""


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
        maximum_change: root mean square by which the weights that the site is sent may have moved in a round.
        maximum_questions: different questions about the cohort that are ever answered, over all runs and studies: a
            cohort as a study's dataset defines it, or the edges of its histograms. What was asked before is no new one.
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
    maximum_change: float | None = None
    maximum_questions: int = 10

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
        if unknown := sorted(set(value) - set(rules)):
            raise UserError(f"{where}.{unknown[0]}: no such rule; the rules are {', '.join(rules)}")
        for key, unit in UNITS.items():
            number = value.get(key, getattr(cls, key, None))
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise UserError(f"{where}.{key}={number!r}: must be a whole number of {unit}, 1 or more")
        numbers = {key: int(value[key]) for key in UNITS if key in value}
        if deployed and numbers["minimum_persons"] == numbers["minimum_cell"] == 1:
            raise UserError(
                f"{where}: minimum_persons: 1 and minimum_cell: 1 is {PUBLIC} by another name, for simulations; "
                "state how many persons a cohort must hold, and how many must stand behind every number"
            )
        prefixes = value.get("targets", STUDY_TARGETS)
        if problems := prefix_problems(f"{where}.targets", prefixes):
            raise UserError(problems)
        bounds = _bounds(where, value)
        return cls(**numbers, targets=tuple(prefixes), **({**DEPLOYED, **bounds} if deployed else bounds))

    def refuses(self, manifest: Manifest) -> tuple[Fault, str] | None:
        """Why a study may not run here, by its manifest, with what the site's own log adds; None where it may.

        A rule without a fault of its own gives `REFUSED_RULE`, and names itself and its value for the log.
        """
        if refused := [*refusals(manifest, self.targets)]:
            return Fault.REFUSED_TARGET, "; ".join(refused)
        return None

    def refuses_cohort(self, persons: int) -> Fault | None:
        """The refusal of a cohort that is too small, or None."""
        return Fault.REFUSED_COHORT if persons < self.minimum_persons else None


def _bounds(where: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds that a policy states. Raises UserError for one that is no number, or no possible one."""
    bounds = {key: value[key] for key in DEPLOYED if key in value}
    for key, number in bounds.items():
        kinds = (int, float) if key in ("maximum_seconds", "maximum_change") else (int,)
        least = 0 if key == "persons_per_parameter" else math.ulp(0)  # 0: no such rule
        if not isinstance(number, kinds) or isinstance(number, bool) or not least <= number < math.inf:
            kind = "number above 0" if float in kinds else "whole number above 0" if least else "whole number"
            raise UserError(f"{where}.{key}={number!r}: must be a {kind}")
    return bounds


def widened(value: object, prefixes: Sequence[str]) -> object:
    """The `policy` of a simulated site with further code allowed: its owner is the owner of the study.

    A value that is not a policy is left as it is, for `Policy.read` to refuse.
    """
    rules = {"minimum_persons": 1, "minimum_cell": 1} if value == PUBLIC else value
    if not prefixes or not isinstance(rules, Mapping):
        return value
    allowed = rules.get("targets", list(STUDY_TARGETS))
    return {**rules, "targets": list(dict.fromkeys([*allowed, *prefixes]))} if isinstance(allowed, list) else value
