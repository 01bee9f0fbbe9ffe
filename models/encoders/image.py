"""Encoders of images, in two or three dimensions."""

from __future__ import annotations

import importlib
import itertools

import torch
from torch import Tensor, nn

KEY = "image"
GROUP = 4  # channels that group norm takes together; norms over a batch mix patients: they average badly over sites


class Network(nn.Module):
    """Any network [n, c, h, w] or [n, c, h, w, d] -> [n, width], such as MONAI's DenseNet or EfficientNetBN.

    Args:
        network: the network. Choose group or instance norm: batch norm mixes patients. MONAI 1.6's ResNet keeps it
            in its blocks whatever its `norm` says.
        width: size of its output, as the network is told (`out_channels` or `num_classes`).

    Raises ValueError, when it is used, where the network's output has another size.
    """

    key = KEY

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, image: Tensor) -> Tensor:
        """Embedding [n, width] of float32 images."""
        out = self.network(image)
        out = out[0] if isinstance(out, tuple) else out  # MONAI's ViT gives the outputs of its layers besides
        if out.shape[1:] != (self.width,):
            raise ValueError(
                f"model.encoders.image: the network gives {list(out.shape[1:])}, not width={self.width}; "
                "set both alike (out_channels or num_classes of the network)"
            )
        return torch.as_tensor(out)


class SmallCNN(nn.Module):
    """Three convolutions with group norm and the mean over places, for small images such as 28 x 28.

    Args:
        channels: channels of the image: 1 gray, 3 color.
        width: size of the embedding, a multiple of 16.
        spatial_dims: 2 or 3.
    """

    key = KEY

    def __init__(self, channels: int = 1, width: int = 64, spatial_dims: int = 2) -> None:
        super().__init__()
        if spatial_dims not in (2, 3) or width < 16 or width % 16:
            raise ValueError("model.encoders.image: spatial_dims is 2 or 3, and width a multiple of 16")
        self.width, self.places = width, tuple(range(2, 2 + spatial_dims))
        convolution, pool = (nn.Conv2d, nn.MaxPool2d) if spatial_dims == 2 else (nn.Conv3d, nn.MaxPool3d)
        sizes, layers = [channels, width // 4, width // 2, width], list[nn.Module]()
        for before, after in itertools.pairwise(sizes):
            layers += [convolution(before, after, 3, padding=1), nn.GroupNorm(after // GROUP, after), nn.ReLU()]
            layers += [pool(2)] if after != width else []
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Embedding [n, width] of float32 images."""
        out: Tensor = self.layers(image)
        return out.mean(self.places)


class Timm(nn.Module):
    """A network of the package timm by its name, with initial weights drawn here: none are downloaded.

    Args:
        name: a name of `timm.list_models()`, such as `convnext_atto`.
        width: size of the embedding.
        channels: channels of the image: 1 gray, 3 color.

    Raises ValueError for a name that points to a folder or a hub, ModuleNotFoundError where timm is not installed.
    """

    key = KEY

    def __init__(self, name: str, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        if not name.replace("_", "").replace(".", "").isalnum():
            raise ValueError(
                f"model.encoders.image.name={name!r}: is no plain name of timm; folders and hubs are not read"
            )
        try:
            timm = importlib.import_module("timm")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "models.encoders.image.Timm needs the package timm, at every site: pip install timm"
            ) from error
        self.width = width
        self.network = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=width)

    def forward(self, image: Tensor) -> Tensor:
        """Embedding [n, width] of float32 images [n, c, h, w]."""
        return torch.as_tensor(self.network(image))
