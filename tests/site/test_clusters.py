"""Intervals of summed metrics where persons have several rows: they hold the truth as often as they say."""

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score

from flip.metrics import widened
from flip.site import clusters
from flip.site.clusters import RowsSeen, spread
from models.metrics.binned import BinnedAUROC
from models.metrics.classes import Accuracy
from models.metrics.survival import WeightedCIndex

PERSONS, ROWS, DRAWS = 20, 10, 50  # of a site, of a person, of the simulation


METRICS = {"auroc": BinnedAUROC, "accuracy": Accuracy}


def rows(draw: np.random.Generator, persons: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Probabilities, labels and persons: both the label and the error of the probability are mostly the person's."""
    person = np.repeat(np.arange(persons), ROWS)
    ill, bias = draw.integers(0, 2, persons)[person], draw.normal(0, 1.2, persons)[person]
    logit = 1.2 * (2 * ill - 1) + bias + draw.normal(0, 0.3, len(person))
    return torch.from_numpy(logit).sigmoid().float(), torch.from_numpy(ill), person


def interval(name: str, draw: np.random.Generator) -> tuple[tuple[float, float], tuple[float, float]]:
    """The interval over two sites, of rows and of persons."""
    pooled, sums = METRICS[name](), np.zeros(4)
    for _ in range(2):
        predicted, label, person = rows(draw, PERSONS)
        site = METRICS[name]()
        site.update(predicted, label)
        pooled.update(predicted, label)
        found = spread(site, [(predicted, label)], person)
        assert found is not None
        sums += found
    low, high = pooled.interval()
    values = {name: float(pooled.compute()), f"{name}/low": low, f"{name}/high": high}
    wide = widened(values, pooled, name, spread=sums, persons=2 * PERSONS)
    return (low, high), (wide[f"{name}/low"], wide[f"{name}/high"])


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    predicted, label, _ = rows(np.random.default_rng(1), 20_000)
    return {
        "auroc": roc_auc_score(label, predicted),
        "accuracy": float(((predicted >= 0.5) == label).float().mean()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_an_interval_of_forty_persons_with_ten_rows_each_holds_the_truth(name, truth, monkeypatch):
    monkeypatch.setattr(clusters, "GROUPS", 20)
    draw = np.random.default_rng(2)
    found = [interval(name, draw) for _ in range(DRAWS)]
    of_rows, of_persons = (
        np.mean([low <= truth[name] <= high for low, high in ends]) for ends in zip(*found, strict=True)
    )
    print(f"{name}: {of_rows:.0%} of rows, {of_persons:.0%} of persons")
    assert of_rows < 0.75
    assert of_persons >= 0.87  # 95 % less 2.5 standard errors of 50 draws


PREDICTED = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.2, 0.9])
LABEL = torch.tensor([1, 1, 0, 0, 0, 0])
PERSON = np.array([7, 7, 7, 9, 9, 4])


def filled(metric):
    metric.update(PREDICTED, LABEL)
    return metric


def test_both_variances_are_those_of_leaving_out_a_person_or_a_row():
    # By hand: 4 of 6 decisions are right. Without person 7 (2 of 3), 9 (2 of 2) or 4 (0 of 1): 2/3, 2/4, 4/5.
    found = spread(filled(Accuracy()), [(PREDICTED, LABEL)], PERSON)
    without_person = np.array([2 / 3, 2 / 4, 4 / 5])
    without_row = np.array([3 / 5] * 4 + [4 / 5] * 2)
    expected = [(n - 1) / n * ((v - v.mean()) ** 2).sum() * 36 for v in (without_person, without_row) for n in [len(v)]]
    assert found == pytest.approx([*expected, 9 + 4 + 1, 6], rel=1e-5)


def test_an_interval_is_wider_by_the_root_of_the_design_effect_and_by_students_t_within_the_range():
    # By hand: the variance by persons is 4 times that by rows, so the distances double; t(.975, 9) = 2.2622.
    values = {"accuracy": 0.8, "accuracy/low": 0.7, "accuracy/high": 0.85}
    wide = widened(values, Accuracy(), "accuracy", spread=np.array([4.0, 1.0, 99, 10]), persons=10)
    by = 2 * 2.2622 / 1.95996
    assert wide["accuracy/low"] == pytest.approx(0.8 - 0.1 * by, abs=1e-4)
    assert wide["accuracy/high"] == pytest.approx(0.8 + 0.05 * by, abs=1e-4)
    wide = widened(values, Accuracy(), "accuracy", spread=np.array([400.0, 1.0, 99, 10]), persons=10)
    assert (wide["accuracy/low"], wide["accuracy/high"]) == (0.0, 1.0)


def test_an_interval_never_becomes_narrower_and_where_no_row_varies_the_persons_rows_tell():
    values = {"accuracy": 1.0, "accuracy/low": 0.9, "accuracy/high": 1.0}
    same = widened(values, Accuracy(), "accuracy", spread=np.array([0.5, 1.0, 99, 10]), persons=10**6)
    assert same["accuracy/low"] == pytest.approx(0.9, abs=1e-5)
    wide = widened(values, Accuracy(), "accuracy", spread=np.array([0.0, 0.0, 40.0, 10.0]), persons=10**6)
    assert wide["accuracy/low"] == pytest.approx(0.8, abs=1e-5)  # four rows a person: twice as far


def test_a_metric_that_does_not_add_up_over_persons_has_no_such_sums():
    metric, risk = WeightedCIndex(), torch.arange(6.0)
    rows = (risk, torch.arange(6.0) + 1, torch.ones(6))
    metric.update(*rows)
    assert spread(metric, [rows], PERSON) is None


def test_rows_that_do_not_belong_to_the_persons_and_one_person_alone_have_none():
    assert spread(filled(Accuracy()), [(PREDICTED, LABEL)], PERSON[:5]) is None
    assert spread(filled(Accuracy()), [(PREDICTED, LABEL)], np.ones(6, np.int64)) is None


def test_what_a_metric_is_given_is_seen_only_meanwhile_and_it_takes_it_as_ever():
    metric = Accuracy()
    with RowsSeen({"accuracy": metric}) as seen:
        metric.update(PREDICTED, LABEL)
    metric.update(PREDICTED, LABEL)
    assert [len(each[0]) for each in seen.rows["accuracy"]] == [6]
    assert metric.counted()[1] == 12


def test_masks_and_metrics_without_an_interval_are_not_kept():
    masks, plain = Accuracy(), torchmetrics.MeanMetric()
    with RowsSeen({"masks": masks, "plain": plain}) as seen:
        masks.update(PREDICTED.reshape(1, 2, 3), LABEL.reshape(1, 2, 3))
        plain.update(PREDICTED)
    assert seen.rows == {"masks": []}
    assert masks.counted()[1] == 6


def test_the_metric_keeps_what_it_counted():
    metric = filled(Accuracy())
    before = metric.counted()
    spread(metric, [(PREDICTED, LABEL)], PERSON)
    assert metric.counted() == before
