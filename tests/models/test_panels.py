"""What the report shows of each task, against independent libraries and numbers made by hand."""

import json

import numpy as np
import pytest
import torch
from lifelines import KaplanMeierFitter
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, r2_score, recall_score, roc_curve, root_mean_squared_error

from models.heads.classification import Binary, MultiClass, MultiLabel
from models.heads.regression import Determination, Regression, RootMeanSquaredError
from models.heads.survival import Cox
from models.metrics.counts import BaselineHazard, Confusion, FollowUp, LabelDecisions, told
from models.panels.outcomes import outcome_panel
from models.panels.survival import kaplan_meier

DRAW = np.random.default_rng(3)


def scored(head, *rows: torch.Tensor):
    """The head's metrics after rows, as the coordinator has them, at the one site and pooled."""
    metrics = head.metrics()
    for metric in metrics.values():
        metric.update(*rows)
    return {"kings": metrics, "pooled": metrics}


def test_many_outcomes_have_a_row_each() -> None:
    names = [f"section {number}" for number in range(12)]
    table = outcome_panel({"kings": list(range(12)), "pooled": list(range(12))}, names)["table"]
    assert table["columns"] == ["site", "kings", "pooled"]
    assert table["rows"][3] == ["section 3", 3, 3]
    assert table["rows"][-1] == ["all", 66, 66]


def titled(panels, title: str):
    [found] = [panel for panel in panels if panel["title"] == title]
    json.dumps(found)
    return found


