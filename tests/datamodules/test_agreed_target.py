"""What sites agree on of what a study predicts: persons of each class, mean and deviation of a number."""

import numpy as np
import pytest

from datamodules.agreed_target import agreed, statistics
from datamodules.targets import Binary, MultiClass, MultiLabel, Regression, Survival

PERSON = np.array([1, 1, 2, 3, 4])


def test_persons_of_a_class_are_counted_once() -> None:
    found = statistics(MultiClass("site", ["a", "b", "c"]), {"label": np.array([0, 0, 0, 1, 1])}, PERSON)
    assert found["count/label"].tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("target", "arrays", "persons"),
    [
        (Binary("died", [1]), {"label": np.array([1.0, 1.0, 0.0, 0.0, 1.0], np.float32)}, [2, 2]),
        (Survival("days", "died"), {"event": np.array([1.0, 0.0, 0.0, 0.0, 1.0], np.float32)}, [3, 2]),
        (MultiLabel(["x", "y"]), {"label": np.array([[1, np.nan], [1, 0], [0, 1], [1, 0], [0, 0]])}, [2, 1]),
    ],
)
def test_each_kind_of_outcome_counts_its_persons(target, arrays, persons) -> None:
    assert statistics(target, arrays, PERSON)["count/label"].tolist() == persons


def test_a_class_weighs_by_the_persons_of_all_sites() -> None:
    target = MultiClass("site", ["a", "b"])
    weights = agreed(target, {"count/label": np.array([30.0, 10.0])}, {"label": np.array([0, 1, 0])}, 3)["class_weight"]
    assert weights.tolist() == pytest.approx([2 / 3, 2.0, 2 / 3])
    assert (30 * weights[0] + 10 * weights[1]) / 40 == pytest.approx(1.0)


def test_a_class_that_all_sites_withhold_has_the_largest_weight_that_is_known() -> None:
    target = MultiClass("site", ["a", "b", "c"])
    weights = agreed(target, {"count/label": np.array([30.0, 10.0, 0.0])}, {"label": np.array([0, 1, 2])}, 3)[
        "class_weight"
    ]
    assert weights[2] == weights[1] == weights.max()


def test_a_numbers_scale_is_that_of_all_sites_rows() -> None:
    labels = [np.array([60.0, 80.0], np.float32), np.array([70.0, 90.0, 100.0], np.float32)]
    sums = sum(statistics(Regression("age"), {"label": each}, np.arange(9))["moments/target"] for each in labels)
    found = agreed(Regression("age"), {"moments/target": sums}, {"label": labels[0]}, 2)
    whole = np.concatenate(labels)
    assert found["label_mean"].tolist() == pytest.approx([whole.mean()] * 2)
    assert found["label_deviation"].tolist() == pytest.approx([whole.std()] * 2)
