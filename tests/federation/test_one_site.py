"""One site federated is that site trained plainly: the loop, the wire and the strategy add nothing."""

import torch
from pytorch_lightning import Trainer, seed_everything

from flip.cli.execute import execute
from flip.config.build import datamodule, initial_module
from flip.determinism import stable_seed
from flip.messages.model_file import load_model
from flip.messages.weights import digest, to_arrays
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study


def test_one_round_at_one_site_equals_plain_lightning(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    study = tiny_heart_study(data, "sites=[va]", "strategy.rounds=1", "federation=inprocess")
    result = execute(study, tmp_path / "run")

    rows = datamodule(study.manifest, "va", study.sites["va"])
    module = initial_module(study.manifest)
    loader = rows.train_dataloader()
    seed_everything(stable_seed(study.manifest["seed"], "va", 0) % 2**32, verbose=False)
    torch.set_num_threads(1)
    Trainer(max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        module, loader
    )

    assert digest(load_model(tmp_path / "run").weights) == result["digest"]
    assert digest(to_arrays(module)) == result["digest"]
