"""Opacus inside a LightningModule: per-example gradients, clipping and private noise for one local fit.

The module stays itself: Opacus' hooks are attached beside it and add nothing to its state dict. Imported by `dp_sgd`
when used.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch.optim.lr_scheduler import ReduceLROnPlateau

from flip.errors import UserError
from flip.privacy.noise import Stream, grid_of
from flip.privacy.poisson import is_empty
from flip.privacy.untrained import untrained
from flip.privacy.whose import Whose

Closure = Callable[[], float]
Configured = torch.optim.Optimizer | Mapping[str, object] | Sequence[object]  # as `configure_optimizers` returns
ATTACHED = "_private_training"
WATCHES = (
    "privacy=dp_sgd: the model's learning rate follows a loss or metric, which has no noise, so that the weights would "
    "tell of it; choose a schedule by steps"
)


@dataclass(frozen=True)
class Protection:
    """How one fit is protected: noise in units of the clipping norm, and the expected number of examples in a batch.

    `whose` tells which examples are one person's; `steps` is the most that the noise was paid for. Where `sums` is
    given, the clipped gradients are added up into it, by the parameter's id, and have no noise here: the weights that
    come of them must not leave.
    """

    noise_multiplier: float
    max_grad_norm: float
    expected_batch: float
    key: bytes
    whose: Whose | None = None
    steps: int | None = None
    sums: dict[int, torch.Tensor] | None = None


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer, with noise from a private stream instead of torch's seeded generator."""

    def __init__(self, optimizer: torch.optim.Optimizer, protection: Protection) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=protection.noise_multiplier,
            max_grad_norm=protection.max_grad_norm,
            expected_batch_size=protection.expected_batch,
        )
        self._noise = Stream(protection.key, "dp_sgd/noise")
        self._whose, self._steps, self._sums = protection.whose, protection.steps, protection.sums

    def pre_step(self, closure: Closure | None = None) -> bool | None:
        """Sum by person, clip and add noise.

        A parameter that no example of the batch reached has per-example gradients of zero. Raises RuntimeError for a
        step beyond those that the noise was paid for.
        """
        if self._steps is not None:
            if self._steps == 0:
                raise RuntimeError("privacy=dp_sgd: a step more than the privacy ledger holds")
            self._steps -= 1
        missing = [parameter for parameter in self.params if parameter.grad_sample is None]
        if missing:
            reached = [parameter for parameter in self.params if parameter.grad_sample is not None]
            examples = len(self._get_flat_grad_sample(reached[0])) if reached else 0
            for parameter in missing:
                parameter.grad_sample = parameter.new_zeros((examples, *parameter.shape))
        if self._whose is not None:
            for parameter in self.params:
                parameter.grad_sample = self._whose.summed(self._get_flat_grad_sample(parameter))
        cleared: bool | None = super().pre_step(closure)
        return cleared

    def clip_and_accumulate(self) -> None:
        """Opacus' own, but for sums that have their noise elsewhere: of float64, which rounds less."""
        if self._sums is None:
            super().clip_and_accumulate()
            return
        samples = [self._get_flat_grad_sample(parameter).double() for parameter in self.params]
        norms = torch.stack([each.reshape(len(each), math.prod(each.shape[1:])).norm(dim=1) for each in samples]).norm(
            dim=0
        )
        factors = self.max_grad_norm / norms.clamp(min=self.max_grad_norm)
        for parameter, sample in zip(self.params, samples, strict=True):
            self._sums[id(parameter)] = torch.einsum("i,i...", factors, sample).detach()
            parameter.summed_grad = torch.zeros_like(parameter)

    def add_noise(self) -> None:
        """Add the noise to the sum of clipped gradients, drawn at once for all parameters, in float64 on one grid."""
        if self._sums is not None:
            for parameter in self.params:
                parameter.grad = torch.zeros_like(parameter)
            return
        summed = [parameter.summed_grad for parameter in self.params]
        sizes = [gradient.numel() for gradient in summed]
        deviation = self.noise_multiplier * self.max_grad_norm
        draws, grid = self._noise.gaussians(sum(sizes)), grid_of(deviation)
        draws *= deviation
        for parameter, gradient, piece in zip(
            self.params, summed, torch.split(torch.from_numpy(draws), sizes), strict=True
        ):
            noised = (piece.reshape(gradient.shape) + gradient.cpu()).div_(grid).round_().mul_(grid)
            parameter.grad = noised.to(gradient).view_as(parameter)

    def step(self, closure: Closure | None = None) -> float | None:
        """One step; the per-example gradients are let go at once, so that none outlives the fit or is used twice."""
        result: float | None = super().step(closure)
        for parameter in self.params:
            parameter.grad_sample = parameter.summed_grad = None
        return result


