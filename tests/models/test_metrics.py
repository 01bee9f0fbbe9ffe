"""Metrics against scikit-learn and lifelines on fixed arrays: exact at a site, to a thousandth when pooled."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index
from scipy.optimize import minimize
from sklearn import metrics as sklearn
from torchmetrics.functional.classification import binary_calibration_error

from flip.metrics import metric_states
from flip.site.bootstrap import bootstrap
from models.heads.classification import Binary
from models.heads.survival import Cox, breslow, cox_loss
from models.metrics.binned import BinnedAUPRC, BinnedAUROC, delong
from models.metrics.calibration import BinnedCalibrationError, BinnedCalibrationSlope
from models.metrics.classes import (
    Accuracy,
    BalancedAccuracy,
    BinnedClassAUROC,
    BinnedLabelAUROC,
    Brier,
    ClassAccuracy,
    LabelAccuracy,
    Sensitivity,
)
from models.metrics.counts import BaselineHazard
from models.metrics.exact import AUPRC, AUROC, CalibrationSlope, ClassAUROC, LabelAUROC
from models.metrics.intervals import Mean, wilson
from models.metrics.survival import CIndex, IntegratedBrier, WeightedCIndex
from models.metrics.thresholds import decide_at

EXACT, BIN = 1e-6, 1e-3
DRAW = np.random.default_rng(0)
TRUE = DRAW.random(400)
LABEL = (DRAW.random(400) < TRUE).astype(int)
PREDICTED = np.clip(TRUE + DRAW.normal(0, 0.15, 400), 0.01, 0.99).astype(np.float32)
CLASSES = DRAW.dirichlet([1, 1, 1], 400).astype(np.float32)
CLASS = np.array([DRAW.choice(3, p=row / row.sum()) for row in CLASSES.astype(float)])
TIME, EVENT = DRAW.exponential(1 / (0.2 + TRUE)).round(1) + 0.1, (DRAW.random(400) < 0.7).astype(float)
PARTS = (slice(0, 90), slice(90, 250), slice(250, 400))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(each)) for each in arrays]


def of(metric, *arrays: np.ndarray):
    metric.update(*tensors(*arrays))
    return metric


def pooled(make, *arrays: np.ndarray, cell: int = 1):
    """A metric from the summed states of three sites, as the coordinator has it."""
    sums: dict[str, torch.Tensor] = {}
    for part in PARTS:
        site = of(make(), *(each[part] for each in arrays))
        states = site.coarse(cell) if hasattr(site, "coarse") else metric_states(site)
        sums = {name: sums.get(name, 0) + state for name, state in states.items()}
    whole = make()
    for name, state in sums.items():
        setattr(whole, name, state)
    whole._update_count = 1
    return whole


BINARY = [
    (AUROC, BinnedAUROC, sklearn.roc_auc_score),
    (AUPRC, BinnedAUPRC, sklearn.average_precision_score),
]


@pytest.mark.parametrize(("exact", "binned", "reference"), BINARY)
def test_areas_are_exact_at_a_site_and_within_a_bin_when_pooled(exact, binned, reference):
    expected = reference(LABEL, PREDICTED)
    assert float(of(exact(), PREDICTED, LABEL).compute()) == pytest.approx(expected, abs=EXACT)
    assert float(pooled(binned, PREDICTED, LABEL).compute()) == pytest.approx(expected, abs=BIN)


@pytest.mark.parametrize(("exact", "binned", "reference"), BINARY)
def test_with_one_class_alone_there_is_no_area(exact, binned, reference):
    assert math.isnan(of(exact(), PREDICTED, LABEL * 0).compute())
    assert math.isnan(of(binned(), PREDICTED, LABEL * 0).compute())
    assert math.isnan(of(exact(), PREDICTED[:0], LABEL[:0]).compute())


def test_delong_from_bins_is_delong_of_the_rows():
    """With a bin for each row the formula is DeLong's own, written here as in the paper, row by row."""
    n, m = PREDICTED[LABEL == 0][:60], PREDICTED[LABEL == 1][:60]
    above = (m[:, None] > n).astype(float) + 0.5 * (m[:, None] == n)
    error = math.sqrt(above.mean(1).var(ddof=1) / len(m) + above.mean(0).var(ddof=1) / len(n))
    order = np.unique(np.concatenate([n, m]))
    counts = [torch.from_numpy((each[:, None] == order).sum(0)) for each in (n, m)]
    assert delong(*counts) == pytest.approx((above.mean(), error), rel=1e-5)


