"""A run's model as a MONAI Bundle: it segments a folder of DICOM where the engine is not, as the engine does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from datamodules.dicom import Decoder, read_series
from datamodules.segmentation.grid import mapping, resampled, turned
from flip.__main__ import main
from flip.config import build
from flip.config.places import texts
from flip.export.scripts import PACKAGES
from flip.messages.model_file import ModelFile, load_model, save_model
from flip.messages.weights import load_arrays
from tests.datamodules.ct_files import SPACING, body, save, slices_of
from tests.export.run_folder import UNET, finished, manifest

KINDS = {
    "percentiles": {"_target_": "datamodules.segmentation.intensity.Percentiles", "span": [-200.0, 200.0]},
    "range": {"_target_": "datamodules.segmentation.intensity.Range", "low": -160, "high": 240},
    "standardized": {"_target_": "datamodules.segmentation.intensity.Standardized"},
}
PARTS: dict[str, dict[str, Any]] = {"percentiles": {}, "range": {"least_part": {"liver": 0.02}}, "standardized": {}}
ELSEWHERE = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flip", "models", "datamodules", "tests"):
            raise ImportError(name + " is not in this environment")
sys.meta_path.insert(0, Blocker())
series = sys.argv[1]
sys.argv = ["monai.bundle", "run", "--config_file", "configs/inference.json", "--dataset_dir", series]
runpy.run_module("monai.bundle", run_name="__main__")
import numpy, torch
from monai.bundle import ConfigParser
parser = ConfigParser(); parser.read_config("configs/inference.json"); parser["dataset_dir"] = series
scan, network = parser.get_parsed_content("dataset")[0], parser.get_parsed_content("evaluator").network
numpy.savez("seen.npz", image=scan["image"], logits=network(scan["image"][None, :, :4, :8, :8]).detach())
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series whose rows lie from back to front."""
    return save(tmp_path_factory.mktemp("series") / "scan", slices_of(body(9, 22, 20), flip_rows=True))


def study_of(kind: str) -> dict[str, Any]:
    study = manifest()
    return {
        **study,
        "dataset": {**study["dataset"], "intensity": KINDS[kind]},
        "model": {**study["model"], **PARTS[kind]},
    }


def parts_of(run: Path) -> tuple[Any, Any]:
    """The engine's module and dataset of a run."""
    model = load_model(run)
    study: Any = model.manifest
    module, data = build.initial_module(study), build.declared(study["dataset"])
    load_arrays(module, model.weights)
    data.agree(model.agreed)
    return module.eval(), data