def unfit_layers(module: torch.nn.Module) -> dict[str, str]:
    """Layers that Opacus cannot make private, type by name: batch norm, running statistics, and what its validator
    names."""
    unfit = {}
    for name, layer in module.named_modules():
        validate = ModuleValidator.VALIDATORS.get(type(layer))
        trainable = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
        mixes = isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        if mixes or (validate is not None and validate(layer)) or (trainable and any(True for _ in layer.buffers())):
            unfit[name] = type(layer).__name__
    return unfit


def protect(module: Any, protection: Protection) -> None:
    """Make the next fit of a LightningModule private, in place of whatever an earlier call attached.

    Raises UserError, when Lightning asks for them, for other optimizers than one (or one with a scheduler), and for a
    scheduler that follows a loss or metric.
    """
    release(module)
    configure, train, unchanged = module.configure_optimizers, module.training_step, untrained(module)

    @wraps(configure)
    def configure_optimizers() -> Configured:
        return protected(configure(), protection)

    @wraps(train)
    def training_step(batch: Mapping[str, object] | Sequence[object], *arguments: object) -> object:
        if protection.whose is not None:
            protection.whose.take(batch)
        # Not every layer takes a batch without examples (instance norm does not); such a step adds noise alone.
        if is_empty(batch):
            return torch.full((), torch.nan, device=module.device, requires_grad=True)
        loss = train(batch, *arguments)
        unchanged()
        return loss

    warnings.filterwarnings(
        "ignore", "Full backward hook is firing"
    )  # of Opacus' hook on the first layer, at every fit
    for layer in module.modules():
        if getattr(
            layer, "inplace", False
        ):  # a backward hook's output cannot be changed in place; the result is the same
            layer.inplace = False
    hooks = GradSampleHooks(module, loss_reduction="mean")
    hooks.forbid_grad_accumulation()
    setattr(module, ATTACHED, (hooks, configure, train))
    module.configure_optimizers, module.training_step = configure_optimizers, training_step


def release(module: Any) -> None:
    """Undo `protect`; does nothing to a module that is not protected."""
    attached = getattr(module, ATTACHED, None)
    if attached is not None:
        hooks, configure, train = attached
        hooks.cleanup()
        for layer in module.modules():  # what a fit that broke off left behind
            for name in ("activations", "max_batch_len"):
                layer.__dict__.pop(name, None)
        module.configure_optimizers, module.training_step = configure, train
        delattr(module, ATTACHED)


def protected(configured: object, protection: Protection) -> Configured:
    """Wrap the optimizer in what `configure_optimizers` returned."""
    if isinstance(configured, torch.optim.Optimizer):
        return PrivateOptimizer(configured, protection)
    if isinstance(configured, Mapping):
        optimizer = PrivateOptimizer(configured["optimizer"], protection)
        wrapped = {**configured, "optimizer": optimizer}
        if "lr_scheduler" in configured:
            # Lightning wants the scheduler on the optimizer that it steps; torch then misses its own mark on that one.
            warnings.filterwarnings("ignore", "Seems like `optimizer.step")
            entry = configured["lr_scheduler"]
            scheduler = entry["scheduler"] if isinstance(entry, Mapping) else entry
            watches = isinstance(entry, Mapping) and entry.get("reduce_on_plateau")
            if watches or isinstance(scheduler, ReduceLROnPlateau):
                raise UserError(WATCHES)
            scheduler.optimizer = optimizer
        return wrapped
    if isinstance(configured, Sequence) and len(configured) == 1:
        return [protected(configured[0], protection)]
    raise UserError(
        "privacy=dp_sgd: the model's configure_optimizers must return one optimizer, alone or in a dict with its "
        "lr_scheduler"
    )
