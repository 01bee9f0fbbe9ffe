import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from flip.errors import UserError
from flip.strategies.fedbn import FedBN

CONV = ["0.bias", "0.weight"]


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True)],
    ids=type,
)
def test_every_parameter_and_buffer_of_a_batch_or_instance_norm_stays(layer):
    assert FedBN(rounds=1).shared(nn.Sequential(nn.Conv2d(1, 3, 1), layer)) == CONV


@pytest.mark.parametrize("layer", [nn.GroupNorm(1, 3), nn.LayerNorm(3)], ids=type)
def test_group_and_layer_norm_travel(layer):
    module = nn.Sequential(nn.Conv2d(1, 3, 1), layer, nn.BatchNorm2d(3))
    assert FedBN(rounds=1).shared(module) == [*CONV, "1.bias", "1.weight"]


def test_layers_are_known_by_type_and_not_by_name():
    module = nn.ModuleDict({"norm": nn.Linear(2, 2), "normal": nn.BatchNorm1d(2), "normalized": nn.Linear(2, 2)})
    travels = FedBN(rounds=1).shared(module)
    assert travels == ["norm.bias", "norm.weight", "normalized.bias", "normalized.weight"]


def test_a_network_of_monai_keeps_its_affine_instance_norm():
    net = UNet(2, 1, 2, channels=(4, 8), strides=(2,), norm=("instance", {"affine": True}))
    kept = set(net.state_dict()) - set(FedBN(rounds=1).shared(net))
    modules = dict(net.named_modules())
    assert kept
    assert all(isinstance(modules[name.rpartition(".")[0]], nn.InstanceNorm2d) for name in kept)


def test_wrappers_do_not_change_the_names():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    assert FedBN(rounds=1).shared(torch.compile(module)) == CONV


@pytest.mark.parametrize(
    "module", [nn.Linear(2, 1), nn.Sequential(nn.Conv2d(1, 3, 1), nn.InstanceNorm2d(3))], ids=["linear", "instance"]
)
def test_a_model_with_nothing_to_keep_is_refused(module):
    with pytest.raises(UserError, match="use strategy=fedavg"):
        FedBN(rounds=1).shared(module)
