"""A MONAI Bundle made from a run's folder: its network, how an image becomes input, and what is done with the output.

The form is MONAI's (https://docs.monai.io/en/stable/mb_specification.html): `configs/metadata.json` and
`configs/inference.json`, below `models` `model.pt` (a state of tensors alone, which `torch.load(weights_only=True)`
reads), `docs`, `LICENSE`, and under `scripts` the source of what MONAI has no class for.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.config import build
from flip.config.places import refusals, texts
from flip.config.targets import STUDY_TARGETS, TARGET
from flip.contracts import Agrees, RefusesBundle, SaysInference, SaysPreprocessing
from flip.contracts.bundle import Config, Inference
from flip.errors import UserError
from flip.export.documents import LICENSE, license_text, readme
from flip.export.metadata import metadata
from flip.export.onnx import write_onnx
from flip.export.scripts import Scripts
from flip.messages.model_file import ModelFile, load_model
from flip.messages.weights import load_arrays
from flip.report.card import with_model
from flip.report.card_page import write as write_card
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    import torch

FILE = "the model itself is weights/last.safetensors of the run"
EVALUATED = "$@%"  # what begins an expression, a reference and a macro in a bundle's configuration
MODEL, ONNX = Path("models", "model.pt"), Path("models", "model.onnx")


def write(run: Path, out: Path, license: Path | None = None) -> list[str]:
    """Write a run's model as a bundle into a folder that is not there yet; returns what is to be said of it.

    Raises UserError for a run without a model, a study that cannot be said so, and a folder that there is.
    """
    record = with_model(RunRecord.read(run))
    if out.exists():
        raise UserError(f"{out}: there is such a file or folder; name a new one")
    terms = license_text(license)
    module, preprocessing, inference = _parts(load_model(run))
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for folder in ("configs", "models", "docs"):
            (part / folder).mkdir(parents=True)
        network = getattr(module, inference["network"])
        _save(network, part / MODEL)
        scripts = Scripts(part / "scripts")
        settings = _settings(load_model(run).manifest, preprocessing, inference)
        _json(part / "configs" / "inference.json", scripts.copied(settings))
        _json(part / "configs" / "metadata.json", metadata(record, inference))
        _documents(run, part, terms)
        notes = write_onnx(network.eval(), inference["patch"], part / ONNX)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return notes


def _parts(model: ModelFile) -> "tuple[torch.nn.Module, Sequence[Config], Inference]":
    """The module with its weights, and what its study says of a bundle. Raises UserError where it says nothing."""
    study: Any = model.manifest
    if problems := [*refusals(study, STUDY_TARGETS)]:
        raise UserError(problems)
    module, data = build.initial_module(study), build.declared(study["dataset"])
    if isinstance(data, RefusesBundle):
        raise UserError(f"dataset: {study['dataset'][TARGET]} cannot be a bundle: {data.no_bundle}; {FILE}")
    for part, says in ((data, SaysPreprocessing), (module, SaysInference)):
        if not isinstance(part, says):
            raise UserError(
                f"{type(part).__name__}: does not say how MONAI would prepare its input and use its output "
                f"({says.__name__} in flip/contracts/bundle.py), so it cannot be a bundle; {FILE}"
            )
    assert isinstance(module, SaysInference) and isinstance(data, SaysPreprocessing)
    missing = sorted({*module.state_dict()} - {*model.weights})
    if missing:
        raise UserError(f"{missing[0]} stayed at the sites (strategy.share), so the run has no whole model to hand on")
    try:
        load_arrays(module, model.weights)
        if isinstance(data, Agrees):
            data.agree(model.agreed)
        said: Inference = {**module.bundle_inference(), "modality": data.bundle_modality}
        return module, data.bundle_preprocessing(), said
    except (KeyError, ValueError) as error:
        raise UserError(f"{error.args[0]}; so this study cannot be a bundle") from error


def _settings(study: Config, preprocessing: Sequence[Config], said: Inference) -> Config:
    """What `monai.bundle run` reads. Raises UserError for a text of the study that it would evaluate."""
    network = study["model"][said["network"]]
    for text in (each for each in texts([network, list(preprocessing)]) if any(sign in each for sign in EVALUATED)):
        raise UserError(f"model.{said['network']}: {text!r} holds one of {EVALUATED}, which MONAI would evaluate")
    added = {"dataset": "@dataset", "network": "@network_def", "weights": "@weights", "device": "@device"}
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "dicom",
        "output_dir": "eval",
        "weights": MODEL.as_posix(),
        "device": "$'cuda' if torch.cuda.is_available() else 'cpu'",
        "network_def": network,
        "preprocessing": _compose(preprocessing),
        "postprocessing": _compose(said["postprocessing"]),
        "dataset": {
            "_target_": "monai.data.Dataset",
            "data": [{"image": "@dataset_dir"}],
            "transform": "@preprocessing",
        },
        "evaluator": {**said["evaluator"], **added, "postprocessing": "@postprocessing"},
        "run": ["$@evaluator.run()"],
    }


def _compose(transforms: Sequence[Config]) -> dict[str, object]:
    return {"_target_": "monai.transforms.Compose", "transforms": list(transforms)}


def _save(network: "torch.nn.Module", path: Path) -> None:
    import torch

    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, path)


def _documents(run: Path, bundle: Path, terms: str) -> None:
    """The card as the bundle's README and as a page, and the license."""
    _, card = write_card(run, bundle / "docs")
    (bundle / "docs" / "README.md").write_text(readme(card.read_text(encoding="utf-8")), encoding="utf-8")
    card.unlink()
    (bundle / LICENSE).write_text(terms, encoding="utf-8")


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
