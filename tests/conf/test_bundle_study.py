"""A MONAI Bundle as a study: composed from its configuration, trained at two hospitals, and handed on as a bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flip.__main__ import main
from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from flip.messages.model_file import load_model
from flip.messages.weights_file import read_weights
from tests.conf.bundle_files import settings, write_bundle
from tests.datamodules.segmentation_sites import site
from tests.studies import compose_study

SITES = ("north", "south")
STANDARDIZED = "datamodules.segmentation.intensity.Standardized"


def composed(home: Path, *words: str, bundle: Path | None = None) -> Study:
    named = f"bundle={bundle or home / 'bundle'}"
    study = compose_study(
        "dataset=bundle", "model=bundle", "sites=[north, south]", "federation=inprocess", "name=imported", named,
        "strategy.rounds=1", "trainer.epochs=1", *words, config_dir=home / "conf",
    )  # fmt: skip
    check(study)
    return study


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and two hospitals with scans."""
    folder = tmp_path_factory.mktemp("imported")
    write_bundle(folder / "bundle")
    (folder / "conf" / "sites").mkdir(parents=True)
    for name in SITES:
        lines = [f"root: {site(folder / 'data' / name)}", "policy: public_data", "columns: {liver: 1, spleen: 6}"]
        (folder / "conf" / "sites" / f"{name}.yaml").write_text("\n".join([f"# @package sites.{name}", *lines, ""]))
    return folder


def test_the_manifest_holds_its_parts_as_plain_values_of_listed_classes(home: Path) -> None:
    study = composed(home)
    dataset: Any = study.manifest["dataset"]
    model: Any = study.manifest["model"]
    assert model["network"] == {
        "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
        "channels": [4, 8], "strides": [2], "norm": ["INSTANCE", {"affine": True}],
    }  # fmt: skip
    assert (model["roi"], model["overlap"], model["structures"]) == ([8, 16, 16], 0.25, ["liver", "spleen"])
    image = {"spacing_mm": [2.0, 1.5, 3.0], "orientation": "LAS", "modality": "CT"}
    assert dataset["image"] == {"_target_": "datamodules.segmentation.forms.Volumes", **image}
    scaled = {"low": -200, "high": 300, "to": [0.0, 1.0]}
    assert dataset["intensity"] == {"_target_": "datamodules.segmentation.intensity.Range", **scaled}
    assert dataset["patches"]["size"] == [8, 16, 16]
    assert str(home) not in study.manifest_text


def test_its_own_loss_is_taken_where_it_is_asked_for(home: Path) -> None:
    model: Any = composed(home, "model.loss={bundle: '${bundle:loss}'}").manifest["model"]
    assert model["loss"]["bundle"]["_target_"] == "monai.losses.DiceCELoss"


def put(key: str, value: Any) -> dict[str, Any]:
    """The bundle's configuration with another value at `a::b`."""
    found = inner = settings()
    *path, last = key.split("::")
    for name in path:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if isinstance(inner, list):
        inner[int(last)] = value
    elif value is None:
        del inner[last]
    else:
        inner[last] = value
    return found


