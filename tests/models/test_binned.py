"""Counts in bins: what leaves a site under a minimum cell, and that merging bins makes no pooled number wrong."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from models.heads.classification import Binary
from models.metrics.binned import BinnedAUPRC, BinnedAUROC
from models.metrics.bins import BINS, edge, on_grid
from models.metrics.calibration import BinnedCalibrationError, BinnedCalibrationSlope
from models.metrics.classes import BinnedClassAUROC, Sensitivity, Specificity
from models.metrics.groups import groups
from models.metrics.survival import WeightedCIndex
from models.metrics.thresholds import decide_at

SCORES = {
    "plain": (lambda z: z, 0.5),
    "skewed": (lambda z: z / 2 - 3, 0.3),
    "confident": (lambda z: 20 * z, 0.3),
    "rare": (lambda z: z - 5, 0.005),
}
Site = tuple[torch.Tensor, torch.Tensor]


def draw(rng: np.random.Generator, rows: int, scores: str = "plain") -> Site:
    """Probabilities and labels of a site; the classes are 1.2 deviations apart."""
    logit, share = SCORES[scores]
    label = (rng.random(rows) < share).astype(int)
    shown = logit(rng.normal(1.2 * label - 0.6, 1)).astype(np.float32)
    return torch.from_numpy(shown).sigmoid(), torch.from_numpy(label)


def of(make, site: Site):
    metric = make()
    metric.update(*site)
    return metric


def pooled(make, sites: list[Site], cell: int):
    """A metric from what the sites send; None where one withholds it."""
    whole = make()
    for site in sites:
        try:
            states = of(make, site).coarse(cell)
        except ValueError:
            return None
        for name, state in states.items():
            setattr(whole, name, getattr(whole, name) + state)
    whole._update_count = 1
    return whole


def exact_area(predicted: np.ndarray, label: np.ndarray) -> float:
    """Mann-Whitney's statistic by pairs, ties half."""
    positives = int(label.sum())
    ranks = rankdata(predicted)[label == 1].sum()
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(label) - positives))


@pytest.mark.slow
@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("cell", [1, 5, 10])
@pytest.mark.parametrize(("sites", "rows"), [(2, 30), (18, 13), (4, 50), (4, 200)])
def test_a_pooled_area_is_that_of_the_rows_or_withheld(sites, rows, cell, scores):
    """Over 150 draws: its mean error at most .02, .005 of unmerged bins and 500 rows; its interval holds it in 90 %."""
    rng, errors, held = np.random.default_rng(rows * cell), [], []
    for _ in range(150):
        drawn = [draw(rng, rows, scores) for _ in range(sites)]
        predicted, label = (torch.cat(each).numpy() for each in zip(*drawn, strict=True))
        found = pooled(BinnedAUROC, drawn, cell)
        if found is None or math.isnan(value := float(found.compute())):
            continue
        exact, (low, high) = exact_area(predicted, label), found.interval()
        errors.append(value - exact)
        held += [] if math.isnan(low) else [low <= exact <= high]
    assert bool(errors) == (cell == 1 or (rows == 200 and scores != "rare"))
    if errors:
        assert abs(np.mean(errors)) <= (0.005 if cell == 1 and sites * rows >= 500 else 0.02)
        assert np.mean(held) >= 0.9


@pytest.mark.parametrize("make", [BinnedAUROC, BinnedAUPRC, BinnedCalibrationSlope])
def test_what_leaves_holds_the_minimum_cell_of_either_class_or_none(make):
    metric = of(make, draw(np.random.default_rng(0), 400))
    sent = metric.coarse(5)["ends"]
    assert not ((sent > 0) & (sent < 5)).any()
    assert sent.sum(-1).tolist() == metric.ends.sum(-1).tolist()  # and nobody is lost


def test_metrics_of_the_same_rows_send_the_same_groups():
    """Two partitions of the same rows would tell smaller counts by their difference."""
    site = draw(np.random.default_rng(0), 400)
    areas, precision, slope = (
        of(make, site).coarse(5)["ends"] for make in (BinnedAUROC, BinnedAUPRC, BinnedCalibrationSlope)
    )
    assert torch.equal(areas, precision)
    held = [[counts[counts > 0].tolist() for counts in each[0, :, 0]] for each in (areas, slope)]
    assert held[0] == held[1]


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.1773])
def test_decisions_and_curves_of_the_same_rows_tell_no_count_of_few_between_a_border_and_the_threshold(threshold):
    rng, cell, told = np.random.default_rng(7), 5, 0
    for _ in range(40):
        curve, error = BinnedAUROC(), BinnedCalibrationError()
        decisions = {1: Sensitivity(), 0: Specificity()}
        at = decide_at([curve, error, *decisions.values()], threshold)
        site = draw(rng, 150)
        for metric in (curve, error, *decisions.values()):
            metric.update(*site)
        counts = {1: (decisions[1].fn, decisions[1].tp), 0: (decisions[0].tn, decisions[0].fp)}
        if any(0 < int(each) < cell for pair in counts.values() for each in pair):
            continue  # which stay at the site
        told += 1
        starts = curve.coarse(cell)["ends"][0, :, 0]
        parted = starts[:, int(starts[:, : edge(at)].any(0).nonzero()[-1])]  # the last group that begins below it
        for label in (0, 1):
            over = int(counts[label][1]) - int(starts[label, edge(at) :].sum())
            assert over == 0 or over >= cell
            assert parted[label] - over == 0 or parted[label] - over >= cell
    assert told >= 15


