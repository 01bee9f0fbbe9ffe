"""A finished run of a small segmentation, without the training: untrained weights with what the sites agreed on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import seed_everything

from flip.config import build
from flip.messages.model_file import model_of, save_model
from flip.messages.weights import to_arrays
from tests.report.fixture import write_run

VOLUMES = {"_target_": "datamodules.segmentation.forms.Volumes", "spacing_mm": [1.0, 1.6, 2.0], "orientation": "LAS"}
PERCENTILES = {"_target_": "datamodules.segmentation.intensity.Percentiles", "span": [-200.0, 200.0]}
UNET = {
    "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
    "channels": [4, 8], "strides": [2], "norm": ["INSTANCE", {"affine": True}],
}  # fmt: skip


def manifest(**changed: Any) -> dict[str, Any]:
    """The parts of a study's manifest that an export reads."""
    dataset = {
        "_target_": "datamodules.segmentation_images.SegmentationImages", "structures": ["liver", "spleen"],
        "image": VOLUMES, "intensity": PERCENTILES,
        "patches": {"_target_": "datamodules.segmentation.patching.Patching", "size": [4, 8, 8]},
    }  # fmt: skip
    loss = {"_target_": "monai.losses.DiceLoss", "softmax": True, "to_onehot_y": True}
    model = {
        "_target_": "models.segmenter.Segmenter", "network": UNET, "structures": ["liver", "spleen"],
        "loss": {"dice": loss}, "roi": [4, 8, 8], "overlap": 0.5, "tolerance_mm": 2.0,
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    }  # fmt: skip
    trainer: dict[str, Any] = {"centralized": {"optimizer": None}, "lightning": {}, "callbacks": {}}
    study = {"name": "abdomen", "seed": 0, "dataset": dataset, "model": model, "trainer": trainer, "outcomes": None}
    return study | {"strategy": {}, "privacy": {}, "mechanisms": []} | changed


def finished(folder: Path, study: dict[str, Any], share: int | None = None) -> Path:
    """A run's folder with a model of the study, of so many of its weights alone."""
    write_run(folder)
    seed_everything(0, verbose=False)
    every = to_arrays(build.initial_module(study))
    weights = dict([*every.items()][:share])
    agreed = {"sum/foreground intensities": np.r_[np.zeros(30), np.linspace(1, 3, 50), np.zeros(20)]}
    (folder / "weights").mkdir(exist_ok=True)
    save_model(folder / "weights" / "last.safetensors", model_of(weights, agreed, json.dumps(study), pooled=False))
    return folder
