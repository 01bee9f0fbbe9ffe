"""What the site's halves of strategies share: the coordinator's arrays as tensors beside the parameters that they
correct."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

RUNNING = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
)  # what a normalization layer measures, and no optimizer moves


def optimized(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that an optimizer may move: floating point, and not a running statistic of a normalization
    layer."""
    return [
        name
        for name, array in arrays.items()
        if np.issubdtype(array.dtype, np.floating) and name.rpartition(".")[2] not in RUNNING
    ]


def beside(
    parameters: "Mapping[str, torch.nn.Parameter]", arrays: Mapping[str, np.ndarray]
) -> "list[tuple[torch.nn.Parameter, torch.Tensor]]":
    """Pair each parameter that has an array with that array, as a tensor of the parameter's type and device."""
    import torch

    return [
        (parameter, torch.from_numpy(np.array(arrays[name])).to(parameter))
        for name, parameter in parameters.items()
        if name in arrays
    ]