@pytest.mark.parametrize("right", [0, 1])
def test_rows_that_are_all_right_or_all_wrong_are_no_certainty(right):
    label = np.repeat([0, 1], [10, 30])
    area = of(BinnedAUROC(), np.where(label == right, 0.9, 0.1).astype(np.float32), label)
    shares = of(BalancedAccuracy(2), label if right else 1 - label, label)
    for metric in (area, shares):
        assert float(metric.compute()) == right
        assert metric.interval() == pytest.approx(wilson(10 * right, 10))


def test_intervals_of_pooled_areas_cover_the_truth_as_often_as_they_say():
    draw, inside = np.random.default_rng(1), []
    for _ in range(200):
        label = (draw.random(120) < 0.4).astype(int)
        score = 1 / (1 + np.exp(-draw.normal(label, 1)))
        low, high = of(BinnedAUROC(), score.astype(np.float32), label).interval()
        inside.append(low <= 0.7602 <= high)  # Phi(1 / sqrt 2)
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_calibration_slope_is_that_of_a_logistic_regression(scale):
    logit = scale * np.log(PREDICTED / (1 - PREDICTED)).astype(float)
    shown = (1 / (1 + np.exp(-logit))).astype(np.float32)

    def least(slope: float | None):
        """The smallest negative log-likelihood, at a slope or over all slopes."""
        start = [0.0] if slope is not None else [0.0, 1.0]
        line = (lambda w: w[0] + slope * logit) if slope is not None else (lambda w: w[0] + w[1] * logit)
        return minimize(lambda w: np.logaddexp(0, -(2 * LABEL - 1) * line(w)).sum(), start, method="BFGS", tol=1e-9)

    expected = least(None)
    site = of(CalibrationSlope(), shown, LABEL)
    assert float(site.compute()) == pytest.approx(expected.x[1], abs=1e-4)
    for end in site.interval():  # likelihood ratio of 3.84 there
        assert 2 * (least(end).fun - expected.fun) == pytest.approx(3.84, rel=0.15)
    assert float(pooled(BinnedCalibrationSlope, shown, LABEL).compute()) == pytest.approx(expected.x[1], rel=0.05)


def test_classes_that_do_not_overlap_have_no_calibration_slope():
    assert math.isnan(
        of(CalibrationSlope(), np.array([0.1, 0.2, 0.8, 0.9], np.float32), np.array([0, 0, 1, 1])).compute()
    )


def test_the_calibration_error_of_sums_is_that_of_the_rows():
    expected = binary_calibration_error(*tensors(PREDICTED, LABEL), n_bins=10)
    assert float(pooled(BinnedCalibrationError, PREDICTED, LABEL).compute()) == pytest.approx(
        float(expected), abs=EXACT
    )


def test_shares_and_brier_are_scikit_learns_at_a_site_and_pooled():
    for make, expected in (
        (Accuracy, sklearn.accuracy_score(LABEL, PREDICTED >= 0.5)),
        (Brier, sklearn.brier_score_loss(LABEL, PREDICTED)),
    ):
        assert float(of(make(), PREDICTED, LABEL).compute()) == pytest.approx(expected, abs=EXACT)
        assert float(pooled(make, PREDICTED, LABEL).compute()) == pytest.approx(expected, abs=EXACT)