def test_a_threshold_that_few_rows_reach_withholds_no_curve_since_its_decisions_stay():
    predicted, label = draw(np.random.default_rng(7), 150)
    curve = of(BinnedAUROC, (predicted, label))
    curve.threshold = float(predicted[label == 1].sort().values[-3])
    assert 0 < int((predicted[label == 1] >= on_grid(curve.threshold)).sum()) < 5
    assert not curve.withheld(5)


def test_groups_are_those_with_the_fewest_pairs_inside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 4, (2, 9))

        def lost(cuts, counts=counts) -> float:
            parts = [counts[:, a:b].sum(1) for a, b in itertools.pairwise([0, *cuts, 9])]
            return sum(a * b for a, b in parts) if all(n == 0 or n >= 3 for part in parts for n in part) else math.inf

        best = min(lost(cuts) for size in range(9) for cuts in itertools.combinations(range(1, 9), size))
        if math.isinf(best):
            with pytest.raises(ValueError, match="fewer than 3 rows"):
                groups(counts, 3)
        else:
            assert lost([group.start for group in groups(counts, 3)][1:]) == best


def test_a_sites_own_area_survives_the_merge():
    site = draw(np.random.default_rng(0), 400)
    merged = pooled(BinnedAUROC, [site], 10)
    assert float(merged.compute()) == pytest.approx(float(of(BinnedAUROC, site).compute()), abs=1e-6)


def test_the_interval_holds_every_order_that_merging_could_have_hidden():
    sites = [draw(np.random.default_rng(seed), 200) for seed in range(3)]
    merged, plain = pooled(BinnedAUROC, sites, 10), pooled(BinnedAUROC, sites, 1)
    (low, high), narrow = merged.interval(), plain.interval()
    negatives, positives = merged.ends.flip(0)[:, 0], merged.ends[:, 1]  # all down, all up; and the reverse
    worst, best = (
        exact_area(
            np.repeat(np.tile(np.arange(BINS), 2), torch.cat([n[0], m[0]]).numpy()),
            np.repeat([0, 1], [int(n.sum()), int(m.sum())]),
        )
        for n, m in zip(negatives, positives, strict=True)
    )
    assert low < worst < float(merged.compute()) < best < high
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("cell", [5, 10])
def test_a_class_of_fewer_than_five_cells_is_withheld_and_says_so(cell):
    rng = np.random.default_rng(0)
    shown, label = torch.from_numpy(rng.random(300)), torch.zeros(300, dtype=torch.long)
    label[: 5 * cell - 1] = 1
    for make in (BinnedAUROC, BinnedAUPRC, BinnedCalibrationSlope, BinnedCalibrationError):
        metric = of(make, (shown, label))
        assert metric.withheld(cell) == f"a class has fewer than 5 minimum cells ({5 * cell} examples)"
        assert not metric.thin(cell)
        assert not metric.withheld(1)
        with pytest.raises(ValueError, match="5 minimum cells"):
            metric.coarse(cell)
    label[5 * cell - 1] = 1
    assert not of(BinnedAUROC, (shown, label)).withheld(cell)


def test_a_site_with_fewer_of_a_class_than_the_minimum_cell_is_thin():
    shown, label = torch.linspace(0, 1, 60), (torch.arange(60) < 4).long()
    assert of(BinnedAUROC, (shown, label)).thin(5)
    assert not of(BinnedAUROC, (shown, label)).thin(4)


def test_a_value_that_merging_would_move_is_withheld_and_says_so():
    """Classes far apart: the few groups where both lie together make any slope."""
    rng = np.random.default_rng(0)
    label = torch.arange(120) % 2
    shown = torch.from_numpy(rng.normal(3 * label.numpy() - 1.5, 1)).sigmoid()
    slope = of(BinnedCalibrationSlope, (shown, label))
    assert slope.withheld(10) == "merged bins of 10 examples move the site's own value by more than 0.1"
    assert not of(BinnedAUROC, (shown, label)).withheld(10)


def test_a_pooled_calibration_slope_is_that_of_the_unmerged_counts():
    sites = [draw(np.random.default_rng(seed), 300) for seed in range(4)]
    found, plain = (float(pooled(BinnedCalibrationSlope, sites, cell).compute()) for cell in (5, 1))
    assert found == pytest.approx(plain, rel=0.05)


def test_the_interval_of_a_calibration_slope_holds_what_merging_can_move():
    sites = [draw(np.random.default_rng(seed), 300) for seed in range(4)]
    merged, plain = (pooled(BinnedCalibrationSlope, sites, cell) for cell in (5, 1))
    (value, error), (low, high) = merged._fit(), merged.interval()
    assert high - value == pytest.approx(math.hypot(1.96 * error, 0.1), rel=1e-4)
    assert value - low == pytest.approx(high - value)
    assert plain.interval()[1] - float(plain.compute()) == pytest.approx(1.96 * plain._fit()[1], rel=1e-4)


def test_a_site_of_one_class_sends_its_counts():
    shown, label = draw(np.random.default_rng(0), 100)
    other = draw(np.random.default_rng(1), 100)
    found = pooled(BinnedAUROC, [(shown, label * 0), other], 5)
    whole = exact_area(torch.cat([shown, other[0]]).numpy(), torch.cat([label * 0, other[1]]).numpy())
    assert float(found.compute()) == pytest.approx(whole, abs=0.02)


def test_probabilities_of_zero_and_one_are_ties_and_the_curve_starts_at_the_origin():
    shown = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    label = torch.tensor([0, 0, 1, 0, 1, 1, 1])
    assert float(of(BinnedAUROC, (shown, label)).compute()) == pytest.approx(exact_area(shown.numpy(), label.numpy()))
    assert float(of(BinnedAUPRC, (shown, label)).compute()) == pytest.approx(average_precision_score(label, shown))


@pytest.mark.parametrize("scale", [20, 1, 0.01])
def test_a_confident_model_and_one_that_hardly_knows_yet_are_read_alike(scale):
    rng = np.random.default_rng(0)
    label = (rng.random(500) < 0.3).astype(int)
    shown = torch.from_numpy((scale * rng.normal(4 * label - 2, 1)).astype(np.float32)).sigmoid()
    site = shown, torch.from_numpy(label)
    assert float(of(BinnedAUROC, site).compute()) == pytest.approx(exact_area(shown.numpy(), label), abs=5e-4)
    assert float(of(BinnedAUPRC, site).compute()) == pytest.approx(average_precision_score(label, shown), abs=2e-3)


def test_a_rare_class_of_several_withholds_the_macro_area():
    rng = np.random.default_rng(0)
    shown, label = torch.from_numpy(rng.dirichlet([1, 1, 1], 300)), torch.from_numpy(rng.integers(0, 3, 300))
    assert not of(lambda: BinnedClassAUROC(3), (shown, label)).withheld(5)
    label[label == 2] = 0
    label[:20] = 2
    assert "5 minimum cells" in of(lambda: BinnedClassAUROC(3), (shown, label)).withheld(5)


def test_the_calibration_error_adds_groups_of_the_same_probabilities():
    """A site that is .2 too low and one that is .2 too high do not cancel, though their groups have the same order."""
    rng, sites = np.random.default_rng(0), []
    for low, off in ((0.1, 0.2), (0.6, -0.2)):
        shown = rng.uniform(low, low + 0.3, 400)
        sites.append((torch.from_numpy(shown).float(), torch.from_numpy((rng.random(400) < shown + off).astype(int))))
    assert float(pooled(BinnedCalibrationError, sites, 5).compute()) == pytest.approx(0.2, abs=0.05)


def test_a_threshold_from_merged_counts_costs_little():
    sites = [draw(np.random.default_rng(seed), 200) for seed in range(4)]
    shown, label = (torch.cat(each).numpy() for each in zip(*sites, strict=True))
    chosen = Binary(1, threshold="youden").choose({"auroc_binned": pooled(BinnedAUROC, sites, 5)})

    def index(threshold: float) -> float:
        return float(np.mean(shown[label == 1] >= threshold) - np.mean(shown[label == 0] >= threshold))

    assert index(chosen) > max(map(index, shown)) - 0.04


def test_a_c_index_of_few_events_is_withheld():
    """One event among many rows makes many pairs, and is one person's rank."""
    rng = np.random.default_rng(0)
    risk, time = torch.from_numpy(rng.random((2, 40)))
    metric = WeightedCIndex()
    metric.update(risk, time, (torch.arange(40) < 4).float())
    assert metric.pairs >= 5
    assert metric.thin(5) and metric.withheld(5) == "fewer than 5 examples, or events among them"
    assert not metric.withheld(4)
    rows = WeightedCIndex()
    rows.update(risk[:3], time[:3], torch.zeros(3))
    assert rows.thin(5)
