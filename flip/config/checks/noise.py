"""Whether a study's noise lies where its theorem has it, and whether sites take weights that have moved by it."""

import math
from collections.abc import Iterator

from flip.config.jobs import JOBS
from flip.config.rules import DEPLOYED
from flip.config.study import Study
from flip.config.targets import TARGET
from flip.errors import UserError, at
from flip.privacy import NOISE_ROOM, Mechanism
from flip.privacy.distributed_dp import DistributedDP
from flip.privacy.secure.session import Rules
from flip.strategies.cyclic import Cyclic
from flip.strategies.fedavg import FedAvg
from flip.strategies.fedopt import FedOpt
from flip.strategies.krum import Krum


def noise_problems(study: Study, name: str, mechanism: Mechanism, strategy: FedAvg) -> Iterator[str]:
    """A sentence for each thing by which its noise hides less than it says, or is of no use; `name` is its own."""
    if isinstance(mechanism, DistributedDP):
        yield from _in_sum(study, name, mechanism, strategy)
    if study.federation.get(TARGET) is not None and JOBS[study.job].trains and not isinstance(strategy, FedOpt):
        try:
            yield from _beyond_bound(study, name, mechanism, strategy)
        except UserError as error:  # a target that no noise meets
            yield from error.problems


def _beyond_bound(study: Study, name: str, mechanism: Mechanism, strategy: FedAvg) -> Iterator[str]:
    """Weights that the noise alone moves farther than sites take them, so that a budget is spent on one round.

    A hospital's bound is its own; what the study states is held against it before anything is spent.
    """
    training = sum(site.trains for site in study.sites.values())
    asked = strategy.in_round(training)
    moved = moved_by(mechanism, strategy, asked) if asked else None
    bound = strategy.most_change or (DEPLOYED["maximum_change"] if study.live else None)
    if moved is not None and bound is not None and (needed := NOISE_ROOM * moved) > bound:
        yield (
            f"{at('strategy.most_change', study.where)}: the noise of privacy.{name} moves the weights by about "
            f"{moved:.3g} (root mean square) a round, and sites take {bound:g}; set it to {rounded_up(needed):g} or "
            f"more, which each hospital permits by policy.maximum_change, or lower privacy.{name}.clip"
        )


def moved_by(mechanism: Mechanism, strategy: FedAvg, asked: int) -> float | None:
    """How far the noise moves the weights for each time that a site takes `strategy.most_change` in a round."""
    alone = mechanism.moves(strategy.rounds, 1)
    if alone is not None and isinstance(strategy, Krum):  # no mean of all
        return alone / math.sqrt(strategy.keep)
    if alone is not None and isinstance(strategy, Cyclic):  # the noise of each stop stays in the weights
        return alone * math.sqrt(strategy.visits or asked) / strategy.stops
    return mechanism.moves(strategy.rounds, asked)


def rounded_up(number: float) -> float:
    """A number above 0 with two digits, none below it: what a person is told to set has to do."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / step) * step:.3g}")


def _in_sum(study: Study, name: str, mechanism: DistributedDP, strategy: FedAvg) -> Iterator[str]:
    """Noise in a sum that would not hide what it says."""
    key, manifest = at(f"privacy.{name}", study.where), study.manifest
    if others := [each for each in manifest["mechanisms"] if each != name]:
        yield f"{key}: makes sums and has noise in them already; leave {', '.join(others)} out"
    if strategy.site_weights is not None:
        yield (
            f"{at('strategy.site_weights', study.where)}: under privacy.{name} all sites weigh the same, or one would "
            "change the mean by more than its noise is for; set it to null"
        )
    steps = manifest["trainer"]["steps"]
    if mechanism.unit == "person" and steps != 1:
        yield (
            f"{at('trainer.steps', study.where)}: noise in a sum hides a person in one step between two sums, not in "
            f"{steps or 'an epoch'}; set trainer.steps=1 trainer.epochs=null, or privacy=[dp_sgd,secure_aggregation], "
            "by which each site has the whole noise"
        )
    training = sum(site.trains for site in study.sites.values())
    least = Rules(threshold=mechanism.threshold).needed(training)
    if mechanism.colluding >= least:
        yield f"{key}.colluding: {mechanism.colluding} of {least} sites leave nobody whose noise is unknown; give fewer"
