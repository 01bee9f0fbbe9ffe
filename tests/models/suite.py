"""What every module has to keep. A test class inherits `ModuleSuite` and gives `module` and the two batches."""

from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_sum

from models.metrics.counts import FOR_FIGURES

Batch = dict[str, torch.Tensor]


def cut(batch: Batch, start: int, stop: int) -> Batch:
    return {name: value[start:stop] for name, value in batch.items()}


def states(module: Any, *batches: Batch) -> dict[str, torch.Tensor]:
    """The states of the module's metrics after a test of some batches."""
    module.eval()
    for metric in module.metrics.values():
        metric.reset()
    with torch.no_grad():
        for batch in batches:
            module.test_step(batch, 0)
    return {
        f"{name}/{state}": getattr(metric, state).clone()
        for name, metric in module.metrics.items()
        for state in metric._defaults
    }


class Rows(torch.utils.data.Dataset):
    """The examples of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int) -> Batch:
        return {name: value[index] for name, value in self.batch.items()}


class ModuleSuite:
    """The contract between the engine and a module."""

    @pytest.fixture
    def module(self) -> Any:
        """The module, small."""
        raise NotImplementedError("the test class gives a fixture `module`")

    @pytest.fixture
    def train_batch(self) -> Batch:
        """A training batch of at least two examples."""
        raise NotImplementedError("the test class gives a fixture `train_batch`")

    @pytest.fixture
    def test_batch(self) -> Batch:
        """A test batch of at least two examples."""
        raise NotImplementedError("the test class gives a fixture `test_batch`")

    def test_training_gives_a_loss_with_a_gradient(self, module, train_batch):
        loss = module.training_step(train_batch, 0)
        loss.backward()
        assert loss.ndim == 0 and torch.isfinite(loss)
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())

    def test_an_empty_batch_moves_nothing(self, module, train_batch):
        module.training_step(cut(train_batch, 0, 0), 0).backward()
        assert not any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())

    def test_an_empty_batch_scores_nothing(self, module, test_batch):
        assert not any(state.any() for state in states(module, cut(test_batch, 0, 0)).values())

    def test_every_state_of_a_metric_is_a_sum(self, module):
        assert all(isinstance(metric, Metric) for metric in module.metrics.values())
        reductions = [reduction for metric in module.metrics.values() for reduction in metric._reductions.values()]
        assert reductions and all(reduction is dim_zero_sum for reduction in reductions)

    def test_the_states_of_two_sites_add_up(self, module, test_batch):
        whole, first, second = (states(module, cut(test_batch, *part)) for part in ((0, None), (0, 1), (1, None)))
        for name, state in whole.items():
            torch.testing.assert_close(first[name] + second[name], state)

    def test_a_metric_is_one_number(self, module, test_batch):
        states(module, test_batch)
        assert all(metric.compute().ndim == 0 for metric in module.metrics.values())

    def test_no_metric_travels_with_the_weights(self, module):
        assert not any(name.startswith("metrics.") for name in module.state_dict())

    def test_the_best_weights_are_those_of_a_metric(self, module):
        assert module.monitor in module.metrics and isinstance(module.higher_is_better, bool)

    def test_a_plain_lightning_trainer_trains_and_scores_it(self, module, train_batch, test_batch):
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(Rows(train_batch), 2), DataLoader(Rows(test_batch), 2))
        assert f"val/{module.monitor}" in trainer.callback_metrics
        (scores,) = trainer.test(module, DataLoader(Rows(test_batch), 2), verbose=False)
        valued = [name for name, metric in module.metrics.items() if not isinstance(metric, FOR_FIGURES)]
        assert {f"test/{name}" for name in valued} <= scores.keys()
