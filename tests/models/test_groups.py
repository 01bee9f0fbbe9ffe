"""Curves of subgroups beside the curve of all rows: what follows from their difference is of enough rows or of none."""

import numpy as np
import pytest
import torch

from models.metrics.binned import BinnedAUPRC, BinnedAUROC
from models.metrics.bins import Counted, edge
from models.metrics.calibration import BinnedCalibrationError
from models.metrics.groups import LEAST_CELLS, Levels, short

CELL = 5


def draw(rng: np.random.Generator, rows: int = 500) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, labels, and of which of two levels each row is, -1 where that is not known."""
    label = (rng.random(rows) < 0.5).astype(int)
    shown = rng.normal(label - 0.5, 1).astype(np.float32)
    level = rng.choice([0, 1, -1], rows, p=[0.5, 0.3, 0.2])
    return torch.from_numpy(shown).sigmoid(), torch.from_numpy(label), torch.from_numpy(level)


def beside(make: type[Counted], rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> tuple[Counted, list[Counted]]:
    """A metric of all rows, and of the rows of each level."""
    predicted, label, level = rows
    whole, parts = make(), [make(), make()]
    whole.update(predicted, label)
    for number, part in enumerate(parts):
        part.update(predicted[level == number], label[level == number])
        part.levels = Levels(whole, parts)
    return whole, parts


@pytest.mark.parametrize("make", [BinnedAUROC, BinnedAUPRC, BinnedCalibrationError])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_between_two_borders_each_level_and_the_others_have_enough_rows_or_none(make, threshold):
    rng, borders = np.random.default_rng(3), 0
    for _ in range(20):
        whole, parts = beside(make, draw(rng))
        for metric in (whole, *parts):
            metric.threshold = threshold
        told = [part for part in parts if not short(part.counts(), LEAST_CELLS * CELL)]
        found = parts[0].slices(0, CELL)
        assert all(part.slices(0, CELL) == found for part in parts)
        assert {each.start for each in found} <= {each.start for each in whole.slices(0, CELL)}
        rest = whole.counts() - sum(part.counts() for part in told)
        for group in found:
            for counts in (*(part.counts() for part in told), rest):
                rows = counts[:, 0, group].sum(1)
                assert ((rows == 0) | (rows >= CELL)).all()
            if threshold and group.start < edge(threshold) < group.stop:
                for part in told:
                    both = part.counts()[:, 0]
                    if not any(
                        short(each[:, None], CELL) for each in (both[:, : edge(threshold)], both[:, edge(threshold) :])
                    ):
                        rows = both[:, group.start : edge(threshold)].sum(1)
                        assert ((rows == 0) | (rows >= CELL)).all()
        borders += len(found)
    assert borders >= 40  # more than one group in the mean: the curve of a level still says something


def test_what_leaves_of_a_level_is_in_those_groups():
    _, parts = beside(BinnedAUROC, draw(np.random.default_rng(4)))
    for part in parts:
        starts = {each.start for each in part.slices(0, CELL)}
        assert {*part.merged(CELL)["ends"][0].any(0)[0].nonzero().flatten().tolist()} <= starts


def test_a_level_whose_others_are_few_is_withheld():
    predicted, label, level = draw(np.random.default_rng(5))
    whole, parts = beside(BinnedAUROC, (predicted, label, torch.where(torch.arange(len(level)) < 3, -1, 0)))
    assert not whole.withheld(CELL) and "others of its subgroup" in parts[0].withheld(CELL)
