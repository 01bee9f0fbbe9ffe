"""Whether a study's rounds can be opened as sums alone, under a mechanism that shows no site's part."""

from collections.abc import Iterator

from flip.config.demands import largest_share
from flip.config.study import Study
from flip.config.targets import TARGET
from flip.errors import at, several
from flip.privacy import Mechanism
from flip.privacy.secure.session import LEAST, most_of_two
from flip.strategies.fedavg import FedAvg

LARGEST = 0.5  # part of the mean that a study's own weights may give one site


def sum_problems(study: Study, name: str, mechanism: Mechanism, strategy: FedAvg) -> Iterator[str]:
    """A sentence for each thing by which a sum would show one site's part; `name` is the mechanism's in the study."""
    if not mechanism.secure_sums:
        return
    key = at("strategy.site_weights", study.where)
    if none := sorted(site for site, weight in (strategy.site_weights or {}).items() if not weight):
        yield (
            f"{key}: {', '.join(none)} would be in no sum at a weight of 0, and the others would be fewer than they "
            "think; give each site that trains a weight above 0, or set its trains=false"
        )
    elif strategy.site_weights is not None:
        yield from _heavy(f"privacy.{name}", key, strategy)
    training = sum(site.trains for site in study.sites.values())
    asked = strategy.in_round(training)
    if study.federation.get(TARGET) is not None and study.job == "train" and asked < LEAST:
        yield (
            f"{at(f'privacy.{name}', study.where)}: {several(asked, 'site')} of {training} train in a round, and a sum "
            f"has {LEAST} or more; add sites, raise strategy.fraction, or set privacy=none"
        )


def _heavy(mechanism: str, key: str, strategy: FedAvg) -> Iterator[str]:
    """One site, or two together, that are so much of a sum that a site refuses it, as policy.share stands there."""
    two = most_of_two(LARGEST)
    for who, of, most in (("one site", 1, LARGEST), ("two sites", 2, two)):
        if (part := largest_share(strategy, of=of, among=LEAST if of > 1 else 1)) is not None and part > most:
            none = "no site" if of == 1 else "no two sites"
            yield (
                f"{key}: {who} can be {part:.3g} of a sum, so that {mechanism} would show what it trained; give {none} "
                f"more than {most:g} of a round, or null for the numbers of examples"
            )
            return
