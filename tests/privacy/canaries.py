"""A hospital whose rows are canaries, and who watches the weights while they are trained on.

A canary is a row that moves one weight of the model alone: its clipped gradient is as long as the clipping norm and
pulls that weight towards 0, so that of all rows it tells most of itself. Each is in the hospital's table by a fair
coin. The study is composed as any other, sent to a `Silo` as tasks and answered by its replies. Who watches sees the
weights after every step, of which a coordinator sees each round's last: epsilon is to hold for all of them.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from flip.config.build import initial_module
from flip.messages import Task
from flip.messages.weights import to_arrays
from flip.site.silo import Silo
from tests.privacy.one_run_audit import Seen
from tests.studies import compose_study

STEEP = 1e4  # how steep the loss is: a gradient is longer than the clipping norm, whatever the weight
NORM = 1.0  # to which gradients are clipped
WEIGHT = "net.weight"

CONF = {
    "dataset/canaries.yaml": "_target_: tests.privacy.canaries.Table\nbatches: 64\n",
    "model/canaries.yaml": """
_target_: tests.privacy.canaries.Weights
canaries: {canaries}
optimizer: {{_target_: torch.optim.SGD, _partial_: true, lr: 1.0}}
""",
    "sites/hospital.yaml": "# @package sites.hospital\nroot: table.txt\nsecret: secret\npolicy: public_data\n",
    "experiment/canaries.yaml": """
# @package _global_
defaults:
  - override /dataset: canaries
  - override /model: canaries
  - override /sites: [hospital]
  - override /federation: inprocess
  - override /privacy: dp_sgd
name: canaries
allow_targets: [tests.]
trainer: {{steps: {steps}, epochs: null}}
strategy: {{rounds: {rounds}}}
dataset: {{batches: {batches}}}
privacy:
  dp_sgd: {{max_grad_norm: {norm}, delta: {delta}, noise_multiplier: {noise}, target_epsilon: null}}
""",
}


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Which canary a row is, and whose row it is: a person's own."""

    def __init__(self, canaries: NDArray[np.int64]) -> None:
        self.canaries = torch.from_numpy(canaries)

    def __len__(self) -> int:
        return len(self.canaries)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"canary": self.canaries[index], "person": self.canaries[index]}


class Table(lightning.LightningDataModule):
    """The canaries that a file names, all to train on, in so many batches a pass."""

    def __init__(self, root: str, columns: object = None, trains: bool = True, *, batches: int) -> None:
        super().__init__()
        self.root, self.batches = root, batches
        self.canaries = np.zeros(0, np.int64)

    def persons(self) -> int:
        return len(np.loadtxt(self.root, dtype=np.int64, ndmin=1))

    def setup(self, stage: str) -> None:
        self.canaries = np.loadtxt(self.root, dtype=np.int64, ndmin=1)

    def whose(self, split: str) -> NDArray[np.int64]:
        return self.canaries if split == "train" else self.canaries[:0]

    def train_dataloader(self) -> object:
        return DataLoader(Rows(self.canaries), batch_size=-(-len(self.canaries) // self.batches), shuffle=True)

    def val_dataloader(self) -> object:
        return []

    def test_dataloader(self) -> object:
        return []


class Weights(lightning.LightningModule):
    """A weight for each canary, whose loss is the square of its weight; `passed` are the weights before each step."""

    monitor, higher_is_better = "loss", False
    passed: ClassVar[list[NDArray[np.float32]]] = []

    def __init__(self, canaries: int, optimizer: object) -> None:
        super().__init__()
        self.net = torch.nn.Embedding(canaries, 1)
        self.make_optimizer = optimizer
        self.metrics = torch.nn.ModuleDict({"loss": MeanMetric()})

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.passed.append(self.net.weight[:, 0].detach().numpy().copy())
        return (STEEP * self.net(batch["canary"])).square().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        raise NotImplementedError("no row is scored")

    def configure_optimizers(self) -> object:
        return self.make_optimizer(self.parameters())


def write_hospital(folder: Path, canaries: int, *, seed: int) -> NDArray[np.bool_]:
    """The hospital's table, secret and the words of its file; returns which canaries are in the table."""
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    (folder / "table.txt").write_text("\n".join(map(str, coins.nonzero()[0])))
    (folder / "secret").write_bytes(np.random.default_rng([seed, 1]).bytes(32))
    (folder / "secret").chmod(0o600)
    os.utime(folder / "table.txt", (0, 0))  # the noise depends on it, and a test is the same each time
    return coins


@dataclass(frozen=True)
class Study:
    """What a study of canaries states."""

    canaries: int
    rounds: int
    steps: int
    batches: int
    noise: float
    delta: float

    def write(self, folder: Path) -> None:
        """Write its configuration."""
        for name, text in CONF.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**asdict(self), norm=NORM) if "{{" in text else text)


def run(folder: Path, declared: Study) -> tuple[Seen, float]:
    """Run a study in the folder of a hospital; returns what is seen of it, and the epsilon that the hospital tells."""
    declared.write(folder / "conf")
    study = compose_study("experiment=canaries", config_dir=folder / "conf")
    silo = Silo("hospital", study.sites["hospital"], folder / "home")
    weights, seen, told = to_arrays(initial_module(study.manifest)), [], 0.0
    examples = len((folder / "table.txt").read_text().split())  # which no reply tells; who watches knows more
    for number in range(declared.rounds):
        Weights.passed.clear()
        reply = silo.answer(Task("run", "study", number, "fit", weights, {}, {}, study.manifest_text))
        assert reply.fault is None, (folder / "home" / "site.log").read_text()
        weights, told = reply.weights, reply.metrics["privacy/epsilon"]
        path = np.float64([*Weights.passed, weights[WEIGHT][:, 0]])
        seen.append((-np.diff(path, axis=0) * examples / declared.batches / NORM, np.sign(path[:-1])))
    moves, pulls = (np.array(each) for each in zip(*seen, strict=True))
    return Seen(moves, pulls, 1 / declared.batches), told