def test_the_interval_of_a_share_is_wilsons():
    """Newcombe RG, Stat Med 1998;17:857-872, table I: 81 of 263."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_interval_of_a_mean_is_normal_and_nothing_of_one_is_known():
    mean = of(Mean(), TRUE)
    low, high = mean.interval()
    half = 1.96 * TRUE.std(ddof=1) / math.sqrt(len(TRUE))
    assert (low, high) == pytest.approx((TRUE.mean() - half, TRUE.mean() + half), rel=1e-4)
    assert math.isnan(of(Mean(), TRUE[:1]).interval()[0])


def test_several_classes_are_scikit_learns():
    most = CLASSES.argmax(1)
    macro = sklearn.roc_auc_score(
        CLASS, CLASSES.astype(float) / CLASSES.astype(float).sum(1, keepdims=True), multi_class="ovr"
    )
    assert float(of(ClassAUROC(3), CLASSES, CLASS).compute()) == pytest.approx(macro, abs=EXACT)
    assert float(pooled(lambda: BinnedClassAUROC(3), CLASSES, CLASS).compute()) == pytest.approx(macro, abs=BIN)
    for make, expected in (
        (ClassAccuracy, sklearn.accuracy_score(CLASS, most)),
        (BalancedAccuracy, sklearn.balanced_accuracy_score(CLASS, most)),
    ):
        assert float(pooled(lambda make=make: make(3), CLASSES, CLASS).compute()) == pytest.approx(expected, abs=EXACT)


def test_a_class_that_a_site_lacks_does_not_count_against_it():
    known = CLASS < 2
    expected = np.mean([sklearn.roc_auc_score(CLASS[known] == k, CLASSES[known, k]) for k in (0, 1)])
    assert float(of(ClassAUROC(3), CLASSES[known], CLASS[known]).compute()) == pytest.approx(expected, abs=EXACT)
    assert float(of(BinnedClassAUROC(3), CLASSES[known], CLASS[known]).compute()) == pytest.approx(expected, abs=BIN)


def test_the_interval_of_a_macro_auroc_is_that_of_one_area_where_the_areas_are_the_same():
    twice, labels = np.stack([PREDICTED, PREDICTED], 1), np.stack([LABEL, LABEL], 1)
    expected = pooled(BinnedAUROC, PREDICTED, LABEL).interval()
    assert pooled(lambda: BinnedLabelAUROC(2), twice, labels).interval() == pytest.approx(expected, abs=EXACT)


def test_the_interval_of_a_macro_auroc_is_not_narrower_than_a_bootstrap():
    low, high = pooled(lambda: BinnedClassAUROC(3), CLASSES, CLASS).interval()
    by_rows = bootstrap(of(ClassAUROC(3), CLASSES, CLASS), np.random.default_rng(0))
    assert by_rows[1] - by_rows[0] < high - low < 2 * (by_rows[1] - by_rows[0])


@pytest.mark.parametrize("rows", [0, 1])
def test_of_a_class_with_one_row_a_macro_auroc_has_no_interval(rows):
    few = np.concatenate([np.flatnonzero(CLASS > 0)[:60], np.flatnonzero(CLASS == 0)[:rows]])
    low, high = of(BinnedClassAUROC(3), CLASSES[few], CLASS[few]).interval()
    assert math.isnan(low) == math.isnan(high) == (rows == 1)  # a class that does not occur is left out


def test_labels_that_are_not_known_do_not_count():
    label = np.stack([CLASS == 0, CLASS == 1, CLASS == 2], 1).astype(int)
    unknown = DRAW.random(label.shape) < 0.3
    given = np.where(unknown, -1, label)
    each = [sklearn.roc_auc_score(label[~unknown[:, k], k], CLASSES[~unknown[:, k], k]) for k in range(3)]
    assert float(of(LabelAUROC(3), CLASSES, given).compute()) == pytest.approx(np.mean(each), abs=EXACT)
    assert float(pooled(lambda: BinnedLabelAUROC(3), CLASSES, given).compute()) == pytest.approx(np.mean(each), abs=BIN)
    right = sklearn.accuracy_score(label[~unknown], CLASSES[~unknown] >= 0.5)
    assert float(pooled(LabelAccuracy, CLASSES, given).compute()) == pytest.approx(right, abs=EXACT)


def test_the_c_index_is_lifelines_at_a_site_and_weighted_by_pairs_when_pooled():
    expected = concordance_index(TIME, -TRUE, EVENT)
    assert float(of(CIndex(), TRUE, TIME, EVENT).compute()) == pytest.approx(expected, abs=EXACT)
    by_site = [concordance_index(TIME[part], -TRUE[part], EVENT[part]) for part in PARTS]
    pairs = [int(of(WeightedCIndex(), TRUE[part], TIME[part], EVENT[part]).pairs) for part in PARTS]
    whole = pooled(WeightedCIndex, TRUE, TIME, EVENT)
    assert float(whole.compute()) == pytest.approx(np.average(by_site, weights=pairs), abs=EXACT)
    low, high = whole.interval()
    assert low < float(whole.compute()) < high


def test_the_c_index_of_a_site_is_of_all_its_batches():
    metric = WeightedCIndex()
    for start in range(0, 400, 64):
        metric.update(*tensors(TRUE[start : start + 64], TIME[start : start + 64], EVENT[start : start + 64]))
    assert float(metric.compute()) == pytest.approx(concordance_index(TIME, -TRUE, EVENT), abs=EXACT)


def test_one_patient_has_no_c_index():
    assert math.isnan(of(CIndex(), TRUE[:1], TIME[:1], EVENT[:1]).compute())
    assert of(WeightedCIndex(), TRUE[:1], TIME[:1], EVENT[:1]).pairs == 0


def test_the_integrated_brier_score_without_censoring_is_the_mean_of_brier_scores():
    times, survival = [0.5, 1.0, 2.0], np.clip(TRUE[:, None] ** np.array([0.5, 1, 2]), 0, 1)
    each = [sklearn.brier_score_loss((t < TIME).astype(int), survival[:, k]) for k, t in enumerate(times)]
    metric = of(IntegratedBrier(times), TRUE, TIME, np.ones(400), survival)
    assert float(metric.compute()) == pytest.approx(np.trapezoid(each, times) / 1.5, abs=EXACT)


def test_the_integrated_brier_score_weighs_by_the_censoring_just_before_an_event():
    """Graf 1999, equation 3, written out for one time with lifelines' curve."""
    at, survival = 1.0, np.clip(1 - TRUE, 0.01, 0.99)[:, None]
    curve = KaplanMeierFitter().fit(TIME, 1 - EVENT)
    before = np.array([float(curve.predict(t - 1e-9)) for t in TIME])
    now = float(curve.predict(at))
    died, alive = (at >= TIME) & (EVENT > 0), at < TIME
    expected = np.mean(died * survival[:, 0] ** 2 / before + alive * (1 - survival[:, 0]) ** 2 / now)
    assert float(of(IntegratedBrier([at]), TRUE, TIME, EVENT, survival).compute()) == pytest.approx(expected, abs=1e-5)


