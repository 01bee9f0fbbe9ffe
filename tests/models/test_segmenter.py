"""Segmentation of anything: networks, losses, labels that sites lack, whole scans in slabs, scores by hand."""

import functools
import math

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, TverskyLoss
from monai.networks.nets import AttentionUnet, DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNet

from flip.metrics import units_of
from models import whole_scan
from models.metrics.segmentation import CaseTotal, cut, lesions, overlaps, surfaces
from models.partial_labels import marginal
from models.segmenter import Segmenter
from models.whole_scan import classes_on_own_grid
from tests.models.suite import ModuleSuite

SOFT = {"include_background": False, "to_onehot_y": True, "softmax": True}
SLOW = (pytest.mark.slow,)
DEEP = ([3, 3, 3], [1, 2, 2], [2, 2])
NETWORKS = {
    "UNet": lambda dims: UNet(dims, 1, 3, (4, 8), (2,)),
    "DynUNet": lambda dims: DynUNet(dims, 1, 3, *DEEP, filters=[4, 8, 8], deep_supervision=True),
    "SegResNet": lambda dims: SegResNet(dims, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,)),
    "SegResNetDS": lambda dims: SegResNetDS(dims, 8, 1, 3, blocks_down=(1, 1, 1), dsdepth=2),
    "SwinUNETR": lambda dims: SwinUNETR(
        1, 3, feature_size=12, spatial_dims=dims, depths=(1,) * 4, norm_name=("group", {"num_groups": 4})
    ),
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


KINDS = [
    pytest.param(name, dims, marks=SLOW * ((name, dims) == ("SwinUNETR", 3))) for name in NETWORKS for dims in (2, 3)
]


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_any_network_trains_and_segments(name, dims):
    size = 32 if name == "SwinUNETR" else 16
    module, batch = segmenter(NETWORKS[name](dims), dims, roi=[size] * dims), batch_of(dims, size)
    module.train().training_step(batch, 0).backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    found = module.eval().segment(batch["image"][:1], batch["mapping"][0], batch["label"].shape[1:], [1.0] * dims)
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
    cuts = cut(found, label, 3)
    dice = overlaps(cuts, 3)
    assert dice[:2].tolist() == [0.5, 0.0] and dice[2].isnan()
    hd95, surface, error = surfaces(cuts, 3, spacing_mm=[2.5, 10.0, 10.0], tolerance_mm=5.0)
    assert hd95[0] == 5.0 and surface[0] == 1.0
    assert hd95[1:].isnan().all() and surface[1] == 0 and surface[2].isnan()
    assert error.tolist() == pytest.approx([0.0, 8 * 0.25, 0.0])  # mL


@pytest.mark.parametrize(("dims", "name", "unit"), [(3, "volume_error_liver", "mL"), (2, "area_error_liver", "cm2")])
def test_errors_of_volume_and_of_area_have_their_units(dims, name, unit):
    units = units_of(segmenter(NETWORKS["UNet"](dims), dims))
    assert units == {name: unit, name.replace("liver", "spleen"): unit, "hd95_liver": "mm", "hd95_spleen": "mm"}


def test_lesions_are_counted_by_their_parts_and_a_touch_of_a_tenth():
    label, found = (torch.zeros(30, 12, dtype=torch.int16) for _ in range(2))
    label[0:5, 0:4] = found[0:5, 3:4] = 1  # 5 of 20 voxels: found
    label[8:13, 0:4] = found[8, 3] = 1  # 1 of 20: missed, though the prediction lies in it and is not false
    label[13, 4] = 1  # over a corner the same lesion
    found[20:25, 0:4] = label[20, 0] = 1  # a small lesion found by a large part, of which less than a tenth is labeled
    found[28, 0] = found[28, 2] = 1  # two false ones
    label[28, 6] = found[28, 6] = 2
    told = lesions(cut(found, label, 3), 3, [0])
    assert [each.tolist() for each in told] == [[2, 0, 0], [1, 0, 0], [3, 0, 0]]
    assert [int(each[1]) for each in lesions(cut(found, label, 3), 3, [0, 1])] == [1, 0, 0]


