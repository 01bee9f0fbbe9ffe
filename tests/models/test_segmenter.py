"""Segmentation of anything: networks, losses, labels that sites lack, whole scans in slabs, scores by hand."""

import functools
import math

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, TverskyLoss
from monai.networks.nets import AttentionUnet, DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNet

from models import whole_scan
from models.metrics.segmentation import overlaps, surfaces
from models.partial_labels import marginal
from models.segmenter import Segmenter
from models.whole_scan import classes_on_own_grid
from tests.models.suite import ModuleSuite

SOFT = {"include_background": False, "to_onehot_y": True, "softmax": True}
DEEP = ([3, 3, 3], [1, 2, 2], [2, 2])
NETWORKS = {
    "UNet": lambda dims: UNet(dims, 1, 3, (4, 8), (2,)),
    "DynUNet": lambda dims: DynUNet(dims, 1, 3, *DEEP, filters=[4, 8, 8], deep_supervision=True),
    "SegResNet": lambda dims: SegResNet(dims, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,)),
    "SegResNetDS": lambda dims: SegResNetDS(dims, 8, 1, 3, blocks_down=(1, 1, 1), dsdepth=2),
    "SwinUNETR": lambda dims: SwinUNETR(1, 3, feature_size=12, spatial_dims=dims, depths=(1,) * 4),
    "AttentionUnet": lambda dims: AttentionUnet(dims, 1, 3, (4, 8), (2,)),
}


def segmenter(network: torch.nn.Module, dims: int = 3, **changed: object) -> Segmenter:
    given = {"roi": [16] * dims, "overlap": 0.5, "tolerance_mm": 1.0, "loss": {"both": DiceCELoss(**SOFT)}, **changed}
    return Segmenter(network, ["liver", "spleen"], optimizer=functools.partial(torch.optim.AdamW, lr=1e-2), **given)


def batch_of(dims: int, size: int = 16) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shape = [size] * dims
    return {
        "image": torch.randn(2, 1, *shape, generator=draw),
        "label": torch.randint(0, 3, (2, *shape), generator=draw),
        "labeled": torch.tensor([[True, True], [True, False]]),
        "spacing_mm": torch.ones(2, dims), "mapping": torch.tensor([1.0, 0.0]).expand(2, dims, 2),
    }  # fmt: skip


class TestSegmenter(ModuleSuite):
    @pytest.fixture
    def module(self):
        torch.manual_seed(0)
        return segmenter(NETWORKS["UNet"](3))

    @pytest.fixture
    def train_batch(self):
        return batch_of(3)

    @pytest.fixture
    def test_batch(self):
        return batch_of(3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_trains_and_segments(name, dims):
    size = 16
    if name == "SwinUNETR":
        pytest.importorskip("einops")
        size = 32
    module, batch = segmenter(NETWORKS[name](dims), dims, roi=[size] * dims), batch_of(dims, size)
    module.train().training_step(batch, 0).backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    found = module.eval().segment(batch["image"][:1], batch["mapping"][0], batch["label"].shape[1:])
    assert found.shape == batch["label"].shape[1:] and 0 <= found.min() <= found.max() <= 2


def test_outputs_of_several_depths_weigh_half_of_the_one_before():
    fixed = [torch.randn(2, 3, 8, 8, requires_grad=True) for _ in range(3)]
    network = torch.nn.Identity()
    module, batch = segmenter(network, 2), batch_of(2, 8)
    losses = [module._loss(each, batch) for each in fixed]
    expected = (losses[0] + losses[1] / 2 + losses[2] / 4) / 1.75
    for made in (list(fixed), torch.stack(fixed, 1)):
        network.forward = lambda image, made=made: made
        assert module.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [DiceCELoss(**SOFT), DiceFocalLoss(**SOFT), TverskyLoss(**SOFT)])
def test_where_everything_is_labeled_the_loss_is_the_plain_one(loss):
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    ((share, known, number),) = marginal(logits, label, torch.ones(2, 2, dtype=torch.bool))
    assert share == 1 and torch.equal(loss(known, number), loss(logits, label[:, None]))


def test_what_a_site_does_not_label_is_not_pushed_toward_background():
    logits = torch.tensor([0.0, 0.0, math.log(6)]).reshape(1, 3, 1, 1).requires_grad_()  # 1/8, 1/8, 6/8
    label, loss = torch.zeros(1, 1, 1, dtype=torch.long), torch.nn.functional.cross_entropy
    ((_, known, number),) = marginal(logits, label, torch.tensor([[True, False]]))
    merged = loss(known, number[:, 0])
    assert merged.item() == pytest.approx(-math.log(7 / 8))
    (gradient,) = torch.autograd.grad(merged, logits)
    assert gradient.flatten().tolist() == pytest.approx([1 / 8 - 1 / 7, 1 / 8, 6 / 8 - 6 / 7], abs=1e-6)
    (plain,) = torch.autograd.grad(loss(logits, label), logits)
    assert plain[0, 2].item() == pytest.approx(6 / 8)  # what is avoided: away from the structure


