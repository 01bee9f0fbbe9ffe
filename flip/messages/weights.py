"""Weights as arrays: a module's state dict to and from named NumPy arrays, their digest, and safetensors files."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flip.messages.safetensors import FORMATS

if TYPE_CHECKING:
    import torch

LAST_WEIGHTS = Path("weights") / "last.safetensors"  # in a run's folder: the final shared weights
TYPES = frozenset(np.dtype(form).name for form in FORMATS)
"""What can travel, and be averaged where it is of floating point. A complex array is kept as two real ones."""
BLOCK = 1 << 20  # numbers that are looked at together: what is computed beside a large array stays small
WRAPPERS = ("_module.", "_orig_mod.")  # what Opacus and torch.compile put before a parameter's name


def plain_name(name: str) -> str:
    """Strip the prefixes that wrappers (Opacus, torch.compile) add to a parameter's name."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def to_arrays(module: "torch.nn.Module", keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Copy a module's state (or the named keys of it) into arrays, sorted by name; bfloat16 becomes float32."""
    import torch

    state = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    wanted = sorted(state) if keys is None else sorted(keys)
    arrays = {}
    for name in wanted:
        tensor = state[name].detach()
        tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
        arrays[name] = tensor.cpu().numpy().copy()
    return arrays


def fit_to_travel(module: "torch.nn.Module") -> list[str]:
    """One sentence for each array of a module's state that cannot be sent and averaged; the types are `FORMATS`."""
    import torch

    found = []
    for name, tensor in module.state_dict().items():
        dtype = torch.float32 if tensor.dtype is torch.bfloat16 else tensor.dtype
        kind = str(dtype).removeprefix("torch.")
        kind = kind if tensor.layout is torch.strided else f"sparse {kind}"
        kind = kind if tensor.device.type != "meta" else f"{kind} without values (device meta)"
        if kind not in TYPES:
            found.append(
                f"{plain_name(name)} is {kind}, which cannot travel; valid: {', '.join(sorted(TYPES))}, bfloat16"
            )
    return found


def release(module: "torch.nn.Module") -> None:
    """Give back the memory of a module's parameters, which are empty from then on; buffers and metrics stay."""
    for parameter in module.parameters():
        parameter.data = parameter.data.new_empty(0)


def load_arrays(module: "torch.nn.Module", arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into a module in place. Raises KeyError for an unknown name, ValueError for another shape."""
    import torch

    state = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        for name, array in arrays.items():
            if name not in state:
                raise KeyError(f"the model has no parameter '{name}'")
            if tuple(state[name].shape) != array.shape:
                raise ValueError(f"'{name}' has shape {array.shape}, the model wants {tuple(state[name].shape)}")
            state[name].copy_(torch.from_numpy(np.array(array)))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Sha256 over names, types, shapes and bytes, in the order of the names."""
    seal = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        seal.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        seal.update(array.data)
    return seal.hexdigest()


def change(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> float:
    """Root mean square of the change of all floating-point numbers, in blocks for the memory; what `old` lacks is 0."""
    total, numbers = 0.0, 0
    for name, array in new.items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        after, before = array.reshape(-1), old[name].reshape(-1) if name in old else None
        numbers += after.size
        for start in range(0, after.size, BLOCK):
            block = slice(start, start + BLOCK)
            moved = after[block].astype(np.float64) - (before[block] if before is not None else 0.0)
            total += float(np.dot(moved, moved))
    return math.sqrt(total / max(numbers, 1))