def test_lesions_are_sums_over_the_cases_whose_site_labels_them():
    module, batch = segmenter(NETWORKS["UNet"](3), lesions=["spleen"]), batch_of(3)
    batch["label"][:] = 0
    batch["label"][:, 2:4, 2:4, 2:4] = batch["label"][:, 8:10, 8:10, 8:10] = 2
    module.segment = lambda image, mapping, shape, spacing: torch.zeros(shape, dtype=torch.int16)
    module.eval().test_step(batch, 0)
    assert {name for name in module.metrics if "lesions" in name} == {
        "lesions_found_spleen", "lesions_missed_spleen", "lesions_false_spleen",
    }  # fmt: skip
    missed = module.metrics["lesions_missed_spleen"]
    assert missed.compute() == 2 and int(missed.count) == 1
    assert module.metrics["lesions_found_spleen"].compute() == 0
    total = CaseTotal()
    total.update(torch.tensor([1.0, 3.0, torch.nan]))
    assert total.compute() == 4 and total.interval() == pytest.approx((0.08, 7.92), abs=0.01)
    with pytest.raises(ValueError, match=r"model\.lesions: tumor is none of"):
        segmenter(NETWORKS["UNet"](3), lesions=["tumor"])


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


def found_of(made: torch.Tensor) -> torch.nn.Module:
    """A network whose output is this, whatever it sees."""
    network = torch.nn.Identity()
    network.forward = lambda windows: made
    return network


def falsely(shape: tuple[int, ...] = (16, 16, 16)) -> torch.Tensor:
    """Logits of a liver of 64 voxels, of one of two that touch it over a corner, and of a single one far away; and of
    a spleen of one voxel."""
    classes = torch.zeros(shape, dtype=torch.long)
    classes[2:6, 2:6, 2:6] = classes[6, 6, 6] = classes[12, 12, 12] = 1
    classes[10, 2, 2] = 2
    return torch.nn.functional.one_hot(classes, 3).movedim(-1, 0)[None].float()


@pytest.mark.parametrize(
    ("least", "kept"),
    [
        ({}, [66, 1]),
        ({"liver": 0.1}, [65, 1]),
        ({"liver": 1.3}, [65, 1]),
        ({"liver": 1.31, "spleen": 0.02}, [0, 1]),
        ({"spleen": 0.03}, [66, 0]),
    ],
)
def test_parts_smaller_than_declared_are_background_on_the_scans_own_grid(least, kept):
    module = segmenter(found_of(falsely()), least_part=least).eval()
    batch = batch_of(3)
    batch = {"image": batch["image"][:1], "mapping": batch["mapping"][:1], "shape": torch.tensor([[16] * 3])}
    found = module.predict_step({**batch, "spacing_mm": torch.tensor([[1.0, 2.0, 10.0]])}, 0)  # a voxel has .02 mL
    assert [int((found == number).sum()) for number in (1, 2)] == kept


def test_a_voxel_found_far_from_a_structure_that_is_out_of_view_does_not_count_against_it():
    batch = {name: values[:1] for name, values in batch_of(3).items()} | {"label": torch.zeros(1, 16, 16, 16)}
    batch["label"][0, 2:6, 2:6, 2:6] = batch["label"][0, 6, 6, 6] = 1
    scores = {}
    for least in ({}, {"liver": 0.01, "spleen": 0.01}):
        module = segmenter(found_of(falsely()), least_part=least).eval()
        module.validation_step(batch, 0)
        scores[len(least)] = module.metrics["dice"].compute().item()
    assert scores[0] == pytest.approx((130 / 131) / 2) and scores[2] == 1.0


@pytest.mark.parametrize(
    ("least", "why"),
    [
        ({"tumor": 1.0}, "tumor is none of"),
        ({"liver": -1.0}, "liver=-1.0: takes mL"),
        ({"liver": math.nan}, "takes mL"),
    ],
)
def test_a_least_part_that_is_none_is_refused_by_name(least, why):
    with pytest.raises(ValueError, match=rf"model\.least_part.*{why}"):
        segmenter(torch.nn.Identity(), least_part=least)
