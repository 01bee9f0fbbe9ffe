"""A network as ONNX: what onnxruntime computes is what torch does, or there is no file and a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from flip.export import onnx as exporting
from flip.export.onnx import write_onnx

needs_onnx = pytest.mark.skipif(
    any(exporting.importlib.util.find_spec(name) is None for name in exporting.PACKAGES),
    reason="onnx and onnxruntime come with the extra `export`",
)


def network() -> nn.Module:
    return UNet(3, 1, 3, channels=[4, 8], strides=[2], norm=("INSTANCE", {"affine": True})).eval()


@needs_onnx
def test_onnxruntime_computes_what_torch_computes(tmp_path: Path) -> None:
    import onnxruntime

    path, model = tmp_path / "model.onnx", network()
    assert write_onnx(model, [1, 4, 8, 8], path) == []
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = torch.randn(3, 1, 4, 8, 8)  # another batch than it was written with
    found = session.run(None, {"image": image.numpy()})[0]
    assert np.abs(found - model(image).detach().numpy()).max() < 1e-4


def test_without_the_packages_a_sentence_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PACKAGES", ("no_such_onnx", "no_such_runtime"))
    (note,) = write_onnx(network(), [1, 4, 8, 8], tmp_path / "model.onnx")
    assert "no_such_onnx and no_such_runtime are not installed; pip install 'flip-engine[export]'" in note
    assert not (tmp_path / "model.onnx").exists()


class Fast(nn.Module):
    """Has no form in ONNX."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.fft.fftn(image).real


@needs_onnx
def test_a_network_that_has_no_form_in_onnx_is_left_out(tmp_path: Path) -> None:
    (note,) = write_onnx(Fast(), [1, 4, 8, 8], tmp_path / "model.onnx")
    assert "torch cannot write this network so" in note
    assert [*tmp_path.iterdir()] == []


class Drawn(nn.Module):
    """Computes something else each time."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * torch.rand(1)


@needs_onnx
def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    (note,) = write_onnx(Drawn(), [1, 4, 8, 8], tmp_path / "model.onnx")
    assert "gives other values than torch" in note
    assert [*tmp_path.iterdir()] == []
