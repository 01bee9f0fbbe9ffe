"""A strategy's correction acts in a plain Lightning fit, where Lightning hands the optimizer a closure."""

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch

from flip.messages.weights import to_arrays
from flip.site.trainer import RoundCallback
from flip.strategies.fedprox import FedProx
from flip.strategies.scaffold import Scaffold
from tests.strategies.fake_sites import task
from tests.strategies.site_half import RATE, MemoryLocal, data, fit, linear


class Module(lightning.LightningModule):
    """The small module of the other tests, as Lightning trains it."""

    def __init__(self):
        super().__init__()
        self.net = linear()

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=RATE)


@pytest.mark.parametrize("kind", [FedProx, Scaffold])
def test_a_fit_by_lightning_is_the_fit_by_hand(kind):
    by_hand = linear()
    control = {f"control/{name}": np.full_like(array, 0.5) for name, array in to_arrays(by_hand).items()}
    wanted, _ = fit(kind(rounds=1), by_hand, task(to_arrays(by_hand), control), MemoryLocal(steps=4))

    module, strategy = Module(), kind(rounds=1)
    sent = {f"net.{name}": array for name, array in to_arrays(linear()).items()}
    renamed = {name.replace("control/", "control/net."): array for name, array in control.items()}
    strategy.before_fit(MemoryLocal(), task(sent, renamed))
    trainer = lightning.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RoundCallback(strategy.correct)],
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=8)
    trainer.fit(module, loader)
    for name, array in to_arrays(module.net).items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-6, atol=1e-7)
