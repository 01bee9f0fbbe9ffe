"""Whether the rounds of a federated study can do anything: the strategy against the model and the sites that train."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flip.config.checks.models import unsent
from flip.config.jobs import JOBS
from flip.config.study import Study
from flip.contracts import VisitsSome
from flip.errors import UserError, Where, at, nearest, nowhere, several
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule


def rounds_problems(study: Study, strategy: FedAvg, model: "TrainableModule | None") -> Iterator[str]:
    """Every mistake in what the rounds are to do; `model` is None where it cannot be made, which is said elsewhere."""
    if model is not None:
        yield from unfit_stop(strategy, model, study.where)
        try:
            yield from unsent(study, model, strategy.shared(model))
        except UserError as error:
            yield from error.problems
    yield from _roster(study, strategy)


def unfit_stop(strategy: FedAvg, model: "TrainableModule", where: Where = nowhere) -> Iterator[str]:
    """The metric that `strategy.stop` watches against the model's."""
    names = dict(getattr(model, "metrics", {}).items())
    if strategy.early and strategy.early.monitor not in names:
        key = at("strategy.stop.monitor", where)
        yield f"{key}: the model has no metric {strategy.early.monitor}; {nearest(strategy.early.monitor, names)}"


def _roster(study: Study, strategy: FedAvg) -> Iterator[str]:
    """The strategy's numbers and names against the sites that train."""
    training = [name for name, site in study.sites.items() if site.trains]
    if strategy.min_sites is None and study.live and JOBS[study.job].trains:
        yield (
            f"{at('strategy.min_sites', study.where)}: a live study says how many sites a round needs, since one may "
            f"be away for an hour: {len(training)} for all that train, or fewer"
        )
    if (strategy.min_sites or 0) > len(training):
        key = at("strategy.min_sites", study.where)
        yield f"{key}: {strategy.min_sites} of {_among(training)} can never answer; lower it or add sites"
    elif training:
        yield from _asked(study, strategy, training)
    if strategy.site_weights is not None:
        yield from _weights(study, strategy.site_weights, training)


def _weights(study: Study, weights: Mapping[str, float], training: Sequence[str]) -> Iterator[str]:
    """The sites' own weights against the sites."""
    for name in weights:
        if name not in study.sites:
            key = at(f"strategy.site_weights.{name}", study.where)
            yield f"{key}: there is no such site; {nearest(name, study.sites)}"
    for name in training:
        if name not in weights:
            key = at("strategy.site_weights", study.where)
            yield f"{key}: has no weight for {name}; add one, or set site_weights: null"
    if not any(weights.get(name, 1) > 0 for name in training):
        key = at("strategy.site_weights", study.where)
        yield f"{key}: no training site has a weight above 0, so there is nothing to average; give one"


def _among(training: Sequence[str]) -> str:
    return several(len(training), "training site")


def _asked(study: Study, strategy: FedAvg, training: Sequence[str]) -> Iterator[str]:
    """The number of sites that one round asks, against `min_sites` and the sites of weight 0."""
    visits = strategy.visits if isinstance(strategy, VisitsSome) else None
    if visits is not None and visits > len(training):
        key = at("strategy.visits", study.where)
        yield f"{key}: {visits} is more than the {_among(training)}; lower it, or null for every site"
        return
    asked = visits or len(strategy.select(training, np.random.default_rng(0)))
    name = "fraction" if visits is None else "visits"
    if asked < (strategy.min_sites or 0):
        yield (
            f"{at(f'strategy.{name}', study.where)}: a round asks {asked} of {_among(training)}, fewer "
            f"than strategy.min_sites={strategy.min_sites}; raise {name} or lower min_sites"
        )
    yield from _too_few(study, strategy, asked)
    idle = [site for site in training if (strategy.site_weights or {}).get(site, 1) == 0]
    if asked <= len(idle) < len(training):
        yield (
            f"{at(f'strategy.{name}', study.where)}: a round asks {asked} of {_among(training)}, which may "
            f"all be of weight 0 in strategy.site_weights ({', '.join(idle)}), and would change nothing; raise {name}, "
            "or leave those sites out"
        )


def _too_few(study: Study, strategy: FedAvg, asked: int) -> Iterator[str]:
    """Rounds of fewer sites than the strategy's rule is for: asked, or used when some do not answer."""
    least, rule = strategy.least_sites, type(strategy).__name__
    if asked < least:
        yield (
            f"{at('strategy', study.where)}: {rule} as declared needs {least} sites in a round, which asks {asked}; "
            "add sites, raise fraction, or choose another strategy"
        )
    elif strategy.min_sites is not None and strategy.min_sites < least:
        yield (
            f"{at('strategy.min_sites', study.where)}: {rule} as declared needs {least} sites in a round, and "
            f"{strategy.min_sites} would let one go on with fewer; raise it to {least} or more"
        )
