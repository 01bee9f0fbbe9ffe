"""Gradient checkpointing: parts of a network that are computed again in the backward pass, in place of being kept.

Chen T et al., Training Deep Nets with Sublinear Memory Cost, 2016 (arXiv:1604.06174). The numbers are the same to the
bit on a CPU: what is drawn in a part, as by dropout, is drawn again from the same state of PyTorch's generator, and of
those of `random` and `numpy.random`. One that a part holds itself is not known.
"""

import random
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from flip.messages import Fault
from flip.site.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flip.config.schema import Site
    from flip.contracts.model import TrainableModule

Out = TypeVar("Out")


def as_kept(module: "TrainableModule", site: "Site", mechanisms: "Sequence[object]") -> "TrainableModule":
    """The module, of which training keeps what the site's file says. Raises Refusal under a mechanism."""
    if site.checkpointing:
        if mechanisms:
            raise Refusal(Fault.REFUSED_RULE, "checkpointing: true in the site's file, and a privacy mechanism")
        recompute(module)
    return module


def recompute(module: torch.nn.Module) -> int:
    """Have each part of a module be computed again in training; returns how many parts that are.

    A part is the least submodule with parameters in two layers or more, as a residual block or a convolution with its
    norm. One that holds buffers is kept as it is: batch norm would count each batch twice. Names and weights of the
    module stay.
    """
    found = [*parts(module)]
    for part in found:
        part.forward = partial(again, part, part.forward)
    return len(found)


def parts(module: torch.nn.Module) -> "Iterator[torch.nn.Module]":
    """The submodules that can be computed again, none within another."""
    for child in module.children():
        if layers(child) < 2:
            continue
        if any(layers(inner) > 1 for inner in child.children()) or _is_list(child):
            yield from parts(child)
        elif not any(True for _ in child.buffers()):
            yield child


def layers(module: torch.nn.Module) -> int:
    """How many modules, itself among them, hold parameters of their own."""
    return sum(any(True for _ in each.parameters(recurse=False)) for each in module.modules())


def _is_list(module: torch.nn.Module) -> bool:
    """Whether a module is never called itself."""
    return isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict)


def again(part: torch.nn.Module, forward: "Callable[..., Out]", *inputs: object, **named: object) -> Out:
    """What a part gives; in training nothing of it is kept but its inputs."""
    if not (part.training and torch.is_grad_enabled()):
        return forward(*inputs, **named)
    drawn = drawn_alike(partial(forward, **named))
    return cast("Out", checkpoint(drawn, *inputs, use_reentrant=False))


def drawn_alike(forward: "Callable[..., Out]") -> "Callable[..., Out]":
    """What draws the same from `random` and `numpy.random` whenever it is called, and after the first time no more."""
    first = None

    def run(*inputs: object) -> "Out":
        nonlocal first
        now = random.getstate(), np.random.get_state()
        if first is None:
            first = now
            return forward(*inputs)
        try:
            random.setstate(first[0])
            np.random.set_state(first[1])
            return forward(*inputs)
        finally:
            random.setstate(now[0])
            np.random.set_state(now[1])

    return run