SCALED = "preprocessing::transforms::4"
SPACING = settings()["preprocessing"]["transforms"][3]
CLIPPED = settings()["preprocessing"]["transforms"][4]
REFUSED = {
    "an expression": (put("network_def::norm", "$print('run')"), r"network_def\.norm: \"\$print\('run'\)\" is an expr"),
    "a variable": (put("network_def::norm", "a ${oc.env:HOME}"), r"norm: 'a \$\{oc\.env:HOME\}' is an expr"),
    "a reference to one": (put("network_def::norm", "@device"), r"network_def\.norm: .* is an expression"),
    "a reference to nothing": (put("network_def::norm", "@nowhere"), "refers to what the file does not hold"),
    "a macro": (put("network_def::norm", "%other.json::norm"), "is no reference to a plain value"),
    "what it requires": (put("network_def::_requires_", "$import os"), r"network_def\._requires_: is not executed"),
    "a class of nobody's": (put("network_def", {"_target_": "subprocess.Popen"}), "outside the allowed"),
    "a class of its own": (put("network_def", {"_target_": "scripts.Net"}), "scripts.Net is outside the allowed"),
    "a class on no list": (put("network_def", {"_target_": "monai.networks.nets.NoNet"}), "is not on the list"),
    "no network": ({"dimensions": 3}, "there is none; add network_def"),
    "other values": (put(SCALED, {"_target_": "ScaleIntensityd"}), r"\[4\]: ScaleIntensityd as it is given has no"),
    "values not clipped": (put(f"{SCALED}::clip", False), "has no counterpart .*write dataset.intensity"),
    "values of a part": (put(SCALED, {"_target_": "NormalizeIntensityd", "nonzero": True}), "of whole images have"),
    "changed twice": (put("preprocessing::transforms::5", {"_target_": "NormalizeIntensityd"}), "by 2 tr"),
    "no grid": (put("preprocessing::transforms::3", {"_target_": "EnsureTyped"}), "states no grid by Spacing; write"),
    "another output": (put("postprocessing::transforms::0", {"_target_": "KeepLargestConnectedComponentd"}),
                       r"\[0\]: KeepLargestConnectedComponentd has no counterpart"),
    "several labels a voxel": (put("postprocessing::transforms::0::sigmoid", True), "the largest of a softmax"),
    "a threshold": (put("postprocessing::transforms::2", {"_target_": "AsDiscreted", "threshold": 0.5}), "softmax"),
    "another activation": (put("postprocessing::transforms::0::other", "$torch.sigmoid"), "the largest of a softmax"),
    "two grids": (put("preprocessing::transforms::2", SPACING), "twice has no counterpart"),
    "a grid of some scans": (put("preprocessing::transforms::3::min_pixdim", [1, 1, 1]), r"\[3\]: .* by min_pix"),
    "the nearest voxel": (put("preprocessing::transforms::3::mode", "nearest"), r"\[3\]: Spacingd by mode has no"),
    "values before the grid": (put("preprocessing::transforms::0", CLIPPED), "before the grid is made has no count"),
    "one of several": (put("preprocessing::_target_", "OneOf"), "is no Compose of a list of transforms"),
    "a transform of its own": (put("preprocessing::transforms::3::_target_", "scripts.Spacingd"), "is no transf"),
    "two channels": (put("network_def::in_channels", 2), "takes 2 channels, and a scan has one here"),
    "windows that weigh alike": (put("inferer::mode", "constant"), r"inferer\.mode: 'constant' has no counterpart"),
    "no windows": (put("inferer", {"_target_": "SimpleInferer"}), "write dataset.patches.size and model.roi"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_refused_by_its_key(case: str, home: Path, tmp_path: Path) -> None:
    inference, reason = REFUSED[case]
    with pytest.raises(UserError, match=reason):
        composed(home, bundle=write_bundle(tmp_path / "bundle", inference))


@pytest.mark.parametrize("flag", [True, "True", 1, "@off"])
def test_what_the_bundle_has_switched_off_is_not_taken(flag: Any, home: Path, tmp_path: Path) -> None:
    inference = put("preprocessing::transforms::0", {**CLIPPED, "_disabled_": flag}) | {"off": True}
    assert composed(home, bundle=write_bundle(tmp_path / "bundle", inference)).manifest["dataset"]


def test_a_first_class_that_is_no_background_is_refused(home: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    file = bundle / "configs" / "metadata.json"
    file.write_text(file.read_text().replace("background", "tumor core"))
    with pytest.raises(UserError, match="calls channel 0 'tumor core', and here it is the background"):
        composed(home, bundle=bundle)


def test_the_overlap_is_of_the_inferer_whose_windows_are_taken(home: Path, tmp_path: Path) -> None:
    inference = settings()
    del inference["inferer"]["overlap"]  # MONAI's own then
    bundle = write_bundle(tmp_path / "bundle", inference)
    file = bundle / "configs" / "train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "inferer": {"roi_size": [4, 4, 4], "overlap": 0.75}}))
    model: Any = composed(home, bundle=bundle).manifest["model"]
    assert (model["roi"], model["overlap"]) == ([8, 16, 16], 0.25)


def test_values_end_where_the_bundle_has_them_end(home: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", put(f"{SCALED}::b_min", -1.0))
    dataset: Any = composed(home, bundle=bundle).manifest["dataset"]
    assert dataset["intensity"]["to"] == [-1.0, 1.0]


def test_what_is_written_in_the_study_is_not_asked_of_the_bundle(home: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", put(SCALED, {"_target_": "ScaleIntensityd"}))
    words = "dataset.intensity={_target_: datamodules.segmentation.intensity.Standardized}"
    assert composed(home, words, bundle=bundle).manifest["dataset"]["intensity"]


def test_keys_that_take_the_place_of_its_network_are_named_with_the_remedy(home: Path) -> None:
    own, remedy = "model.network={channels: [4, 8]}", "model.network=${bundle:network}"
    with pytest.raises(UserError) as refused:
        composed(home, own)
    assert str(refused.value).startswith("model.network: its keys (channels) name no class; write _target_")
    assert str(refused.value).endswith(f"set '{remedy}'")
    assert composed(home, own, remedy).manifest["model"]


def test_a_bundle_of_which_nothing_is_read_is_said_so(home: Path) -> None:
    with pytest.raises(UserError, match=r"bundle: nothing of it is read; choose model=bundle"):
        compose_study("experiment=heart_disease", f"bundle={home / 'bundle'}")


def test_without_a_bundle_the_remedy_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bundle is named; set bundle=FOLDER"):
        composed(home, "bundle=null")
    with pytest.raises(UserError, match=r"holds no configs/inference.json or configs/train.json; name the folder"):
        composed(home, bundle=tmp_path)


def test_safetensors_are_taken_before_a_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    bundle = write_bundle(tmp_path / "bundle")
    save_file({"a": torch.ones(2)}, bundle / "models" / "model.safetensors")
    assert {*read_weights(bundle)} == {"a"}


def test_it_is_not_scored_on_images_that_are_prepared_otherwise(home: Path) -> None:
    given = ("job=evaluate", f"model_from={home / 'bundle'}")
    assert len(composed(home, *given).manifest["given"]) == 1
    with pytest.raises(UserError, match=r"another dataset\.intensity, so rows would be prepared otherwise"):
        composed(home, *given, f"dataset.intensity={{_target_: {STANDARDIZED}}}")


@pytest.mark.slow
def test_it_is_scored_without_training_as_the_model_that_it_is(home: Path, tmp_path: Path) -> None:
    still = composed(home, f"init={home / 'bundle'}", "model.optimizer.lr=1e-30", "model.optimizer.weight_decay=0")
    trained = execute(still, tmp_path / "still")
    scored = execute(composed(home, "job=evaluate", f"model_from={home / 'bundle'}"), tmp_path / "scored")
    assert scored["status"] == "ok", scored["reason"]
    tests = {name: value for name, value in trained["metrics"].items() if name.startswith("test/")}
    assert {**scored["metrics"], **tests} == scored["metrics"]


@pytest.mark.slow
def test_it_begins_from_its_weights_trains_and_is_a_bundle_again(home: Path, tmp_path: Path) -> None:
    start = read_weights(home / "bundle")
    still = composed(home, f"init={home / 'bundle'}", "model.optimizer.lr=1e-30", "model.optimizer.weight_decay=0")
    assert execute(still, tmp_path / "still")["status"] == "ok"
    same = load_model(tmp_path / "still").weights
    assert same.keys() == {f"network.{name}" for name in start}
    assert all(np.abs(same[f"network.{name}"] - array).max() < 1e-20 for name, array in start.items())
    parts = "model.least_part={liver: 0.5}"  # which the engine's own bundles state, and others do not
    assert execute(composed(home, f"init={home / 'bundle'}", parts), tmp_path / "run")["status"] == "ok"
    trained = load_model(tmp_path / "run").weights
    assert any(not np.array_equal(trained[name], array) for name, array in same.items())
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "again")]) == 0
    out = read_weights(tmp_path / "again")
    assert all(np.array_equal(out[name], trained[f"network.{name}"]) for name in out)
    again: Any = composed(home, bundle=tmp_path / "again").manifest
    first: Any = composed(home, parts).manifest
    assert (again["model"], again["dataset"]) == (first["model"], first["dataset"])
