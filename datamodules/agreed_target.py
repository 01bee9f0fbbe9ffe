"""What sites agree on of what a study predicts: the persons of each class, or the mean and deviation of a number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamodules.targets import MultiClass, MultiLabel, Regression, Target

PERSONS, MOMENTS = "count/label", "moments/target"
Arrays = dict[str, np.ndarray]


def statistics(target: Target, arrays: Mapping[str, np.ndarray], person: np.ndarray) -> Arrays:
    """Of training rows: `count/label` [classes], the distinct persons of each class, or of each label that is present;
    of a number `moments/target` [3], its number, sum and sum of squares.

    `arrays` are the target's, `person` int64 [n] whose each row is.
    """
    if isinstance(target, Regression):
        label = arrays["label"].astype(np.float64)
        return {MOMENTS: np.array([len(label), label.sum(), np.square(label).sum()])}
    if isinstance(target, MultiLabel):
        has = np.nan_to_num(arrays["label"]).T > 0
    else:
        has = target.strata(arrays) == np.arange(len(target.classes))[:, None]
    return {PERSONS: np.array([float(len(np.unique(person[each]))) for each in has])}


def agreed(target: Target, rows: int, merged: Mapping[str, np.ndarray], label: np.ndarray) -> Arrays:
    """What a batch holds besides the target, by the sums of all sites' training rows.

    Of one of several classes `class_weight` float32 [n], n / (k n_c) by the persons of the row's class: the mean over
    the persons of all sites is 1; a class whose persons all sites withhold has the largest weight that is known. Of a
    number `label_mean` and `label_deviation` float32 [n], in its unit.
    """
    if isinstance(target, MultiClass):
        persons = np.asarray(merged.get(PERSONS, np.zeros(len(target.levels))), np.float64)
        known = persons > 0
        weights = np.where(known, persons.sum() / (known.sum() or 1) / np.where(known, persons, 1), 0)
        weights = np.where(known, weights, weights.max() or 1.0)
        return {"class_weight": weights[label].astype(np.float32)}
    if isinstance(target, Regression):
        number, total, squares = merged.get(MOMENTS, np.zeros(3))
        mean = total / number if number else 0.0
        deviation = float(np.sqrt(max(squares / number - mean**2, 0.0))) if number else 0.0
        pair = {"label_mean": mean, "label_deviation": deviation or 1.0}
        return {name: np.full(rows, value, np.float32) for name, value in pair.items()}
    return {}
