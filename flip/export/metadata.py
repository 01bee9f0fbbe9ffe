"""`configs/metadata.json` of a bundle, by the keys of MONAI's specification."""

import math
import re
from importlib.metadata import version

from flip.contracts.bundle import Config, Inference
from flip.report.card_page import DISCLAIMER
from flip.report.model_details import AUTHORS
from flip.runs.record import RunRecord

NEEDED = ("pydicom", "nibabel", "scipy", "fire")
PLAIN = re.compile(r"[\w .,-]+", re.ASCII)  # of a study's texts: nothing that MONAI would evaluate


def metadata(run: RunRecord, said: Inference) -> Config:
    """What the model is, takes and gives, and its pooled test metrics. Names that are no plain words are left out."""
    pooled = {name: run.tested(name, None) for name in run.metric_names if PLAIN.fullmatch(name)}
    outputs = [name if PLAIN.fullmatch(name) else f"class {number}" for number, name in enumerate(said["outputs"])]
    channels, *patch = said["patch"]
    image = {
        "type": "image", "num_channels": channels, "spatial_shape": patch,
        "dtype": "float32", "is_patch_data": True, "channel_def": {"0": "image"},
    }  # fmt: skip
    if PLAIN.fullmatch(said.get("modality", "")):
        image["modality"] = said["modality"]
    pred = {
        "type": "image", "format": "segmentation", "num_channels": len(outputs), "spatial_shape": patch,
        "dtype": "float32", "is_patch_data": True, "channel_def": dict(enumerate(outputs)),
    }  # fmt: skip
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported from the weights {run.result['digest']}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: _version(name) for name in NEEDED},
        "name": run.name if PLAIN.fullmatch(run.name) else "a study",
        "task": "segmentation" if len(patch) > 1 else "prediction",
        "description": "See docs/README.md, the model card.",
        "authors": f"whoever ran the study, with FLIP by {AUTHORS}",
        "copyright": "see LICENSE",
        "intended_use": DISCLAIMER,
        "eval_metrics": {name: value for name, value in pooled.items() if math.isfinite(value)},
        "weights_sha256": str(run.result["digest"]),
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