def test_survival_by_cox_is_lifelines_from_breslows_baseline_hazard():
    """Of a fit of lifelines, with ties; on other rows than those of the baseline."""
    times = [0.3, 0.5, 1.0, 2.0]
    table = pd.DataFrame({"x": TRUE, "time": TIME, "event": EVENT})
    fitted = CoxPHFitter(baseline_estimation_method="breslow").fit(table[:250], "time", "event")
    expected = fitted.predict_survival_function(table[250:], times).to_numpy().T
    head = Cox(1, times=times)
    head.linear.weight.data[:] = float(fitted.params_["x"])
    batch = dict(zip(("x", "time", "event"), tensors(TRUE[:, None].astype(np.float32), TIME, EVENT), strict=True))
    train, test = ({name: each[part] for name, each in batch.items()} for part in (slice(250), slice(250, None)))
    head.fit_baseline(head.scored(head(train["x"]), train))
    survival = head.scored(head(test["x"]), test)[3]
    np.testing.assert_allclose(survival.detach(), expected, atol=1e-5)


def test_the_baseline_hazard_of_all_sites_is_that_of_their_rows_together_and_near_breslows():
    times = [0.3, 0.5, 1.0, 2.0]
    risk, time, event = tensors(TRUE, TIME, EVENT)
    whole, *parts = (BaselineHazard(times) for _ in range(3))
    whole.update(risk, time, event)
    for metric, part in zip(parts, (slice(0, 90), slice(90, None)), strict=True):
        metric.update(risk[part], time[part], event[part])
        for name in ("deaths", "persons", "exposure"):
            setattr(parts[0], name, sum(getattr(each, name) for each in parts)) if metric is parts[1] else None
    assert float(parts[0].compute()) == pytest.approx(float(whole.compute()))
    exact = float(breslow(risk, time, event, torch.tensor(times))[-1])
    assert float(whole.compute()) == pytest.approx(exact, rel=0.1)
    assert math.isnan(BaselineHazard(times).compute())


def test_a_baseline_hazard_of_few_deaths_in_an_interval_stays_where_they_are():
    metric = BaselineHazard([1.0, 2.0])
    metric.update(torch.zeros(12), torch.tensor([0.5] * 3 + [2.5] * 9), torch.tensor([1.0] * 3 + [0.0] * 9))
    assert (metric.thin(3), metric.thin(4)) == (False, True)
    metric = BaselineHazard([1.0, 2.0])  # nobody dies, but few are seen in the second
    metric.update(torch.zeros(12), torch.tensor([0.5] * 10 + [2.5] * 2), torch.zeros(12))
    assert (metric.thin(2), metric.thin(3)) == (False, True)
    metric = BaselineHazard([1.0, 2.0])  # one was last seen in the first: 12 persons, and 11 in the second
    metric.update(torch.zeros(12), torch.tensor([0.5] + [2.5] * 11), torch.zeros(12))
    assert (metric.thin(1), metric.thin(2)) == (False, True)


