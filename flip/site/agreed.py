"""Whether agreed statistics can scale this site's rows: sums made for it would blow a row up until its gradient tells.

A deviation far below what the site's own rows have, or a mean far from them, does so. Of N agreed rows, n of them this
site's, the variance is never below n / N of the own rows' mean square distance from the agreed mean, whatever the
others hold. So an honest federation of less than 10,000 times a site's rows is never refused. What agreed sums make of
columns before these are scaled (`Adjusts`) is held so too; and what it makes rows weigh in the loss (`Weighs`) by the
persons on whom nearly all of the weight would lie.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from flip.contracts import Adjusts, BinsShares, Weighs
from flip.contracts.dataset import FederatedDataModule
from flip.messages import Fault, Payload
from flip.messages.summary import Summary, SummaryKind
from flip.site.persons import persons_of
from flip.site.refusal import Refusal
from flip.site.statistics import dataset_summaries

MOST_SPREAD = 100.0  # agreed deviations that the site's own rows may lie from the agreed mean, root mean square
SMALLEST = 1e-9  # an agreed deviation below it, or
MOST_WEIGHT = 100.0  # what rows of fewer persons than the minimum cell may weigh in the loss, of what all others do
CONSTANT = 1e-7  # of the mean, is what sums of squares leave of a column of one value: it becomes 1


@np.errstate(all="ignore")  # what is too large is no number then, and out
def refuse_made_up(agreed: Payload, data: FederatedDataModule) -> None:
    """Raises Refusal for agreed sums by which the site's own rows would be scaled out of all proportion.

    Held against all of its rows, also those that it tells nobody of, since these are the few that are singled out.
    """
    told = dataset_summaries(persons_of(data, "train", 1), data, 1)
    binned = data.binned if isinstance(data, BinsShares) else ()
    own = {name: summary.values for name, summary in told.items() if summary.kind is SummaryKind.MOMENTS}
    shares = {name: told[name].values for name in binned if name in told and not told[name].withheld}
    negative = [name for name in binned if name in agreed and (agreed[name] < 0).any()]
    other = [name for name, each in told.items() if name in agreed and _of_other_shape(each, agreed[name])]
    found = [*other, *negative, *_scaled_out(own, agreed), *_binned_out(shares, agreed)]
    if not found and isinstance(data, Adjusts):
        found += _scaled_out(data.adjusted(agreed), agreed)
    for name in found:
        raise Refusal(
            Fault.REFUSED_PROTOCOL,
            f"agreed statistics {ascii(name)[:80]}: a deviation below 1/{MOST_SPREAD:g} of this site's own, or a mean "
            "further from its rows",
        )


@np.errstate(all="ignore")
def refuse_weighed(agreed: Payload, data: FederatedDataModule, cell: int) -> None:
    """Raises Refusal for agreed sums by which rows of fewer than `cell` persons would be nearly all of the loss."""
    classes = data.weighed(agreed) if isinstance(data, Weighs) else np.zeros((0, 2))
    persons, weight = classes[classes[:, 0] > 0].T
    heaviest = np.argsort(-weight / persons)
    few = heaviest[persons[heaviest].cumsum() < cell]
    if len(few) and not weight[few].sum() <= MOST_WEIGHT * (weight.sum() - weight[few].sum()):
        raise Refusal(
            Fault.REFUSED_PROTOCOL,
            f"agreed statistics: classes of fewer than minimum_cell={cell} persons here would weigh more than "
            f"{MOST_WEIGHT:g} times all others",
        )


def _of_other_shape(own: Summary, agreed: NDArray[np.float64]) -> bool:
    return not own.withheld and own.values.shape != agreed.shape


def _scaled_out(own: Mapping[str, NDArray[np.float64]], agreed: Payload) -> Iterator[str]:
    """Names of moments by which the site's rows lie too far out."""
    for name, values in own.items():
        if values.size and _out(values, agreed.get(name, np.zeros_like(values)), least=2):
            yield name


def _binned_out(own: Mapping[str, NDArray[np.float64]], agreed: Payload) -> Iterator[str]:
    """The same of shares by bin."""
    for name, shares in own.items():
        other = agreed.get(name)
        if other is not None and (other.shape != shares.shape or _out(_of_bins(shares), _of_bins(other), least=0)):
            yield name


def _of_bins(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number, sum and sum of squares of the places of bins."""
    place = np.arange(1.0, len(shares) + 1)
    return np.array([shares.sum(), (shares * place).sum(), (shares * place**2).sum()])


@np.errstate(over="ignore", invalid="ignore")  # what is too large is no number then, and out
def _out(own: NDArray[np.float64], agreed: NDArray[np.float64], *, least: int) -> bool:
    """Whether the site's rows lie further from an agreed mean than `MOST_SPREAD` deviations; of no row, nothing does.

    A deviation of fewer rows than `least`, or that is next to none, becomes 1, as datasets take it.
    """
    if agreed.shape != own.shape:
        return True
    ours, all_sites = (np.moveaxis(each, -1, 0) for each in (own, agreed))
    there, number = ours[0] > 0, all_sites[0]
    mean_own, square_own = (each / np.where(there, ours[0], 1) for each in ours[1:])
    mean, square = (each / np.where(number > 0, number, 1) for each in all_sites[1:])
    distance, variance = square_own - 2 * mean_own * mean + mean**2, square - mean**2
    constant = (number < least) | (number <= 0) | (variance <= np.maximum(CONSTANT * np.abs(mean), SMALLEST) ** 2)
    within = distance <= MOST_SPREAD**2 * np.where(constant, 1.0, variance)  # of what is no number, nothing is
    return bool((there & ~within).any())
