"""nnU-Net's rules: what the published numbers of known data sets say, memory that is really kept, bounds of a batch."""

import itertools

import pytest
import torch
from monai.networks.nets import DynUNet

from datamodules.segmentation.unet_plan import fitted, gigabytes, plan, target_spacing, topology

ISOTROPIC, LARGE = [1.0, 1.0, 1.0], 1000.0


def planned(spacing, shape, memory=8.0, scans=100):
    return plan(spacing, shape, scans, channels=1, classes=3, memory=memory)


def test_an_anisotropic_axis_gets_its_tenth_percentile_and_no_finer_than_the_others():
    assert target_spacing([0.8, 0.8, 5.0], [0.7, 0.7, 2.5], [512, 512, 90]) == [0.8, 0.8, 2.5]
    assert target_spacing([0.8, 0.8, 5.0], [0.7, 0.7, 0.5], [512, 512, 90]) == [0.8, 0.8, 0.8]
    assert target_spacing([0.8, 0.8, 5.0], [0.7, 0.7, 2.5], [512, 512, 200]) == [0.8, 0.8, 5.0]  # as many voxels
    assert target_spacing([0.8, 0.8, 2.0], [0.7, 0.7, 1.0], [512, 512, 90]) == [0.8, 0.8, 2.0]  # not 3 times


def test_axes_are_pooled_until_a_feature_map_would_be_below_four_voxels():
    assert topology(ISOTROPIC, [128, 128, 128]).divisor == [32, 32, 32]
    assert topology(ISOTROPIC, [64, 192, 160]).divisor == [16, 32, 32]
    assert topology([1.0, 1.0], [512, 512]).divisor == [128, 128]


def test_a_coarse_axis_waits_with_flat_kernels_until_the_others_come_near():
    """The published network of the prostate's MR: spacing 3.6 x 0.625 x 0.625 mm, patch 20 x 320 x 256."""
    found = topology([3.6, 0.625, 0.625], [20, 320, 256])
    assert found.strides == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert found.kernels == [[1, 3, 3], [1, 3, 3], *[[3, 3, 3]] * 5]
    assert found.features == [32, 64, 128, 256, 320, 320, 320]


def test_the_patch_follows_the_median_scan_and_shrinks_where_it_is_largest():
    large, small = (planned(ISOTROPIC, [120, 400, 400], memory) for memory in (LARGE, 8.0))
    assert large.patch[0] == 128 and small.patch[0] < 128  # the short axis is covered, and the others are near it
    shares = [side / length for side, length in zip(small.patch, [120, 400, 400], strict=True)]
    assert max(shares) < 2 * min(shares)
    assert small.gigabytes <= 8.0 and small.batch == 2


def test_more_memory_never_gives_less_and_what_is_planned_fits():
    plans = [planned([0.8, 0.8, 2.5], [420, 420, 130], memory) for memory in (2, 4, 8, 16, 32, 64)]
    for less, more in itertools.pairwise(plans):
        assert torch.tensor(less.patch).prod() * less.batch <= torch.tensor(more.patch).prod() * more.batch
    assert all(each.gigabytes <= memory for each, memory in zip(plans, (2, 4, 8, 16, 32, 64), strict=True))


def test_a_batch_holds_two_patches_at_least_and_a_twentieth_of_the_voxels_at_most():
    few, many = (planned(ISOTROPIC, [40, 40, 40], LARGE, scans) for scans in (10, 1000))
    assert few.batch == 2 and many.patch == [40, 40, 40] and many.batch == 50


def test_a_memory_that_nothing_fits_into_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"dataset\.plan\.memory_gigabytes=0\.01: .* takes .*; raise it"):
        planned(ISOTROPIC, [200, 200, 200], 0.01)


@pytest.mark.parametrize(("change", "axis"), [({"channels": 3}, None), ({"classes": 30}, None), ({}, 0), ({}, 2)])
def test_the_estimate_grows_with_everything_it_is_of(change, axis):
    patch, network = fitted(ISOTROPIC, [64, 64, 64])
    larger = [each + 16 * (index == axis) for index, each in enumerate(patch)]
    given = {"channels": 1, "classes": 3}
    assert gigabytes(larger, 2, network, **{**given, **change}) > gigabytes(patch, 2, network, **given)
    assert gigabytes(patch, 3, network, **given) > gigabytes(patch, 2, network, **given)


@pytest.mark.parametrize(("spacing", "size"), [([1.0, 1.0, 1.0], [32, 32, 32]), ([4.0, 1.0, 1.0], [8, 48, 48])])
def test_the_estimate_is_what_a_step_of_this_network_keeps(spacing, size):
    patch, found = fitted(spacing, size)
    network = DynUNet(
        3, 1, 3, found.kernels, found.strides, found.strides[1:], found.features, deep_supervision=True,
        deep_supr_num=found.heads,
    )  # fmt: skip
    kept = dict[tuple[int, int], int]()

    def note(array):
        kept[array.untyped_storage().data_ptr()] = array.untyped_storage().nbytes()
        return array

    with torch.autograd.graph.saved_tensors_hooks(note, lambda array: array):
        network(torch.zeros(2, 1, *patch)).softmax(2).sum()
    weights = sum(each.numel() for each in network.parameters())
    own = {each.untyped_storage().data_ptr() for each in network.parameters()}
    activations = sum(size for where, size in kept.items() if where not in own)
    estimate = gigabytes(patch, 2, found, channels=1, classes=3)
    assert estimate == pytest.approx((activations + 16 * weights) / 1e9, rel=0.15)
