"""The environment does not change how a site trains: neither Lightning's variables nor those of a scheduler."""

import logging

import pytest
import torch

from flip.messages.weights import to_arrays
from flip.site.trainer import Device, RoundCallback, fit_round
from tests.site.test_plain_loop import Module, loader, seeded

SCHEDULERS = {
    "SLURM": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "study", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
    "torchrun": {
        "TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": "1",
    },
    "LSF": {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "4"},
    "Kubeflow": {"KUBERNETES_PORT": "1", "MASTER_ADDR": "localhost", "WORLD_SIZE": "4", "RANK": "1"},
    "Lightning": {
        "PL_TRAINER_GRADIENT_CLIP_VAL": "0.0001", "PL_TRAINER_ACCUMULATE_GRAD_BATCHES": "3",
        "PL_TRAINER_DETERMINISTIC": "false", "PL_TRAINER_PLUGINS": "nothing", "PL_TRAINER_FAST_DEV_RUN": "1",
    },
}  # fmt: skip


class Hooked(Module):
    """Trained by Lightning's Trainer, for its hook."""

    def on_train_batch_start(self, batch, batch_idx):
        pass


def trained(kind: type[Module]) -> dict[str, object]:
    """The weights after a short fit."""
    module = seeded(kind)
    fit_round(module, loader(), steps=5, device=Device("cpu", None, {}), callback=RoundCallback())
    return {name: array.tolist() for name, array in to_arrays(module).items()}


@pytest.mark.parametrize("kind", [Module, Hooked])
@pytest.mark.parametrize("variables", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_weights_are_those_without_it(
    kind: type[Module], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flip.site.trainer._SETTINGS", {})
    plain = trained(kind)
    monkeypatch.setattr("flip.site.trainer._SETTINGS", {})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trained(kind) == plain
    assert torch.distributed.is_initialized() is False


def test_what_has_no_effect_is_named_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("flip.site.environment._SAID", set())
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "1")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            Device("cpu", None, {}).trainer()
    said = [record.getMessage() for record in caplog.records if "PL_TRAINER" in record.getMessage()]
    assert said == ["the environment does not change a study: PL_TRAINER_MAX_STEPS ignored"]