def test_dice_is_over_labeled_structures_and_examples_by_their_number():
    logits, label = torch.randn(3, 3, 4, 4), torch.randint(0, 3, (3, 4, 4))
    label[1:][label[1:] == 1] = 0
    parts = list(marginal(logits, label, torch.tensor([[True, True], [False, True], [False, True]])))
    assert sorted(share for share, *_ in parts) == pytest.approx([1 / 3, 2 / 3])
    merged = next(known for share, known, _ in parts if share > 0.5)
    own = logits[1:].softmax(1)
    torch.testing.assert_close(merged.softmax(1), torch.stack([own[:, 0] + own[:, 1], own[:, 2]], 1))


def test_examples_without_a_labeled_structure_move_nothing():
    module, batch = segmenter(NETWORKS["UNet"](2), 2), batch_of(2)
    loss = module.training_step({**batch, "labeled": torch.zeros(2, 2, dtype=torch.bool)}, 0)
    loss.backward()
    assert loss == 0 and not any(each.grad.any() for each in module.parameters())


def test_a_loss_that_does_not_take_logits_is_refused():
    for wrong in (DiceLoss(to_onehot_y=True), DiceLoss(softmax=True), DiceLoss(**SOFT, reduction="none")):
        with pytest.raises(ValueError, match=r"model\.loss\.dice"):
            segmenter(torch.nn.Identity(), loss={"dice": wrong})


def test_dice_of_a_whole_batch_is_said_to_compare_examples():
    assert not segmenter(torch.nn.Identity()).compares_examples
    assert segmenter(torch.nn.Identity(), loss={"dice": DiceLoss(**SOFT, batch=True)}).compares_examples


def test_the_loss_is_computed_in_single_precision():
    module = segmenter(NETWORKS["UNet"](2), 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.network(batch_of(2)["image"]).dtype == torch.bfloat16
        assert module.training_step(batch_of(2), 0).dtype == torch.float32 == module(batch_of(2)["image"]).dtype


@pytest.mark.parametrize("part", [1, 2**28])
@pytest.mark.parametrize("size", [(11, 9, 10), (5, 12, 8)])
def test_slabs_give_what_the_whole_scan_at_once_gives(size, part, monkeypatch):
    monkeypatch.setattr(whole_scan, "PART_BYTES", part)
    torch.manual_seed(0)
    image, roi = torch.randn(1, 1, *size), (6, 4, 4)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    ramps = [compute_importance_map((side,), mode="gaussian") for side in roi]
    weights = ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]
    with torch.no_grad():
        whole = sliding_window_inference(
            image, roi, 1, lambda x: network(x).softmax(1), 0.5, roi_weight_map=weights, cval=float(image.min())
        )
        scale, shape = torch.tensor([[0.5, -0.25], [0.4, 0.1], [1.0, 0.0]]), (2 * size[0], 2 * size[1], size[2])
        axes = [(s * torch.arange(n) + o) for (s, o), n in zip(scale, shape, strict=True)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) / (torch.tensor(size) - 1) * 2 - 1
        wanted = torch.nn.functional.grid_sample(whole, grid.flip(-1)[None], align_corners=True).argmax(1)[0]
        found = classes_on_own_grid(
            image, lambda x: network(x).softmax(1), roi=roi, overlap=0.5, mapping=scale, shape=shape
        )
    assert (found == wanted).float().mean() > 0.999  # but ties of rounding


def test_scores_are_those_worked_out_by_hand():
    label, found = (torch.zeros(12, 12, 12, dtype=torch.int16) for _ in range(2))
    label[2:6, 2:6, 2:6] = found[4:8, 2:6, 2:6] = 1  # two voxels aside
    found[9:11, 0:2, 0:2] = 2
    dice = overlaps(found, label, 3)
    assert dice[:2].tolist() == [0.5, 0.0] and dice[2].isnan()
    hd95, surface, error = surfaces(found, label, 3, spacing_mm=[2.5, 10.0, 10.0], tolerance_mm=5.0)
    assert hd95[0] == 5.0 and surface[0] == 1.0
    assert hd95[1:].isnan().all() and surface[1] == 0 and surface[2].isnan()
    assert error.tolist() == pytest.approx([0.0, 8 * 0.25, 0.0])  # mL


def test_what_a_site_does_not_label_is_not_scored_and_the_case_counts_with_the_rest():
    module, batch = segmenter(NETWORKS["UNet"](3), subgroups={"sex": ["f", "m"]}), batch_of(3)
    module.eval().test_step({**batch, "subgroup_sex": torch.tensor([1, 1])}, 0)
    counts = {name: int(metric.count) for name, metric in module.metrics.items()}
    assert counts["dice_liver"] == counts["dice"] == counts["volume_error_liver"] == 2
    assert counts["dice_spleen"] == counts["surface_dice_spleen"] == counts["volume_error_spleen"] == 1
    by_level = {name: int(metric.count) for name, metric in module.subgroup_metrics.items()}
    assert by_level["sex/m/dice_spleen"] == 1 and by_level["sex/m/examples"] == 2 and not by_level["sex/f/examples"]


def test_a_network_of_other_classes_is_named():
    with pytest.raises(ValueError, match="gives 5 classes, not 3"):
        segmenter(torch.nn.Conv3d(1, 5, 1))(torch.zeros(1, 1, 4, 4, 4))