def test_survival_is_predicted_with_what_the_models_file_knows_and_no_other():
    head, risk = Cox(1, times=[0.5, 180]), torch.tensor([0.0, math.log(2)])
    for scores in ({}, {"baseline_hazard_0_5": 0.1}, {"baseline_hazard_0_5": 0.1, "baseline_hazard_180": math.nan}):
        head.know(scores)
        assert head.predicted(risk, {}).keys() == {"relative_hazard"}
    head.know({"baseline_hazard_0_5": 0.1, "baseline_hazard_180": 0.5})
    found = head.predicted(risk, {})
    assert found["survival_0.5"].tolist() == pytest.approx([math.exp(-0.1), math.exp(-0.2)])
    assert found["survival_180"].tolist() == pytest.approx([math.exp(-0.5), math.exp(-1.0)])


def test_without_training_rows_survival_by_cox_is_not_scored():
    head = Cox(1, times=[0.5, 1.0])
    batch = dict(zip(("x", "time", "event"), tensors(TRUE[:, None].astype(np.float32), TIME, EVENT), strict=True))
    rows = head.scored(head(batch["x"]), batch)
    metrics = head.metrics()
    for metric in metrics.values():
        metric.update(*rows)
    assert math.isnan(metrics["integrated_brier_weighted"].compute())
    assert math.isfinite(metrics["c_index_weighted"].compute())


@pytest.mark.parametrize("wrong", [[2.0, 1.0], [0.0, 1.0]])
def test_times_that_do_not_ascend_are_refused(wrong):
    with pytest.raises(ValueError, match=r"model\.head\.times"):
        Cox(1, times=wrong)


def test_youdens_threshold_is_scikit_learns_within_a_bin():
    head = Binary(4, threshold="youden")
    chosen = head.choose({"auroc_binned": pooled(BinnedAUROC, PREDICTED, LABEL)})
    false, true, _ = sklearn.roc_curve(LABEL, PREDICTED)
    best = (true - false).max()
    found = np.mean(PREDICTED[LABEL == 1] >= chosen) - np.mean(PREDICTED[LABEL == 0] >= chosen)
    assert found == pytest.approx(best, abs=0.02)


def test_a_wanted_sensitivity_is_met_by_the_highest_threshold():
    head = Binary(4, threshold={"sensitivity": 0.9})
    chosen = head.choose({"auroc_binned": pooled(BinnedAUROC, PREDICTED, LABEL)})
    assert np.mean(PREDICTED[LABEL == 1] >= chosen) >= 0.9
    assert np.mean(PREDICTED[LABEL == 1] >= chosen + 0.01) < 0.9


def test_a_probability_that_is_the_threshold_is_a_yes():
    head = Binary(4, threshold={"sensitivity": 0.9})
    same, label = torch.full((4,), 0.75), torch.tensor([1, 1, 0, 0])
    chosen = head.choose({"auroc_binned": of(BinnedAUROC(), same.numpy(), label.numpy())})
    sensitivity = Sensitivity()
    assert decide_at([sensitivity], chosen) == chosen
    sensitivity.update(torch.full((4,), chosen), label)
    assert sensitivity.compute() == 1


def test_the_loss_of_cox_is_finite_however_far_apart_the_risks_are():
    risk = torch.tensor([0.0, -120.0, 90.0], requires_grad=True)
    loss = cox_loss(risk, torch.tensor([1.0, 2.0, 0.5]), torch.ones(3))
    loss.backward()
    assert loss.isfinite() and risk.grad.isfinite().all()


def test_one_class_alone_gives_no_threshold():
    assert Binary(4, threshold="youden").choose({"auroc_binned": of(BinnedAUROC(), PREDICTED, LABEL * 0)}) is None


@pytest.mark.parametrize("wrong", ["best", 0, 1.5, {"sensitivity": 2}, {"specificity": 0.9}])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="threshold"):
        Binary(4, threshold=wrong)
