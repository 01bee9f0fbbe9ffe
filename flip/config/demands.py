"""What a site demands of a study beyond numbers: a privacy mechanism, a largest share of one site, sites in a round."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from flip.config.places import listed
from flip.config.study import Manifest
from flip.config.targets import TARGET
from flip.errors import UserError, nearest
from flip.privacy import Entry, Mechanism, Spent
from flip.privacy.accounting import affordable, epsilon
from flip.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Demand:
    """A privacy mechanism that a study must have, and the budget of a site's data.

    Attributes:
        mechanism: its class, in full.
        epsilon: the most that all studies together, and each of them, may spend on one data set of the site, above 0.
        delta: the largest probability with which epsilon may not hold, above 0 and below 1; the budget's own.
    """

    mechanism: str
    epsilon: float
    delta: float

    @classmethod
    def read(cls, where: str, value: object) -> "Demand":
        """Read `policy.privacy`; `mechanism` is a class, or the file of one of the engine's (dp_sgd).

        Raises UserError with every mistake.
        """
        keys = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r}: must hold {', '.join(keys)}, or be null for none")
        problems = [
            f"{where}.{key}: no such rule; {nearest(str(key), keys)}" for key in sorted(map(str, {*value} - {*keys}))
        ]
        for key, most in (("epsilon", math.inf), ("delta", 1.0)):
            number = value.get(key)
            if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < most:
                problems.append(f"{where}.{key}={number!r}: must be a number above 0{' and below 1' * (most == 1)}")
        names = {path.split(".")[-2]: path for path in listed()["privacy"]}
        given = value.get("mechanism")
        mechanism = names.get(str(given), str(given))
        if (
            not isinstance(given, str)
            or "." not in mechanism
            or (mechanism.startswith("flip.") and mechanism not in names.values())
        ):
            known = [*names, *names.values()]
            problems.append(f"{where}.mechanism={given!r}: no such mechanism; {nearest(str(given), known)}")
        if problems:
            raise UserError(problems)
        return cls(mechanism, float(value["epsilon"]), float(value["delta"]))

    def unmet(self, manifest: Manifest, mechanisms: Sequence[Mechanism]) -> str:
        """Why a study that has these mechanisms, by its order, does not meet the demand, as it is written; or nothing.

        Each of the class must state no more, where it can state it without the data: the last one is what protects.
        """
        named = zip(manifest["mechanisms"], mechanisms, strict=True)
        found = [each for name, each in named if manifest["privacy"][name][TARGET] == self.mechanism]
        if not found:
            return f"policy.privacy.mechanism={self.mechanism}: the study does not have it"
        stated = (each.stated() for each in found)
        return next((why for each in stated if each and (why := self.beyond(each))), "")

    def beyond(self, spent: Spent) -> str:
        """Why what a mechanism states is more than the site permits; nothing where it is not."""
        for key in ("epsilon", "delta"):
            most, number = getattr(self, key), getattr(spent, key)
            if not number <= most:
                return f"policy.privacy.{key}={most:g}: the study spends {number:g} here"
        return ""

    def overspent(self, entries: Sequence[Entry]) -> str:
        """Why what these entries of a ledger spend together is beyond the budget; nothing where it is not."""
        if affordable(entries, self.delta, self.epsilon):
            return ""
        found = epsilon(entries, self.delta)
        return (
            f"policy.privacy.epsilon={self.epsilon:g}, the budget of this data set over all studies: with what is "
            f"asked for, {found:.3g} would be spent at a delta of {self.delta:g}"
        )


def largest_share(strategy: FedAvg, *, of: int = 1, among: int = 1) -> float | None:
    """The largest part that so many sites can have in what leaves a round; None where numbers of examples decide it.

    Of the sites that a round has at least, and of `among`, the others are those of the least weight.
    """
    if strategy.largest_part is not None:
        return strategy.largest_part
    if strategy.site_weights is None:
        return None
    weights = sorted(float(each) for each in strategy.site_weights.values())
    asked = max(1, strategy.in_round(len(weights)))
    least = max(among, min(asked, strategy.min_sites or asked))
    total = sum([*weights[: least - of], *weights[-of:]])
    return sum(weights[-of:]) / total if total else 1.0


def refused_strategy(strategy: FedAvg, share: float | None, least_sites: int) -> Iterator[str]:
    """Why a strategy gives one site more than a share (above 0, to 1; None: any), or goes on with too few sites."""
    found = largest_share(strategy)
    if share is not None and found is not None and found > share:
        yield f"policy.share={share:g}: the strategy can give one site a share of {found:g}"
    if (strategy.min_sites or 1) < least_sites:
        yield (
            f"policy.least_sites={least_sites}: the study's strategy.min_sites is {strategy.min_sites}, so that it may "
            "go on with fewer"
        )


def moved_by_noise(mechanisms: Sequence[Mechanism], rounds: int) -> bool:
    """Whether a mechanism's noise lies on what a site sends of a round, so that it moves the weights by itself."""
    return any(each.moves(rounds, 1) is not None for each in mechanisms)
