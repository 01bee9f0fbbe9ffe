"""Whether a model's parameters can be trained and can travel."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flip.messages.weights import fit_to_travel

if TYPE_CHECKING:
    import torch


def parameter_problems(module: "torch.nn.Module") -> Iterator[str]:
    """One sentence for each kind of parameter that no round could train or send; before any shape is asked for."""
    from torch.nn.parameter import is_lazy

    name, parameters = type(module).__name__, dict(module.named_parameters())
    if lazy := [each for each, tensor in {**parameters, **dict(module.named_buffers())}.items() if is_lazy(tensor)]:
        yield (
            f"model: {lazy[0]} of {name} has no shape before the first batch (a lazy module), so that the sites could "
            "not begin with the same weights; declare its sizes"
        )
        return
    yield from (f"model: {reason}" for reason in fit_to_travel(module))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        found = (
            f"all {len(parameters)} parameters are frozen (requires_grad is False)" if parameters else "no parameter"
        )
        yield f"model: {name} has nothing to train: {found}"
    for place, layer in module.named_modules():
        if getattr(layer, "sparse", False) is True:
            yield f"model: {place or name} makes sparse gradients, which few optimizers take; leave sparse at false"
