"""Segmentation of CT: the contract of a module, Dice over cases, the way back to the scanner's grid, and real CT."""

import functools
import math

import pytest
import torch
from monai.networks.nets import UNet

from datamodules.ct.examples import Slices
from datamodules.ct.grid import Grid
from datamodules.ct.planes import Plane, planes_at_level
from datamodules.nifti import read_nifti_volume
from models.metrics.segmentation import CaseDice, CaseHD95
from models.segmentation import Segmentation, resample
from tests.models.suite import ModuleSuite

TISSUES = {"muscle": [-29, 150], "subcutaneous_fat": [-190, -30], "visceral_fat": [-150, -50]}


def small() -> Segmentation:
    torch.manual_seed(0)
    network = UNet(2, 1, 4, (8, 16, 32), (2, 2), num_res_units=1, act="LEAKYRELU", norm=["GROUP", {"num_groups": 4}])
    return Segmentation(network, TISSUES, functools.partial(torch.optim.AdamW, lr=1e-2))


def identity(batch: int) -> torch.Tensor:
    return torch.tensor([[1.0, 0.0], [1.0, 0.0]]).expand(batch, 2, 2)


class TestSegmentation(ModuleSuite):
    @pytest.fixture
    def module(self):
        return small()

    @pytest.fixture
    def train_batch(self):
        torch.manual_seed(1)
        return {"image": torch.randn(3, 1, 16, 16), "label": torch.randint(0, 4, (3, 16, 16))}

    @pytest.fixture
    def test_batch(self, train_batch):
        return {
            **train_batch, "hu": torch.full((3, 16, 16), 40.0), "mapping": identity(3),
            "pixel_area_cm2": torch.full((3,), 0.01),
        }  # fmt: skip


def test_dice_is_the_mean_over_cases_that_have_the_class():
    metric = CaseDice(1)
    label = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]], [[0, 2, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 2]]])
    metric.update(predicted, label)
    assert metric.count == 2
    assert metric.compute() == pytest.approx((2 / 3 + 1) / 2)
    assert metric.squares == pytest.approx(4 / 9 + 1)


def test_dice_counts_what_is_found_where_nothing_is():
    metric = CaseDice(1)
    metric.update(torch.ones(1, 2, 2, dtype=torch.long), torch.zeros(1, 2, 2, dtype=torch.long))
    assert metric.count == 1 and metric.compute() == 0


def test_the_hausdorff_distance_is_in_millimetres_and_of_cases_with_both():
    label, predicted = (torch.zeros(3, 20, 20, dtype=torch.long) for _ in range(2))
    label[:2, 5:10, 5:10] = 1
    predicted[:2, 5:10, 8:13] = 1  # three pixels beside it
    predicted[2, 0, 0] = 1
    metric = CaseHD95(1)
    metric.update(predicted, label, torch.tensor([1.0, 2.0, 1.0]))
    assert metric.count == 2
    assert metric.compute() == pytest.approx((3 + 6) / 2)


def test_the_prediction_keeps_to_each_tissues_hounsfield_range():
    network = torch.nn.Conv2d(1, 2, 1)
    torch.nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([0.0, 1.0])  # muscle everywhere
    module = Segmentation(network, {"muscle": [-29, 150]}, torch.optim.AdamW)
    hu = torch.tensor([[[-30.0, -29.0], [150.0, 151.0]]])
    found = module.segment({"image": torch.zeros(1, 1, 2, 2), "hu": hu, "mapping": identity(1)})
    assert found.tolist() == [[[0, 1], [1, 0]]]


def test_the_prediction_lies_where_the_scanners_pixels_are():
    plane = Plane(torch.zeros(40, 30).short().numpy(), torch.zeros(40, 30).byte().numpy(), (0.8, 1.1))
    plane.label[5:20, 18:28] = 1
    _, label = plane.resampled(0.25, 160)
    shares = torch.nn.functional.one_hot(torch.from_numpy(label).long(), 2).movedim(-1, 0)[None].float()
    back = resample(shares, torch.from_numpy(plane.mapping(0.25, 160))[None].float(), (40, 30)).argmax(1)[0]
    assert torch.equal(back, torch.from_numpy(plane.label).long())


def test_the_loss_is_a_mean_over_examples_as_clipping_per_sample_needs():
    module = small()
    torch.manual_seed(2)
    image, label = torch.randn(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    together = module.training_step({"image": image, "label": label}, 0)
    alone = [module.training_step({"image": image[k : k + 1], "label": label[k : k + 1]}, 0) for k in (0, 1)]
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone) / 2, rel=1e-4)


def test_learns_muscle_and_fat_from_real_ct(data_dir):
    """Smoke test: one patient, so it says that training works and nothing about how well."""
    folder = data_dir / "ct_patient_a"
    volume = read_nifti_volume(folder / "patientA_sm_ct_3mm.nii.gz")
    files = {"skeletal_muscle": "skeletal_muscle", "subcutaneous_fat": "subcutaneous_fat", "visceral_fat": "torso_fat"}
    masks = {
        name: read_nifti_volume(folder / "patientA_sm_tissue" / f"{file}.nii.gz", "SEG").voxels > 0
        for name, file in files.items()
    }
    # The level does not matter here, since all planes are wanted; one that reaches an end of the scan would be refused.
    masks["vertebra_L3"] = masks["skeletal_muscle"].copy()
    masks["vertebra_L3"][[0, -1]] = False
    planes = planes_at_level(volume.voxels, volume.spacing, masks, count=30, step_mm=volume.spacing[0])
    on_grid = [plane.resampled(4.0, 96) for plane in planes]
    examples = Slices(on_grid, person=[0] * len(on_grid), grid=Grid(), augment=0.0)
    module = small()
    optimizer, losses = module.configure_optimizers(), []
    torch.manual_seed(0)
    for step, batch in enumerate(list(torch.utils.data.DataLoader(examples, 8, shuffle=True)) * 5):
        loss = module.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(planes) >= 25 and math.isfinite(losses[-1])
    assert losses[-1] < 0.75 * losses[0]
