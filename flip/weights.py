"""Weights as arrays: a module's state dict to and from named NumPy arrays, their digest, and safetensors files."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

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


def stable_seed(*parts: str | int) -> int:
    """Hash any parts into a seed of 63 bits, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def pack(arrays: Mapping[str, np.ndarray], head: Mapping[str, Any]) -> bytes:
    """Arrays and a JSON-able head as one safetensors blob: the only form in which data crosses a process boundary."""
    from safetensors.numpy import save

    whole = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    return save(whole, metadata={"head": json.dumps(head)})


def unpack(blob: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The inverse of `pack`. Raises ValueError for anything that is not such a blob."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(blob[:8], "little")
        head = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["head"])
        return load(blob), head
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("not a packed message") from error


def write_atomic(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_file(path: Path, arrays: Mapping[str, np.ndarray], head: Mapping[str, Any] | None = None) -> None:
    """Write arrays as a safetensors file, atomically."""
    write_atomic(path, pack(arrays, head or {}))


def read_head(path: Path) -> dict[str, Any]:
    """The head of what `save_file` wrote, without its arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        head: dict[str, Any] = json.loads(file.metadata()["head"])
    return head


def load_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_file` wrote."""
    return unpack(path.read_bytes())
