"""Every metric of every shipped model, where one class, label or event is of two persons with fifteen rows each."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flip.messages import Withheld
from flip.messages.summary import Topic
from flip.metrics import scored_names
from flip.site.disclosure import withheld_metrics
from flip.site.evaluate import leaving, own_rule, score
from flip.site.persons import Persons
from flip.site.trainer import Device
from models.encoders.tabular import Identity
from models.fusion import Single
from models.heads.classification import Binary, MultiClass, MultiLabel
from models.heads.regression import Regression
from models.heads.survival import Cox, DiscreteTime
from models.metrics.classes import LabelAccuracy
from models.metrics.segmentation import CaseDice, CaseHD95
from models.multimodal import MultimodalModel
from tests.models.suite import Rows

CELL, FEW, MANY = 5, 30, 60
RARE = (torch.arange(FEW + MANY) < FEW).float()
NOISE = torch.randn(FEW + MANY, 1, generator=torch.Generator().manual_seed(0))
TIME = 1 + torch.arange(FEW + MANY).float() % 7

HEADS = {
    "binary": (Binary, {"label": RARE}, {"brier", "loss"}),
    "classes": (
        functools.partial(MultiClass, classes=3),
        {"label": torch.where(RARE > 0, 2, torch.arange(FEW + MANY) % 2)},
        {"brier", "loss"},
    ),
    "labels": (
        functools.partial(MultiLabel, labels=2),
        {"label": torch.stack([torch.arange(FEW + MANY) % 2, RARE], 1).float()},
        {"brier", "loss", "accuracy"},
    ),
    "number": (Regression, {"label": RARE}, {"mae", "rmse", "r2", "bias", "loss"}),
    "hazard": (functools.partial(Cox, times=[2.0, 5.0]), {"time": TIME, "event": RARE}, {"loss"}),
    "intervals": (
        functools.partial(DiscreteTime, times=[2.0, 5.0, 8.0]),
        {"time": TIME, "event": RARE},
        {"loss", "integrated_brier_weighted"},
    ),
}
"""The head, its rows, and the metrics that rest on all rows."""


def left(
    head, target: dict[str, torch.Tensor], person: torch.Tensor, split: str = "test"
) -> tuple[set[str], set[str], dict[str, Withheld]]:
    """The metrics whose values leave, those whose sums do, and what is withheld."""
    torch.manual_seed(0)  # other weights, other counts of right and wrong rows
    module = MultimodalModel({"tabular": Identity(1)}, Single, head, torch.optim.SGD, {})
    persons = Persons.of(person.numpy())
    rows = DataLoader(Rows({"tabular": NOISE, "person": person, **target}), 16)
    own, again = score(
        module, rows, split=split, device=Device("cpu", None, {}), cell=persons.examples_of(CELL), seed=1
    )
    values, summaries, withheld = leaving(persons, module, own, again, split=split, cell=CELL)
    states = summaries[Topic.METRIC]
    assert {*values, *withheld} <= {f"{n}{end}" for n in scored_names(module, split) for end in ("", "/low", "/high")}
    return {n.split("/")[0] for n in values}, {n.split("/")[0] for n in states}, withheld


@pytest.mark.parametrize("name", HEADS)
def test_no_metric_tells_of_two_persons_however_many_rows_they_have(name):
    head, target, of_all = HEADS[name]
    person = torch.cat([torch.arange(FEW) % 2, 2 + torch.arange(MANY)])
    values, sums, withheld = left(head, target, person)
    assert values <= of_all
    assert {each for each in sums if each != "integrated_brier_weighted"} <= of_all
    assert not {*values, *sums} & withheld.keys()


@pytest.mark.parametrize("name", HEADS)
def test_a_validation_split_with_two_persons_of_a_sort_names_no_metric_of_the_test_split(name):
    head, target, _ = HEADS[name]
    left(head, target, torch.cat([torch.arange(FEW) % 2, 2 + torch.arange(MANY)]), "validate")


@pytest.mark.parametrize("name", HEADS)
def test_the_same_rows_of_as_many_persons_are_withheld_for_no_small_cell(name):
    head, target, _ = HEADS[name]
    withheld = left(head, target, torch.arange(FEW + MANY))[2]
    # the model is not trained: few of a sort
    allowed = {"accuracy", "sensitivity", "specificity", "balanced_accuracy", "confusion", "decisions"}
    assert {each for each, rule in withheld.items() if rule is Withheld.CELL} <= allowed


@pytest.mark.parametrize("metric", [CaseDice(1), CaseHD95(1)])
def test_a_score_over_few_cases_stays(metric):
    state = next(name for name, default in metric._defaults.items() if not default.is_floating_point())
    module = type("Module", (), {"metrics": {"score": metric}})
    for cases, withheld in ((CELL - 1, {"score": Withheld.CELL}), (CELL, {}), (0, {})):
        states = {f"score/{state}": np.array(cases)}
        assert withheld_metrics(Persons.of(np.arange(40)), module, states, split="test", own={}, cell=CELL) == withheld


@pytest.mark.parametrize(("few", "rule"), [(0, None), (CELL - 1, Withheld.CELL), (CELL, None)])
def test_the_few_decisions_that_are_wrong_cannot_be_told_from_all_and_their_mean(few, rule):
    metric = LabelAccuracy()
    for wrong in (few, 40 - few):  # few are wrong, then few are right
        metric.reset()
        metric.update(torch.ones(40, 1), torch.cat([torch.zeros(wrong, 1), torch.ones(40 - wrong, 1)]))
        assert own_rule(metric, CELL) is rule


@pytest.mark.parametrize(("few", "rule"), [(0, None), (CELL - 1, Withheld.CELL), (CELL, None)])
@pytest.mark.parametrize("make", [CaseDice, CaseHD95])
def test_the_few_cases_without_a_score_cannot_be_told_from_the_examples(make, few, rule):
    metric, shown = make(1), torch.ones(40, 4, 4, dtype=torch.long)
    shown[:few] = 0
    for _ in range(2):  # a reset forgets them
        metric.reset()
        metric.update(shown, shown, *([torch.ones(40)] if make is CaseHD95 else []))
        assert own_rule(metric, CELL) is rule
