"""Ties in the C-index: patients of equal risk are half right, those of one time are no pair unless one is censored."""

import math

import pytest
import torch
from lifelines.utils import concordance_index

from models.metrics.survival import CIndex, WeightedCIndex

CASES = {
    "equal risks": ([2, 2, 1], [1, 2, 3], [1, 1, 1], (0.5 + 1 + 1) / 3),
    "all risks equal": ([1, 1, 1, 1], [1, 2, 3, 4], [1, 0, 1, 1], 0.5),
    "equal times": ([3, 2, 1], [1, 1, 2], [1, 1, 1], 1.0),
    "equal risks and times": ([2, 2, 1, 3], [1, 1, 2, 2], [1, 0, 1, 1], None),
    "a censored patient at the time of a death": ([2, 3, 1], [1, 1, 2], [1, 0, 1], None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [CIndex, WeightedCIndex])
def test_ties_count_as_lifelines_and_the_hand_count_them(kind, name):
    risk, time, event, by_hand = CASES[name]
    metric = kind()
    metric.update(*(torch.tensor(each, dtype=torch.float32) for each in (risk, time, event)))
    expected = concordance_index(time, [-each for each in risk], event)
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
    if by_hand is not None:
        assert expected == pytest.approx(by_hand)


def test_ties_of_sites_are_weighted_by_their_pairs():
    risk, time, event, _ = CASES["equal risks"]
    tied, clear = WeightedCIndex(), WeightedCIndex()
    tied.update(*(torch.tensor(each, dtype=torch.float32) for each in (risk, time, event)))
    clear.update(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
    concordant, pairs = float(tied.concordant + clear.concordant), int(tied.pairs + clear.pairs)
    assert (concordant, pairs) == (3.5, 4) and not math.isnan(concordant)