def ours(run: Path, series: Path, **changed: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the engine's network sees of a scan, its output on a corner, and the classes on the scan's grid, turned."""
    module, data = parts_of(run)
    vars(module).update(changed)
    volume = read_series(series, modality="CT", decoder=Decoder())
    values, spacing = turned(volume.voxels, volume.spacing, data.reader.form.orientation)
    shape, places = mapping(values.shape, spacing, data.reader.form.spacing)
    image = data.intensity.seen(data.intensity.kept(resampled(values, places, shape)[None]))
    scan = torch.from_numpy(image)[None]
    found = module.segment(scan, torch.from_numpy(places), values.shape, spacing)
    return image, module(scan[..., :4, :8, :8]).detach().numpy(), found.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_without_the_engine_it_finds_what_the_engine_finds(kind: str, series: Path, tmp_path: Path) -> None:
    pytest.importorskip("fire", reason="`python -m monai.bundle` needs fire")
    run, bundle = finished(tmp_path / "run", study_of(kind)), tmp_path / "bundle"
    assert main(["export", str(run), str(bundle)]) == 0
    words = [sys.executable, "-c", ELSEWHERE, str(series)]
    done = subprocess.run(words, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, (image, logits, classes) = np.load(bundle / "seen.npz"), ours(run, series)
    assert np.abs(seen["image"] - image).max() < 1e-5
    assert np.abs(seen["logits"] - logits).max() < 1e-5
    mask = nibabel.load(bundle / "eval" / "scan_seg.nii.gz")
    assert len(np.unique(classes)) > 1
    if PARTS[kind]:
        assert not np.array_equal(classes, ours(run, series, least_part={})[2])
    assert np.array_equal(np.asarray(mask.dataobj), classes)
    assert np.allclose(np.diag(mask.affine)[:3], [-SPACING[2], SPACING[1], SPACING[0]])  # LAS


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its bundle."""
    folder = tmp_path_factory.mktemp("exported")
    license_file = folder / "terms.txt"
    license_file.write_text("CC BY-NC 4.0")
    run = finished(folder / "run", manifest())
    assert main(["export", str(run), str(folder / "bundle"), "--license", str(license_file)]) == 0
    return run, folder / "bundle"


def test_its_weights_are_tensors_alone(exported: tuple[Path, Path]) -> None:
    run, bundle = exported
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    weights = load_model(run).weights
    assert {f"network.{name}" for name in state} == {*weights}
    assert all(np.array_equal(tensor.numpy(), weights[f"network.{name}"]) for name, tensor in state.items())


def test_it_says_what_it_is(exported: tuple[Path, Path]) -> None:
    run, bundle = exported
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert about["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background", "1": "liver", "2": "spleen",
    }  # fmt: skip
    assert about["network_data_format"]["inputs"]["image"]["spatial_shape"] == [4, 8, 8]
    assert about["network_data_format"]["inputs"]["image"]["modality"] == "CT"
    assert about["eval_metrics"]["accuracy"] == pytest.approx(0.779)
    assert about["weights_sha256"] == json.loads((run / "result.json").read_text())["digest"]
    card, terms = (bundle / "docs" / "README.md").read_text(), (bundle / "LICENSE").read_text()
    for text in (card, terms, about["intended_use"]):
        assert "research use only, not a medical device" in text
    assert "## Caveats and recommendations" in card and "python -m monai.bundle run" in card
    assert "CC BY-NC 4.0" in terms and "Apache License" in terms


def test_its_only_expressions_are_the_engines_own(exported: tuple[Path, Path]) -> None:
    config = json.loads((exported[1] / "configs" / "inference.json").read_text())
    assert [text for text in texts(config) if text.startswith("$")] == [
        "$import torch", "$'cuda' if torch.cuda.is_available() else 'cpu'", "$@evaluator.run()",
    ]  # fmt: skip


def test_its_source_names_no_package_of_the_engine(exported: tuple[Path, Path]) -> None:
    files = sorted((exported[1] / "scripts").glob("*.py"))
    assert len(files) == 7
    lines = [line.split() for file in files for line in file.read_text().splitlines()]
    assert [line for line in lines if line[:1] in (["from"], ["import"]) and line[1].startswith(PACKAGES)] == []


def changed(study: dict[str, Any], part: str, **values: Any) -> dict[str, Any]:
    return {**study, part: {**study[part], **values}}


PICTURES = {"_target_": "datamodules.segmentation.forms.Pictures", "channels": 1}
FLAT = {"image": PICTURES, "patches": {"_target_": "datamodules.segmentation.patching.Patching", "size": [8, 8]}}
TABLE = {"batch_size": 2, "label": "y", "header": ["x", "y"], "numeric": ["x"], "categorical": {}, "person": None}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
LINEAR = {"_target_": "models.tabular.LinearClassifier", "features": 1, "optimizer": SGD}
REFUSED = {
    "a table": (
        {"dataset": {"_target_": "datamodules.cohort_table.CohortTable", **TABLE}, "model": LINEAR},
        "dataset: datamodules.cohort_table.CohortTable cannot be a bundle: a bundle of MONAI takes images",
    ),
    "a model that does not say how": ({"model": LINEAR}, "LinearClassifier: does not say how"),
    "pictures": ({"dataset": {**manifest()["dataset"], **FLAT}}, "dataset.image: pictures"),
    "what MONAI would evaluate": (
        {"model": {**manifest()["model"], "network": {**UNET, "norm": ["INSTANCE", {"affine": "$print(1)"}]}}},
        "holds one of $@%",
    ),
    "a class of nobody's": ({"model": {**LINEAR, "_target_": "subprocess.Popen"}}, "outside the allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_bundle_is_refused_with_the_reason(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, reason = REFUSED[case]
    run = finished(tmp_path / "run", manifest())
    model = load_model(run)
    again = ModelFile(dict(model.weights), dict(model.agreed), {**model.manifest, **parts}, model.digest)
    save_model(run / "weights" / "last.safetensors", again)
    assert main(["export", str(run), str(tmp_path / "bundle")]) == 2
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_layers_that_stayed_at_the_sites_cannot_be_handed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path / "run", manifest(), share=1)
    assert main(["export", str(run), str(tmp_path / "bundle")]) == 2
    assert "stayed at the sites (strategy.share)" in capsys.readouterr().err


def test_a_folder_that_is_there_is_left_alone(exported: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, bundle = exported
    before = sorted(bundle.rglob("*"))
    assert main(["export", str(run), str(bundle)]) == 2
    assert "name a new one" in capsys.readouterr().err
    assert sorted(bundle.rglob("*")) == before
