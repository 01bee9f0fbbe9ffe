"""Weights from a file or folder that a user names, as arrays: read as tensors alone, never as code."""

from pathlib import Path
from typing import TYPE_CHECKING

from flip.errors import UserError
from flip.messages import Payload
from flip.messages.model_file import BUNDLE, load_model
from flip.messages.weights import LAST_WEIGHTS, TYPES, plain_name

if TYPE_CHECKING:
    import torch

BUNDLE_WEIGHTS = Path("models") / "model.pt"
SAFE_WEIGHTS = BUNDLE_WEIGHTS.with_suffix(".safetensors")  # taken where a bundle has both
CHECKPOINTS = (".ckpt", ".pt", ".pth")
INSIDE = ("state_dict", "model_state_dict", "model")  # under which a checkpoint keeps its weights, in this order
KINDS = (
    "name the folder of a finished run or of a MONAI Bundle, a .safetensors file, or a checkpoint (.ckpt, .pt, .pth) "
    "of tensors alone, as torch.save(model.state_dict(), path) writes one"
)


def read_weights(path: Path) -> Payload:
    """The weights of a run's folder, a MONAI Bundle's, a safetensors file or a checkpoint, by their own names.

    Raises UserError, with the remedy, for anything else; a pickle that holds more than tensors and plain values is not
    opened.
    """
    if path.is_dir() and (path / LAST_WEIGHTS).is_file():
        return load_model(path).weights
    file = path
    if path.is_dir() and (path / BUNDLE).is_file():
        file = path / (SAFE_WEIGHTS if (path / SAFE_WEIGHTS).is_file() else BUNDLE_WEIGHTS)
    if not file.is_file():
        what = (
            f"is a bundle without {BUNDLE_WEIGHTS}"
            if file != path
            else "holds no weights"
            if path.is_dir()
            else "is no file"
        )
        raise UserError(f"{path} {what}; {KINDS}")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if file.suffix in CHECKPOINTS:
        return _checkpoint(file)
    raise UserError(f"{path} is of no kind that weights are read from; {KINDS}")


def _safetensors(file: Path) -> Payload:
    """A model's file of ours, or anybody's safetensors."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(file, "pt") as opened:
            ours = "manifest" in (opened.metadata() or {}).get("head", "")
        return load_model(file).weights if ours else _arrays(file, load_file(file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: is no safetensors file, or is cut off; {KINDS}") from error


def _checkpoint(file: Path) -> Payload:
    """The tensors of a checkpoint of PyTorch's or Lightning's."""
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch's reader, which names what it does not open in many ways
        raise UserError(
            f"{file}: holds more than tensors and plain values, or is damaged, so it is not opened; {KINDS}"
        ) from error
    state = next(
        (found[name] for name in INSIDE if isinstance(found, dict) and isinstance(found.get(name), dict)), found
    )
    return _arrays(file, state)


def _arrays(file: Path, state: "dict[str, torch.Tensor] | object") -> Payload:
    """Tensors as arrays; bfloat16 becomes float32, and other values than tensors are left out."""
    import torch

    named = state.items() if isinstance(state, dict) else ()
    tensors = {plain_name(str(name)): each for name, each in named if isinstance(each, torch.Tensor)}
    plain = {name: each.float() if each.dtype is torch.bfloat16 else each for name, each in tensors.items()}
    arrays = {name: each.detach().contiguous().numpy() for name, each in plain.items()}
    if not arrays or not all(array.dtype.name in TYPES for array in arrays.values()):
        raise UserError(f"{file}: holds no tensors by name that are numbers; {KINDS}")
    return dict(sorted(arrays.items()))
