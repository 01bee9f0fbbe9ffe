"""Large encoders that stay frozen, with low-rank adapters that are trained in their place."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Adapted(nn.Module):
    """A frozen encoder in which each chosen layer gains a trained product of two thin matrices.

    LoRA (Hu et al., ICLR 2022): the output of a layer W x becomes W x + (alpha / rank) B A x, where A and B alone are
    trained, and B begins at 0, so that the first output is the encoder's own. With
    `strategy.share: ["*lora_*", "fusion.*", "head.*"]` nothing else travels. The frozen weights are those of the
    study's seed, or of the file that `init` names.

    Args:
        encoder: any encoder, such as `models.encoders.image.Network` over MONAI's ViT.
        rank: columns of the thin matrices, at least 1.
        alpha: scale of what they add, above 0.
        layers: patterns (fnmatch) of the names of the linear and convolutional layers that gain adapters.

    Raises ValueError for a pattern that names no such layer, ModuleNotFoundError where peft is not installed.
    """

    def __init__(
        self, encoder: nn.Module, rank: int = 4, alpha: float = 8.0, layers: Sequence[str] = ("*.qkv",)
    ) -> None:
        super().__init__()
        if rank < 1 or alpha <= 0:
            raise ValueError("model.encoders: rank is a whole number of at least 1, and alpha above 0")
        try:
            peft = importlib.import_module("peft")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "models.encoders.adapters.Adapted needs the package peft, at every site: "
                "pip install -c constraints.txt '.[adapters]'"
            ) from error
        names = [name for name, layer in encoder.named_modules() if isinstance(layer, ADAPTED)]
        if unknown := [pattern for pattern in layers if not any(fnmatch(name, pattern) for name in names)]:
            raise ValueError(f"model.encoders: layers {unknown} name none of the encoder's, which are {names}")
        chosen = [re.escape(name) for name in names if any(fnmatch(name, pattern) for pattern in layers)]
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules="|".join(chosen))
        self.encoder = peft.inject_adapter_in_model(config, encoder)
        self.key, self.width = str(encoder.key), int(encoder.width)  # type: ignore[arg-type]
        self.also: tuple[str, ...] = tuple(getattr(encoder, "also", ()))

    def train(self, mode: bool = True) -> Adapted:
        """What is frozen draws no dropout and keeps the statistics of its normalization layers."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, content: Tensor, *extra: Tensor) -> Tensor:
        """Embedding [n, width], as the encoder's."""
        return torch.as_tensor(self.encoder(content, *extra))
