"""A bundle's network as ONNX, held against the network itself by onnxruntime."""

import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WITHIN = 1e-4  # largest difference of an output, over the largest output
PACKAGES = ("onnx", "onnxruntime")
OPSET = 18
LEFT_OUT = "model.onnx is left out: {}"
INSTALL = "{} not installed; pip install 'flip-engine[export]' and export again"


def write_onnx(network: "torch.nn.Module", patch: Sequence[int], path: Path) -> list[str]:
    """Write a network of patches [B, *patch], B free; returns what is to be said: that it is left out, and why.

    It is left out without the packages, where torch cannot write the network, and where onnxruntime computes something
    else (`WITHIN`).
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        return [LEFT_OUT.format(INSTALL.format(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"))]
    import torch
    from torch.onnx.errors import OnnxExporterError

    example = torch.rand((1, *patch), generator=torch.Generator().manual_seed(0)) * 2 - 1
    free = {"image": {0: "batch"}, "pred": {0: "batch"}}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own, of traced shapes; the outputs are compared below
            torch.onnx.export(
                network, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=["image"],
                output_names=["pred"], dynamic_axes=free,
            )  # fmt: skip
            difference = _difference(network, path, example)
    except (OnnxExporterError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        return [LEFT_OUT.format(f"torch cannot write this network so ({str(error).strip().splitlines()[0]})")]
    if not difference <= WITHIN:
        path.unlink()
        return [LEFT_OUT.format(f"onnxruntime gives other values than torch, by {difference:.1e} of the largest")]
    return []


def _difference(network: "torch.nn.Module", path: Path, example: "torch.Tensor") -> float:
    """Largest difference of onnxruntime's output from torch's, the first of several, over the largest of torch's."""
    import torch

    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = torch.as_tensor(session.run(None, {"image": example.numpy()})[0])
    made = network(example)
    wanted = made if isinstance(made, torch.Tensor) else made[0]
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
