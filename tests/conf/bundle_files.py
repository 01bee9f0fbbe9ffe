"""A small MONAI Bundle as others write one: short names of classes, references, what only its own run needs."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

NETWORK = {
    "_target_": "UNet", "_desc_": "a small one", "spatial_dims": "@dimensions", "in_channels": 1, "out_channels": 3,
    "channels": [4, 8], "strides": [2], "norm": ["INSTANCE", {"affine": True}],
}  # fmt: skip
INFERENCE: dict[str, Any] = {
    "imports": ["$import glob"],
    "bundle_root": "/workspace",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "$torch.device('cpu')",
    "dimensions": 3,
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 1.5, 3.0], "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -200, "a_max": 300, "b_min": 0.0,
             "b_max": 1.0, "clip": True},
            {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 16, 16], "sw_batch_size": 4, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
        ],
    },
    "evaluator": {"_target_": "SupervisedEvaluator", "network": "@network", "inferer": "@inferer"},
    "run": ["$@evaluator.run()"],
}  # fmt: skip
TRAIN = {"loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True, "include_background": False}}
NAMES = {"0": "background", "1": "liver", "2": "spleen"}
METADATA = {
    "network_data_format": {"inputs": {"image": {"modality": "CT"}}, "outputs": {"pred": {"channel_def": NAMES}}}
}


def settings() -> dict[str, Any]:
    """Its configuration, to be changed."""
    return copy.deepcopy(INFERENCE)


def write_bundle(folder: Path, inference: dict[str, Any] | None = None) -> Path:
    """The bundle, with weights of another seed than a study's."""
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    files = {"inference": inference or INFERENCE, "train": TRAIN, "metadata": METADATA}
    for name, values in files.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(values))
    torch.manual_seed(7)
    network = UNet(3, 1, 3, [4, 8], [2], norm=("INSTANCE", {"affine": True}))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder
