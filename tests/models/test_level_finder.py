"""The level finder: its distribution over rows and "not in view", what it tells and refuses, and its scores."""

import functools
import math

import numpy as np
import pytest
import torch

from datamodules.levels.projections import Projections
from models.encoders.axis import AxisNetwork
from models.level_finder import LevelFinder, find_level, peak, target
from models.metrics.levels import BIN_MM, BinnedErrorQuantile
from tests.models.suite import ModuleSuite

ROWS, WIDTH, STEP = 20, 16, 3.0


def finder(network: torch.nn.Module | None = None, **changed: object) -> LevelFinder:
    torch.manual_seed(0)
    network = network or AxisNetwork(channels=(4, 4), width=8, gaps=(1, 2), dropout=0.0)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-2)
    return LevelFinder(network, Projections(STEP, 8.0, WIDTH), optimizer=optimizer, **{"least_mm": 30.0, **changed})


def batch() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    inside = torch.ones(3, ROWS, dtype=torch.bool)
    inside[1, 14:] = False
    image = torch.rand(3, 2, ROWS, WIDTH, generator=draw) * inside[:, None, :, None]
    level = torch.tensor([7.3, 2.0, math.nan])
    return {"image": image, "inside": inside, "level": level, "step_mm": torch.full((3,), STEP)}


class Told(torch.nn.Module):
    """A network that says the same shares of every scan."""

    def __init__(self, shares: dict[int, float], absent: float) -> None:
        super().__init__()
        self.shares, self.absent = shares, absent
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image, inside):
        logits = torch.full((len(image), inside.shape[1] + 1), 1e-9)
        for row, share in self.shares.items():
            logits[:, row] = share
        logits[:, -1] = self.absent
        return logits.log() + self.weight


class TestLevelFinder(ModuleSuite):
    @pytest.fixture
    def module(self):
        return finder()

    @pytest.fixture
    def train_batch(self):
        return batch()

    @pytest.fixture
    def test_batch(self):
        return batch()


def test_a_scan_gives_the_same_alone_and_filled_up_to_anothers_length():
    module, given = finder().eval(), batch()
    alone = module(given["image"][1:2, :, :14], given["inside"][1:2, :14])
    filled = module(given["image"], given["inside"])[1:2]
    torch.testing.assert_close(torch.cat([filled[:, :14], filled[:, -1:]], 1), alone)
    assert torch.isinf(filled[:, 14:-1]).all()


def test_the_target_is_a_distribution_about_the_level_or_all_on_not_in_view():
    given = batch()
    wanted = target(given["level"], given["inside"], given["step_mm"], 4.0)
    torch.testing.assert_close(wanted.sum(1), torch.ones(3))
    assert wanted[0].argmax() == 7 and wanted[2, -1] == 1 and not wanted[1, 14:].any()
    deviation = (wanted[0, :-1] * ((torch.arange(ROWS) - 7.3) * STEP) ** 2).sum().sqrt()
    assert deviation.item() == pytest.approx(4.0, abs=0.1)


def test_the_loss_is_nothing_where_the_network_says_the_target():
    given = batch()
    wanted = target(given["level"], given["inside"], given["step_mm"], 4.0)
    assert finder()._losses(wanted.clamp(min=1e-30).log(), given).abs().max() < 1e-4


def test_the_peak_is_where_most_lies_within_ten_millimeters_not_the_highest_row():
    shares = torch.zeros(1, ROWS)
    shares[0, 2], shares[0, [12, 13, 14]] = 0.3, 0.2
    row, sure = peak(shares, torch.tensor([STEP]))
    assert (row.item(), sure.item()) == (pytest.approx(13.0), pytest.approx(0.6))


@pytest.mark.parametrize(
    ("shares", "absent", "told"),
    [({9: 0.8}, 0.2, True), ({9: 0.4, 2: 0.4}, 0.2, False), ({9: 0.2}, 0.8, False), ({9: 0.48}, 0.52, False)],
    ids=["sure", "of two places", "not in view", "not in view by little"],
)
def test_what_is_not_sure_is_refused(shares, absent, told):
    given = batch()
    row, sure, none = finder(Told(shares, absent), confidence=0.45).locate(
        given["image"], given["inside"], given["step_mm"]
    )
    assert row.isnan().tolist() == [not told] * 3
    assert sure[0].item() == pytest.approx(max(shares.values()), abs=1e-3)
    assert none[0].item() == pytest.approx(absent, abs=1e-3)


def test_the_least_confidence_is_declared():
    given = batch()
    module = finder(Told({9: 0.8}, 0.2), confidence=0.9)
    assert module.locate(given["image"], given["inside"], given["step_mm"])[0].isnan().all()


def test_a_scan_lower_than_any_that_was_trained_on_is_refused():
    given = batch()
    row, _, _ = finder(Told({9: 0.8}, 0.2), least_mm=43.0).locate(given["image"], given["inside"], given["step_mm"])
    assert row.isnan().tolist() == [False, True, False]  # 60, 42 and 60 mm


def test_scores_count_refused_scans_as_not_found():
    module, given = finder(Told({9: 1.0}, 0.0)), batch()
    given["level"] = torch.tensor([9.0, 5.0, math.nan])
    module.test_step(given, 0)
    found = {name: metric.compute().item() for name, metric in module.metrics.items()}
    assert found["error_mm"] == pytest.approx(6.0) and found["error_median_binned"] <= BIN_MM
    assert (found["within_10mm"], found["found"], found["absent_told"]) == (0.5, 1.0, 0.0)
    refusing = finder(Told({9: 0.1}, 0.9))
    refusing.test_step(given, 0)
    assert math.isnan(refusing.metrics["error_mm"].compute())
    names = ("within_10mm", "found", "absent_told")
    assert [refusing.metrics[name].compute().item() for name in names] == [0.0, 0.0, 1.0]


def test_a_level_is_told_in_slices_of_the_scan():
    hu = np.full((30, 12, 12), -1000, np.float32)
    hu[:, 3:9, 3:9] = 40
    level = find_level(finder(Told({9: 1.0}, 0.0)), hu, (5.0, 8.0, 8.0))
    assert level.position == pytest.approx((9 * STEP + STEP / 2) / 5 - 0.5, abs=1e-4)  # both grids begin at one place
    assert (level.confidence, level.absent) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-6))
    assert find_level(finder(Told({9: 0.3}, 0.7)), hu, (5.0, 8.0, 8.0)).position is None


@pytest.mark.parametrize("changed", [{"blur_mm": 0}, {"blur_mm": 11}, {"confidence": 1.1}])
def test_a_setting_out_of_range_is_refused(changed):
    with pytest.raises(ValueError, match="model:"):
        finder(**changed)


def test_a_quantile_of_errors_is_that_of_the_rows_within_a_bin():
    errors = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 30
    for share in (0.5, 0.95):
        metric = BinnedErrorQuantile(share)
        metric.update(errors)
        assert 0 <= metric.compute() - errors.quantile(share) <= 2 * BIN_MM
    metric.update(torch.full((500,), 300.0))
    assert math.isinf(metric.compute())


def test_a_merged_quantile_holds_the_cell_and_is_not_too_small():
    errors = torch.rand(60, generator=torch.Generator().manual_seed(0)) ** 3 * 60
    metric = BinnedErrorQuantile(0.5)
    metric.update(errors)
    merged = metric.coarse(7)["counts"]
    assert merged.sum() == 60 and merged[merged > 0].min() >= 7 and not metric.thin(7)
    assert int(merged.nonzero().max()) == int(metric.counts.nonzero().max())
    before, metric.counts = metric.compute(), merged
    assert before <= metric.compute() <= before + 5
    few = BinnedErrorQuantile(0.5)
    few.update(errors[:6])
    assert few.thin(7) and not few.coarse(7)["counts"].any()
