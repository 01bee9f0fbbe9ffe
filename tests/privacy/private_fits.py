"""A site's private fit without a site: tiny LightningModules, their data, and a fit as a silo runs it."""

import warnings
from typing import Any

import pytorch_lightning as lightning
import torch
from monai.networks.nets import UNet
from torch.utils.data import DataLoader, Dataset

from flip.messages import Task
from flip.privacy import PrivateFit

KEY = bytes(range(32))


class Examples(Dataset[dict[str, torch.Tensor]]):
    """Named tensors, an example a row."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


class Linear(lightning.LightningModule):
    """A linear model by plain SGD; `scheduled` adds a learning-rate scheduler."""

    def __init__(self, *, scheduled: bool = False, rate: float = 0.1) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 1)
        self.scheduled, self.rate = scheduled, rate
        self.seen: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append(len(batch["x"]))
        return torch.nn.functional.mse_loss(self.net(batch["x"]), batch["y"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate)
        if not self.scheduled:
            return optimizer
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Segmenter(lightning.LightningModule):
    """A tiny MONAI U-Net with affine instance norm and in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        norm = ("instance", {"affine": True})
        act = ("relu", {"inplace": True})
        self.net = UNet(2, 1, 2, channels=(4, 8), strides=(2,), num_res_units=1, norm=norm, act=act)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def rows(number: int = 12) -> Examples:
    """Rows of a table."""
    generator = torch.Generator().manual_seed(3)
    return Examples(x=torch.randn(number, 3, generator=generator), y=torch.randn(number, 1, generator=generator))


def images(number: int = 6) -> Examples:
    """Images of 16 x 16 with a label at each pixel."""
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(number, 1, 16, 16, generator=generator)
    return Examples(image=image, label=(image[:, 0] > 0).long())


def seeded(kind: Any, **arguments: Any) -> Any:
    """A module with the same initial weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**arguments)


def private_fit(
    mechanism: Any, module: Any, data: Any, *, steps: int = 3, key: bytes = KEY, batch: int = 4, **extra: Any
) -> PrivateFit:
    """Prepare a fit as the silo does, without training."""
    task = Task("run", "study", 0, "fit", {}, {}, {}, "{}")
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    ledger, whose = extra.get("ledger", []), extra.get("whose")
    fit = PrivateFit(module, loader, steps, extra.get("planned", steps), task, key, ledger, whose)
    mechanism.prepare(fit)
    return fit


def train(fit: PrivateFit, callbacks: Any = ()) -> lightning.Trainer:
    """Train so many steps with Lightning, as the silo does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=fit.steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        )  # fmt: skip
        fit.module.train()
        trainer.fit(fit.module, fit.loader)
    return trainer


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the module's state."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
