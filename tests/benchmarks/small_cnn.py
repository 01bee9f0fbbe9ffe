"""A small study of images, for `cnn_speed.py`: 50 sites of 100 images, a small network, 10 rounds of one pass each."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

SITES, ROUNDS, BATCH, RATE, CLASSES, SEED = 50, 10, 10, 0.05, 10, 1
TRAIN, TEST = 100, 20


class Network(nn.Sequential):
    """Logits [n, 10] of images [n, 1, 28, 28]."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, CLASSES),
        )  # fmt: skip


def write_arrays(folder: Path) -> None:
    """A file for each site: images, training rows first, with a bright line where their class says."""
    folder.mkdir()
    rng = np.random.default_rng(SEED)
    for index in range(SITES):
        label = rng.integers(CLASSES, size=TRAIN + TEST)
        images = rng.normal(size=(len(label), 1, 28, 28)).astype(np.float32)
        images[np.arange(len(label)), 0, 2 * label] += 1
        np.savez(folder / f"site{index:02}.npz", x=images, y=label)


def read(path: Path) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Images and labels of a site: to train on, and to test on."""
    with np.load(path) as file:
        both = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    return tuple(each[:TRAIN] for each in both), tuple(each[TRAIN:] for each in both)
