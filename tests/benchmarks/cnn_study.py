"""The parts of the small study of images as the engine takes them: a dataset and a model."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from small_cnn import BATCH, CLASSES, Network, read
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


class Data(lightning.LightningDataModule):
    """The arrays of one site."""

    def __init__(self, root: str, columns: Mapping[str, str] | None = None, trains: bool = True) -> None:
        super().__init__()
        self.root = Path(root)

    @cached_property
    def rows(self) -> list[TensorDataset]:
        """Images and labels to train on, and to test on; read when first used: the check builds it without."""
        return [TensorDataset(*each) for each in read(self.root)]

    def persons(self) -> int:
        """Every image is a person's own."""
        return sum(map(len, self.rows))

    def train_dataloader(self) -> Any:
        """Batches of images and labels."""
        return DataLoader(self.rows[0], batch_size=BATCH, shuffle=True)

    def val_dataloader(self) -> Any:
        """None are kept for it."""
        return []

    def test_dataloader(self) -> Any:
        """All in one batch."""
        return DataLoader(self.rows[1], batch_size=len(self.rows[1]))


class Model(lightning.LightningModule):
    """The network with its accuracy."""

    monitor, higher_is_better = "accuracy", True

    def __init__(self, optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network, self.make_optimizer = Network(), optimizer
        self.metrics = torch.nn.ModuleDict({"accuracy": MulticlassAccuracy(CLASSES, average="micro")})

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Mean cross-entropy."""
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Count."""
        self.metrics["accuracy"].update(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As declared."""
        return self.make_optimizer(self.parameters())