def binary_rows(number: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    probability = DRAW.uniform(0.02, 0.98, number)
    label = DRAW.uniform(size=number) < probability
    return torch.tensor(probability, dtype=torch.float32), torch.tensor(label).long()


def test_a_binary_study_shows_roc_calibration_and_what_its_decision_misses() -> None:
    probability, label = binary_rows()
    panels = Binary(4).panels(scored(Binary(4), probability, label), ["well", "ill"])
    roc = titled(panels, "Discrimination")["plots"][0]["lines"][0]
    false, true, _ = roc_curve(label, probability)
    ours = np.stack([roc["x"], roc["y"]], 1)
    far = [np.abs(ours - point).max(1).min() for point in zip(false, true, strict=True)]
    assert max(far) < 0.02  # rows of one bin are tied
    decision = titled(panels, "The decision")
    missed = int(((probability < 0.5) & (label == 1)).sum())
    assert f"{missed} of {int(label.sum())} with ill are missed" in decision["note"]
    sensitivity = decision["table"]["rows"][0]
    assert sensitivity[0] == "sensitivity"
    assert sensitivity[2] == pytest.approx(recall_score(label, probability >= 0.5))
    assert titled(panels, "Outcomes in the test data")["table"]["rows"][0] == [
        "kings", int((label == 0).sum()), int(label.sum()), 400,
    ]  # fmt: skip


def test_calibration_is_that_of_even_bins_by_an_independent_library() -> None:
    probability, label = binary_rows()
    panel = titled(Binary(4).panels(scored(Binary(4), probability, label), []), "Calibration")
    observed, predicted = calibration_curve(label, probability, n_bins=10)
    rows = panel["table"]["rows"]
    assert [row[0] for row in rows] == pytest.approx(list(predicted), abs=1e-5)
    assert [row[1] for row in rows] == pytest.approx(list(observed))
    assert sum(row[3] for row in rows) == 400


def test_precision_starts_at_the_highest_probability_and_ends_at_the_share_of_positives() -> None:
    probability, label = torch.tensor([0.9, 0.8, 0.3, 0.2]), torch.tensor([1, 0, 1, 0])
    line = titled(Binary(4).panels(scored(Binary(4), probability, label), []), "Discrimination")["plots"][1]["lines"][0]
    assert line["y"][0] == 1.0
    assert (line["x"][-1], line["y"][-1]) == (1.0, 0.5)


def test_a_class_is_named_in_its_declared_order_with_its_sensitivity_and_precision() -> None:
    label = torch.tensor(DRAW.integers(0, 3, 200))
    predicted = torch.tensor(DRAW.dirichlet([1, 1, 1], 200)).float() + torch.nn.functional.one_hot(label) * 0.4
    panels = MultiClass(4, 3).panels(scored(MultiClass(4, 3), predicted, label), ["SCC", "ACK", "MEL"])
    wanted = confusion_matrix(label, predicted.argmax(1))
    assert titled(panels, "Confusion matrix")["matrix"] == {
        "names": ["SCC", "ACK", "MEL"], "columns": ["SCC", "ACK", "MEL"], "counts": wanted.tolist(),
    }  # fmt: skip
    rows = titled(panels, "By class")["table"]["rows"]
    assert [row[3] for row in rows] == pytest.approx(list(recall_score(label, predicted.argmax(1), average=None)))
    assert rows[1][5] == pytest.approx(wanted[1, 1] / wanted[:, 1].sum())


@pytest.mark.parametrize("cell", [2, 5, 10])
def test_nothing_of_a_confusion_matrix_below_the_cell_follows_from_its_sums(cell: int) -> None:
    for _ in range(60):
        counts = DRAW.poisson(DRAW.uniform(0, 12, (4, 4)))
        shown = told(counts, cell)
        assert not ((shown > 0) & (shown < cell)).any()
        visible, whole = shown[:, :-1], shown.sum(1)
        left_row = np.where(whole > 0, counts.sum(1) - visible.sum(1), 0)
        left_column = counts.sum(0) - visible.sum(0)
        assert all(
            left == 0 or left >= cell or visible_.sum() == 0 for left, visible_ in zip(left_row, visible, strict=True)
        )
        assert all(
            left == 0 or left >= cell or line.sum() == 0 for left, line in zip(left_column, visible.T, strict=True)
        )
        hidden = counts.sum() - whole.sum()
        assert hidden == 0 or hidden >= cell or not whole.any()


def test_without_a_minimum_cell_the_matrix_is_told_as_it_is() -> None:
    counts = np.array([[3, 1], [0, 2]])
    assert told(counts, 1).tolist() == [[3, 1, 0], [0, 2, 0]]


def test_what_leaves_of_a_small_class_is_withheld_by_the_engines_own_rule() -> None:
    metric = Confusion(3)
    predicted = torch.nn.functional.one_hot(torch.tensor([0] * 30 + [1] * 30 + [2] * 2)).float()
    metric.update(predicted, torch.tensor([0] * 30 + [1] * 30 + [2] * 2))
    left = metric.coarse(5)["counts"]
    assert int(left[2].sum()) == 0
    assert int(left.sum()) in (30, 0)  # another class goes with it: 62 rows less 60 would tell the two


def test_each_label_has_a_row_of_its_own() -> None:
    label = torch.tensor([[1, 0], [1, 1], [0, -1], [0, 0]])
    probability = torch.tensor([[0.9, 0.2], [0.6, 0.4], [0.2, 0.9], [0.7, 0.1]])
    panels = MultiLabel(4, 2).panels(scored(MultiLabel(4, 2), probability, label), ["edema", "mass"])
    first, second = titled(panels, "By label")["table"]["rows"]
    assert first[:3] == ["edema", "2 of 4", pytest.approx(0.75)]
    assert (first[4], first[6]) == (1.0, 0.5)
    assert second[:3] == ["mass", "1 of 3", pytest.approx(1.0)]
    assert second[4] == 0.0


def test_a_label_with_a_thin_count_takes_another_with_it() -> None:
    metric = LabelDecisions(3)
    metric.update(torch.full((40, 3), 0.9), torch.tensor([[1, 1, 1]] * 20 + [[0, 0, 0]] * 18 + [[0, 1, 0]] * 2))
    metric.update(torch.full((2, 3), 0.1), torch.tensor([[1, 1, 1], [1, 1, 1]]))
    assert int((metric.coarse(3)["counts"].sum(1) == 0).sum()) == 3  # all have two wrong noes
    assert int((metric.coarse(2)["counts"].sum(1) == 0).sum()) == 0


def survival_rows(number: int = 300) -> tuple[torch.Tensor, ...]:
    time, event = DRAW.exponential(400, number) + 1, DRAW.uniform(size=number) < 0.6
    return torch.zeros(number), torch.tensor(time).float(), torch.tensor(event).float()


def test_the_survival_curve_is_lifelines_but_for_the_width_of_a_bin() -> None:
    _, time, event = rows = survival_rows()
    metric = FollowUp()
    metric.update(*rows)
    times, survival, low, high = kaplan_meier(metric.counts()[:, 0].numpy(), metric.ends)
    fitted = KaplanMeierFitter().fit(time, event)
    exact = fitted.survival_function_at_times(times).to_numpy()
    assert survival == pytest.approx(exact, abs=0.01)
    ends = fitted.confidence_interval_survival_function_
    for ours, theirs in ((low, ends.iloc[:, 0]), (high, ends.iloc[:, 1])):
        at = np.searchsorted(ends.index, times[5:], side="right") - 1
        assert ours[5:] == pytest.approx(theirs.to_numpy()[at], abs=0.02)


def test_events_and_numbers_at_risk_are_counted() -> None:
    _, time, event = rows = survival_rows()
    panels = Cox(4).panels(scored(Cox(4), *rows), ["censored", "death 1"])
    table = titled(panels, "Follow-up")["plots"][0]["below"]
    second = float(table["columns"][2])
    assert table["rows"][0][1:3] == [300, pytest.approx(int((time >= second).sum()), abs=3)]
    assert titled(panels, "Outcomes in the test data")["table"]["rows"][0] == [
        "kings", int((event == 0).sum()), int(event.sum()), 300,
    ]  # fmt: skip


def test_times_leave_a_site_in_groups_that_hold_the_cell_and_keep_the_events() -> None:
    metric = FollowUp()
    metric.update(*survival_rows())
    left = metric.coarse(5)["seen"]
    assert left.sum((1, 2)).tolist() == metric.seen.sum((1, 2)).tolist()
    assert not ((left > 0) & (left < 5)).any()


def test_beside_a_hazard_no_few_rows_lie_between_its_intervals_and_the_groups_of_the_follow_up() -> None:
    times, told = [40.0, 365.0, 730.0], 0
    for number in range(30, 400, 10):
        rows = survival_rows(number)
        metric = FollowUp(times)
        metric.update(*rows)
        hazards = [BaselineHazard(times[:end]) for end in range(1, 4)]
        for each in hazards:
            each.update(*rows)
        if metric.withheld(5):
            continue
        seen = metric.coarse(5)["seen"][:, 0]
        assert not ((seen > 0) & (seen < 5)).any()
        for hazard in [each for each in hazards if not each.thin(5)]:
            between = hazard.deaths.cumsum(0)[:, None] - seen[1].cumsum(0)[None]
            assert not ((between != 0) & (between.abs() < 5)).any()
            told += 1
    assert told >= 20


def test_few_events_keep_their_times_at_the_site() -> None:
    metric = FollowUp()
    metric.update(torch.zeros(60), torch.linspace(1, 60, 60), torch.tensor([1.0] * 3 + [0.0] * 57))
    assert metric.withheld(5)


def test_errors_of_a_number_are_those_of_an_independent_library_over_any_split_of_the_rows() -> None:
    label = torch.tensor(DRAW.normal(70, 12, 90)).float()
    predicted = label + torch.tensor(DRAW.normal(0, 6, 90)).float()
    for metric, wanted in ((Determination(), r2_score), (RootMeanSquaredError(), root_mean_squared_error)):
        for rows in (slice(0, 20), slice(20, 90)):
            metric.update(predicted[rows], label[rows])
        assert float(metric.compute()) == pytest.approx(wanted(label, predicted), rel=1e-5)


def test_no_interval_of_an_error_is_below_zero() -> None:
    for name, metric in Regression(4).metrics().items():
        metric.update(torch.tensor([1.0, 1.0, 9.0]), torch.tensor([1.0, 1.0, 1.0]))
        if name in ("mae", "rmse"):
            assert metric.interval()[0] == 0.0


def test_a_number_is_learned_on_the_agreed_scale_and_scored_in_its_unit() -> None:
    batch = {name: torch.full((4,), value) for name, value in (("label_mean", 70.0), ("label_deviation", 12.0))}
    batch["label"] = torch.tensor([58.0, 70.0, 82.0, 94.0])
    exact = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    assert float(Regression(4).loss(exact, batch)) == 0.0
    assert torch.equal(Regression(4).scored(exact, batch)[0], batch["label"])


def test_classes_weigh_in_the_loss_as_agreed() -> None:
    output, label = torch.randn(4, 3), torch.tensor([0, 0, 0, 1])
    weights = torch.tensor([0.5, 0.5, 0.5, 3.0])
    plain = torch.nn.functional.cross_entropy(output, label, reduction="none")
    agreed = MultiClass(4, 3, weights="agreed").loss(output, {"label": label, "class_weight": weights})
    assert float(agreed) == pytest.approx(float((plain * weights).mean()))


def test_another_word_for_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="write agreed, one number a class, or null"):
        MultiClass(4, 3, weights="balanced")  # type: ignore[arg-type]
