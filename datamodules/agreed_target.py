"""What sites agree on of what a study predicts: the persons of each class, or the mean and deviation of a number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamodules.description import Description
from datamodules.inputs import Inputs
from datamodules.targets import UNDECLARED, Binary, MultiClass, MultiLabel, Regression, Survival, Target
from datamodules.text import HashedText
from datamodules.unlabeled import Unlabeled

PERSONS, MOMENTS, CODED = "count/label", "moments/target", "count/coded"
ROUNDING = 1e-7  # of a mean: what float32 does not hold
Arrays = dict[str, np.ndarray]


def statistics(target: Target | Unlabeled, arrays: Mapping[str, np.ndarray], person: np.ndarray) -> Arrays:
    """Of training rows: `count/label` [classes], the distinct persons of each class, or of each label that is present;
    of a number `moments/target` [3], its number, sum and sum of squares.

    `arrays` are the target's, `person` int64 [n] whose each row is.
    """
    if isinstance(target, Unlabeled):
        return {}
    if isinstance(target, Regression):
        label = arrays["label"].astype(np.float64)
        return {MOMENTS: np.array([len(label), label.sum(), np.square(label).sum()])}
    if isinstance(target, MultiLabel):
        has = np.nan_to_num(arrays["label"]).T > 0
    else:
        has = target.strata(arrays) == np.arange(len(target.classes))[:, None]
    return {PERSONS: np.array([float(len(np.unique(person[each]))) for each in has])}


def fitted(inputs: Inputs, target: Target) -> dict[str, tuple[str, str]]:
    """By key of the study what a batch takes from the rows of all sites, and how to do without."""
    found = dict(inputs.tabular.fitted) if inputs.tabular is not None else {}
    if isinstance(inputs.text, HashedText):
        found["dataset.text"] = (
            "the persons who have each word",
            "set dataset.text=null, or read notes by datamodules.text.TransformerText",
        )
    if isinstance(target, MultiClass):
        found["dataset.target"] = (
            "the persons of each class",
            "predict one class or several against the others by datamodules.targets.Binary",
        )
    if isinstance(target, Regression):
        found["dataset.target"] = (
            "the mean and deviation of the number to predict",
            "predict whether it is of some levels by datamodules.targets.Binary",
        )
    return found


def describe(target: Target | Unlabeled, arrays: Mapping[str, np.ndarray], told: Description) -> None:
    """Say of the rows with what the study predicts how many persons have which class, or how its number is spread."""
    if target.classes:
        told.classes(target.strata(arrays), target.classes)
    else:
        told.rows("labels", np.ones(len(arrays["label"]), bool))
        told.number(target.columns[0], arrays["label"])


def coded(target: Target | Unlabeled, arrays: Mapping[str, np.ndarray], left_out: Mapping[str, int]) -> Arrays:
    """Where yes or no, as of an event, has one answer alone, `count/coded` [1]: persons with a level not declared.

    Of a site that writes 1 and 2 for the study's 0 and 1, the 1 would be taken for yes, and the 2 left out. `arrays`
    are the target's of all rows that are used, `left_out` persons by reason.
    """
    answers = arrays.get("event" if isinstance(target, Survival) else "label", np.zeros(0))
    one = isinstance(target, Binary | MultiLabel | Survival) and len(np.unique(answers[~np.isnan(answers)])) == 1
    return {CODED: np.array([float(left_out.get(UNDECLARED, 0))])} if one else {}


def unfit(target: Target | Unlabeled, told: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """A sentence for each reason against the study, by site what `coded` and `statistics` tell."""
    if isinstance(target, Unlabeled):
        return []
    column, first = " and ".join(target.declared) or target.columns[0], next(iter(target.declared), "")
    return [
        *(
            f"{site} has one answer to {column} alone, and others that the study does not declare: it may write the "
            "same in other codes, and be trained on the wrong one; map them in the site's file as columns: "
            f"{{{first}: {{values: {{own: declared}}}}}}, or name what means a missing value: dataset.records.missing"
            for site, counts in told.items()
            if CODED in counts
        ),
        *_constant(target, told),
    ]


def _constant(target: Target, told: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """A sentence where a number to predict is the same in all training rows."""
    sums = [each[MOMENTS] for each in told.values() if MOMENTS in each and each[MOMENTS].shape == (3,)]
    if not isinstance(target, Regression) or not sums or _mean_and_deviation(np.sum(sums, axis=0))[1]:
        return []
    return [
        f"{target.columns[0]} is the same number in every training row of all sites, so nothing can be learned of it; "
        "correct dataset.target, or a site's columns"
    ]


def _mean_and_deviation(moments: np.ndarray) -> tuple[float, float]:
    """Of number, sum and sum of squares; a deviation of 0 where only rounding parts the values, as float32 holds them.

    0 and 1 of no value.
    """
    number, total, squares = (float(each) for each in moments)
    if not number:
        return 0.0, 1.0
    mean = total / number
    deviation = float(np.sqrt(max(squares / number - mean**2, 0.0)))
    return mean, deviation if deviation > ROUNDING * abs(mean) else 0.0


def weighed(
    target: Target | Unlabeled,
    merged: Mapping[str, np.ndarray],
    arrays: Mapping[str, np.ndarray],
    person: np.ndarray,
    train: np.ndarray,
) -> np.ndarray:
    """By class of training rows, float64 [classes, 2]: distinct persons, and what the rows weigh together."""
    if not isinstance(target, MultiClass):
        return np.zeros((0, 2))
    weights = _class_weights(target, merged)
    own = [train & (arrays["label"] == each) for each in range(len(weights))]
    return np.array([(len(np.unique(person[each])), each.sum() * weights[n]) for n, each in enumerate(own)])


def _class_weights(target: MultiClass, merged: Mapping[str, np.ndarray]) -> np.ndarray:
    persons = np.asarray(merged.get(PERSONS, np.zeros(len(target.levels))), np.float64)
    known = persons > 0
    weights = np.where(known, persons.sum() / (known.sum() or 1) / np.where(known, persons, 1), 0)
    return np.where(known, weights, weights.max() or 1.0)


def agreed(
    target: Target | Unlabeled, merged: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], rows: int
) -> Arrays:
    """What a batch holds besides the target, by the sums of all sites' training rows.

    Of one of several classes `class_weight` float32 [n], n / (k n_c) by the persons of the row's class: the mean over
    the persons of all sites is 1; a class whose persons all sites withhold has the largest weight that is known. Of a
    number `label_mean` and `label_deviation` float32 [n], in its unit.
    """
    if isinstance(target, Unlabeled):
        return agreed(target.target, merged, arrays, rows) if isinstance(target.target, Regression) else {}
    if isinstance(target, MultiClass):
        return {"class_weight": _class_weights(target, merged)[arrays["label"]].astype(np.float32)}
    if isinstance(target, Regression):
        mean, deviation = _mean_and_deviation(merged.get(MOMENTS, np.zeros(3)))
        pair = {"label_mean": mean, "label_deviation": deviation or 1.0}
        return {name: np.full(rows, value, np.float32) for name, value in pair.items()}
    return {}
