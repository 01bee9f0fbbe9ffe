"""A site's `checkpointing`: less memory in training, and the same numbers to the bit."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet, UNet, ViT
from torch import nn
from torch.utils.checkpoint import checkpoint

from flip.cli.execute import execute
from flip.config.schema import Site
from flip.messages import Fault
from flip.site.recompute import as_kept, parts, recompute
from flip.site.refusal import Refusal
from tests.cohorts.heart import write_tiny_heart
from tests.site.chosen_weights import WIDE
from tests.studies import tiny_heart_study

NETWORKS = {
    "UNet": lambda: UNet(2, 1, 3, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="instance", dropout=0.2),
    "DynUNet": lambda: DynUNet(2, 1, 3, kernel_size=[3] * 3, strides=[1, 2, 2], upsample_kernel_size=[2, 2]),
    "SegResNet": lambda: SegResNet(2, 4, 1, 3, norm=("GROUP", {"num_groups": 2}), dropout_prob=0.2),
    "ViT": lambda: ViT(1, 32, 16, 24, 32, num_layers=2, num_heads=4, spatial_dims=2, dropout_rate=0.1),
}
SITE = {"root": "", "policy": {}}


def gradients(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor | None]:
    torch.manual_seed(3)
    out = network(image)
    loss = (out[0] if isinstance(out, tuple) else out).square().mean()
    loss.backward()
    return [loss.detach(), torch.rand(1), *(each.grad for each in network.parameters())]


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_gradients_and_what_is_drawn_next_are_equal_to_the_bit(name: str) -> None:
    torch.manual_seed(0)
    network, image = NETWORKS[name](), torch.randn(2, 1, 32, 32)
    other = copy.deepcopy(network)
    assert recompute(other) > 2
    assert list(other.state_dict()) == list(network.state_dict())
    for own, again in zip(gradients(network, image), gradients(copy.deepcopy(other), image), strict=True):
        assert (own is None and again is None) or torch.equal(own, again)


def kept(network: nn.Module, image: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(image)
    del out
    return sum(sizes.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    network, image = NETWORKS["SegResNet"](), torch.randn(4, 1, 64, 64)
    plain = kept(network, image)
    recompute(network)
    assert kept(network, image) < 0.5 * plain


def test_a_part_with_buffers_is_kept_and_its_statistics_see_a_batch_once() -> None:
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3))

    network = nn.Sequential(block(), nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)))
    assert [*parts(network)] == [network[1]]
    recompute(network)
    network(torch.randn(1, 1, 16, 16)).mean().backward()
    assert network[0][1].num_batches_tracked == 1


def test_nothing_is_computed_again_in_evaluation() -> None:
    calls: list[int] = []
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    network[0][0].register_forward_hook(lambda *_: calls.append(1))
    recompute(network)
    network.eval()(torch.randn(1, 2)).mean().backward()
    assert len(calls) == 1
    network.train()(torch.randn(1, 2)).mean().backward()
    assert len(calls) == 3


def test_a_site_that_does_not_ask_has_the_module_as_it_is() -> None:
    network = NETWORKS["UNet"]()
    as_kept(network, Site(**SITE), [])
    assert not [each for each in network.modules() if "forward" in vars(each)]


def test_a_mechanism_and_checkpointing_are_refused_together() -> None:
    with pytest.raises(Refusal, match="checkpointing: true") as refused:
        as_kept(NETWORKS["UNet"](), Site(**SITE, checkpointing=True), [object()])
    assert refused.value.fault is Fault.REFUSED_RULE


def test_a_study_has_the_same_weights_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = write_tiny_heart(tmp_path / "data"), []
    monkeypatch.setattr(
        "flip.site.recompute.checkpoint", lambda *given, **named: calls.append(1) or checkpoint(*given, **named)
    )
    words = [*WIDE, "federation=inprocess", "baselines.alone=true", "strategy.rounds=2"]
    plain = execute(tiny_heart_study(data, *words), tmp_path / "plain")
    assert (plain["status"], calls) == ("ok", [])
    again = execute(tiny_heart_study(data, *words, "sites.va.checkpointing=true"), tmp_path / "again")
    assert (again["digest"], again["metrics"]) == (plain["digest"], plain["metrics"])
    assert len(calls) > 2 * 5  # the steps of two rounds, and those of the site alone


class DrawsElsewhere(torch.nn.Sequential):
    """A part that draws from the generators of Python and NumPy, as a stochastic depth of a study's own may."""

    def forward(self, x):
        return super().forward(x * random.random() + float(np.random.rand()))


def test_what_a_part_draws_of_other_generators_is_drawn_again_and_goes_on_after_it():
    def fit(*, checkpointing: bool) -> list[object]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        part = DrawsElsewhere(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        module = torch.nn.Sequential(part)
        assert not checkpointing or recompute(module) == 1
        (module(torch.ones(2, 3)) ** 2).sum().backward()
        return [*(each.grad.tolist() for each in module.parameters()), random.random(), float(np.random.rand())]

    assert fit(checkpointing=True) == fit(checkpointing=False)
