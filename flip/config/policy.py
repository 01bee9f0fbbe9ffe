"""A site's own policy: may this study run here? The site decides, and the answer to no is a reason.

A new rule is a field of `Policy`, its check in `Policy.read`, and a line of `Policy.refuses` if it is on the manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from flip.config.places import refusals
from flip.config.study import Manifest
from flip.config.targets import STUDY_TARGETS, prefix_problems
from flip.errors import UserError
from flip.messages import Fault

PUBLIC = "public_data"


@dataclass(frozen=True)
class Policy:
    """What a site permits.

    Attributes:
        minimum_persons: distinct persons that a cohort must hold before anything is computed on it.
        minimum_cell: persons that must stand behind every number that leaves the site.
        targets: prefixes of the code that a study may name here, and single classes by name; of libraries and of the
            engine only what is listed (`flip.config.places`), unless its name stands here.
    """

    minimum_persons: int
    minimum_cell: int
    targets: Sequence[str] = STUDY_TARGETS

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
        for key in ("minimum_persons", "minimum_cell"):
            number = value.get(key)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise UserError(f"{where}.{key}={number!r}: must be a whole number of persons, 1 or more")
        prefixes = value.get("targets", STUDY_TARGETS)
        if problems := prefix_problems(f"{where}.targets", prefixes):
            raise UserError(problems)
        return cls(
            minimum_persons=value["minimum_persons"], minimum_cell=value["minimum_cell"], targets=tuple(prefixes)
        )

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


def widened(value: object, prefixes: Sequence[str]) -> object:
    """The `policy` of a simulated site with further code allowed: its owner is the owner of the study.

    A value that is not a policy is left as it is, for `Policy.read` to refuse.
    """
    rules = {"minimum_persons": 1, "minimum_cell": 1} if value == PUBLIC else value
    if not prefixes or not isinstance(rules, Mapping):
        return value
    allowed = rules.get("targets", list(STUDY_TARGETS))
    return {**rules, "targets": list(dict.fromkeys([*allowed, *prefixes]))} if isinstance(allowed, list) else value
