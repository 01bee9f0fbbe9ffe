"""Making a study's parts from `_target_`, and what a hostile manifest cannot name."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flip.config import build
from flip.config.checks.parts import model_contract
from flip.config.code import code_digest
from flip.config.places import listed, refusal
from flip.config.schema import Site
from flip.config.targets import COORDINATOR_TARGETS, resolve, targets
from flip.errors import UserError
from tests.conftest import Acme

HOSTILE = [
    "os.system", "shutil.copytree", "builtins.eval", "subprocess.Popen", "torch.hub.load", "torch.load",
    "torch.classes.load_library", "torch.utils.cpp_extension.load", "models.tabular.torch.hub.load",
    "flip.cli.execute.execute", "flip.config.build.instantiate", "flip.config.site_file.load_site", "monai.bundle.run",
    "monai.transforms.SaveImage", "monai.transforms.io.array.SaveImage", "pytorch_lightning.Trainer",
    "pytorch_lightning.cli.LightningCLI", "hydra.utils.get_class", "models", "", "models..x",
    "models.tabular.__loader__", "torch.nn.modules.module._global_forward_hooks", "torch.nn.Module.__class__",
    "torch.nn.Module.load", "torch.optim.Optimizer.state_dict", "torch.nn.functional.relu", "torch.nn.os",
    "../models.x", "torch.nn.init.torch.load", "datamodules.phantom.generate", "monai.transforms.SaveClassificationD",
    "models.body_composition.report.write_private",
]  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_is_refused_by_its_name(target: str) -> None:
    assert refusal(target, COORDINATOR_TARGETS, tuple(listed())) is not None


@pytest.mark.parametrize(
    "target",
    ["torch.nn.Linear", "torch.optim.AdamW", "torch.optim.lr_scheduler.StepLR", "monai.networks.nets.UNet",
     "monai.losses.DiceCELoss", "monai.transforms.RandFlipd", "torchmetrics.classification.BinaryAccuracy",
     "pytorch_lightning.callbacks.EarlyStopping", "flip.strategies.fedavg.FedAvg"],
)  # fmt: skip
def test_what_studies_are_made_of_is_found(target: str) -> None:
    assert refusal(target, COORDINATOR_TARGETS, tuple(listed())) is None
    assert resolve(target).__name__ == target.split(".")[-1]


def test_every_target_is_listed_once_however_deep() -> None:
    config = {"_target_": "a.B", "x": [{"_target_": "c.D"}, {"y": {"_target_": "a.B"}}], "z": {"_target_": None}}
    assert targets(config) == ["a.B", "c.D"]


def test_nested_targets_are_made_first_and_partial_ones_wait(acme: Acme) -> None:
    optimizer = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
    model = build.instantiate({"_target_": "acme.parts.Model", "width": 4, "optimizer": optimizer}, "model")
    assert isinstance(model.make_optimizer, partial)
    assert model.configure_optimizers().param_groups[0]["lr"] == 0.5


def test_an_override_takes_the_place_of_the_configured_value(acme: Acme) -> None:
    config = {"_target_": "acme.parts.Model", "optimizer": {"_target_": "no.Such"}}
    assert build.instantiate(config, optimizer=3).make_optimizer == 3


def test_a_constructor_that_raises_is_named_with_its_cause(acme: Acme) -> None:
    with pytest.raises(
        UserError, match=r"model: acme\.parts\.Model could not be built: ValueError: width must be even"
    ):
        build.instantiate({"_target_": "acme.parts.Model", "optimizer": None, "width": 3}, "model")


def test_the_baselines_take_their_own_optimizer(acme: Acme) -> None:
    own = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 2.0}
    model = {"_target_": "acme.parts.Model", "optimizer": {**own, "lr": 1.0}}
    manifest = {"model": model, "trainer": {"centralized": {"optimizer": own}}}
    assert build.model(manifest).configure_optimizers().param_groups[0]["lr"] == 1.0
    assert build.model(manifest, centralized=True).configure_optimizers().param_groups[0]["lr"] == 2.0


NOTHING = {"trainer": {"centralized": {"optimizer": None}}, "mechanisms": ["it"]}
IN_A_WRONG_PLACE = {
    "model": "acme.parts.Boom",
    "dataset": "acme.parts.Boom",
    "strategy": "acme.parts.Boom",
    "privacy": "acme.parts.Boom",
    "outcomes": "acme.parts.boom",
    "callbacks": "acme.parts.Boom",
}
BOOM = """

def boom():
    raise SystemExit("called")


class Boom:
    def __init__(self, root=None, columns=None, trains=None):
        boom()
"""


@pytest.mark.parametrize("place", IN_A_WRONG_PLACE)
def test_what_is_not_of_a_places_kind_is_refused_before_it_is_called(place: str, acme: Acme) -> None:
    parts = acme.packages / "acme" / "parts.py"
    parts.write_text(parts.read_text() + BOOM)
    part = {"_target_": IN_A_WRONG_PLACE[place]}
    named = {"it": part} if place in ("privacy", "callbacks") else part
    manifest: dict[str, Any] = NOTHING | {place: named, "trainer": NOTHING["trainer"] | {"callbacks": {"it": part}}}
    make: dict[str, Callable[[], Any]] = {
        "model": lambda: build.model(manifest),
        "dataset": lambda: build.datamodule(manifest, "north", Site(root="x", policy="public_data")),
        "strategy": lambda: build.strategy(manifest),
        "privacy": lambda: build.mechanisms(manifest),
        "outcomes": lambda: build.outcomes(manifest),
        "callbacks": lambda: build.callbacks(manifest),
    }
    with pytest.raises(UserError, match=f"_target_={IN_A_WRONG_PLACE[place]} is (not a|a function)"):
        make[place]()


@pytest.mark.parametrize(
    "target",
    ["datamodules.phantom.generate", "models.body_composition.report.write_private", "models.segmentation.resample"],
)
def test_a_function_that_can_be_led_astray_is_no_argument(target: str, acme: Acme) -> None:
    model = {"_target_": "acme.parts.Model", "optimizer": None, "threshold": {"_target_": target}}
    with pytest.raises(UserError, match=f"model.threshold: _target_={target} "):
        build.instantiate(model, "model", "model")


def test_a_function_of_ones_own_is_an_argument(acme: Acme) -> None:
    model = {"_target_": "acme.parts.Model", "optimizer": None, "threshold": {"_target_": "acme.parts.halved"}}
    assert build.instantiate(model, "model", "model").metrics["accuracy"].threshold == pytest.approx(0.5)


def test_a_cohort_that_is_not_there_is_an_error_of_the_data(acme: Acme, tmp_path: Path) -> None:
    site = Site(root=str(tmp_path / "absent"), policy="public_data")
    data = build.datamodule({"dataset": {"_target_": "acme.parts.Data"}}, "north", site)
    with pytest.raises(build.DataError, match="absent"):
        build.persons(data)


def test_the_study_sets_only_its_own_arguments_of_the_trainer() -> None:
    allowed = {"trainer": {"lightning": {"gradient_clip_val": 1.0}}}
    assert build.trainer_arguments(allowed) == {"gradient_clip_val": 1.0}
    with pytest.raises(UserError, match=r"trainer\.lightning\.default_root_dir: is not the study's to set"):
        build.trainer_arguments({"trainer": {"lightning": {"default_root_dir": "/etc"}}})


def test_a_study_does_not_choose_where_checkpoints_go() -> None:
    checkpoint = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "/etc"}
    with pytest.raises(UserError, match=r"trainer\.callbacks\.best\.dirpath: is the engine's to set"):
        build.callbacks({"trainer": {"callbacks": {"best": checkpoint}}})


@pytest.mark.parametrize(
    "value", ["/abs/path", "..\\up", "../up", ["a", {"b": "/abs"}], {"/abs": 1}, {"_target_": "a/b"}]
)
def test_a_callback_is_told_no_path_however_deep(value: Any) -> None:
    checkpoint = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "monitor": "val/loss", "filename": value}
    with pytest.raises(UserError, match=r"trainer\.callbacks\.best\.filename: .* reads as a path"):
        build.callbacks({"trainer": {"callbacks": {"best": checkpoint}}})


@pytest.mark.parametrize("text", ["https://example.org/weights", "/etc/passwd", "~/.ssh", "../up"])
def test_a_library_is_handed_no_path_and_no_address(text: str) -> None:
    model = {"_target_": "models.segmentation.Segmentation", "network": {"_target_": "monai.networks.nets.HoVerNet"}}
    model["network"]["pretrained_url"] = text  # type: ignore[index]
    with pytest.raises(UserError, match=r"model\.network\.pretrained_url: names a file, a folder or an address"):
        build.instantiate(model, "model", "model")


def test_what_a_callback_watches_is_a_metric() -> None:
    stop = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/loss"}
    assert build.callbacks({"trainer": {"callbacks": {"stop": stop}}})[0].monitor == "val/loss"
    with pytest.raises(UserError, match="reads as a path"):
        build.callbacks({"trainer": {"callbacks": {"stop": {**stop, "monitor": "../../up"}}}})


def test_a_callback_of_ones_own_may_be_used(acme: Acme) -> None:
    parts = acme.packages / "acme" / "parts.py"
    own = "\n\nimport pytorch_lightning\n\n\nclass Watch(pytorch_lightning.Callback):\n    pass\n"
    parts.write_text(parts.read_text() + own)
    made = build.callbacks({"trainer": {"callbacks": {"watch": {"_target_": "acme.parts.Watch"}}}})
    assert type(made[0]).__name__ == "Watch"


def digest_in_a_new_process(acme: Acme, target: str) -> str:
    code = f"from flip.config.code import code_digest; print(code_digest(['{target}']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_digest_of_the_code_covers_a_researchers_own_package(acme: Acme) -> None:
    before = digest_in_a_new_process(acme, "acme.parts.Model")
    assert before == digest_in_a_new_process(acme, "acme.parts.Model")
    (acme.packages / "acme" / "broken.py").write_text("changed = True\n")
    assert digest_in_a_new_process(acme, "acme.parts.Model") != before


def test_the_digest_of_the_code_leaves_libraries_out() -> None:
    assert code_digest(["torch.nn.Linear"]) == code_digest([])


def test_a_metric_that_keeps_values_of_single_patients_is_refused() -> None:
    from torchmetrics import MeanMetric
    from torchmetrics.classification import BinaryAUROC

    class Exact:
        monitor, higher_is_better = "auroc", True

        def __init__(self) -> None:
            self.metrics = {"auroc": BinaryAUROC(), "binned": BinaryAUROC(thresholds=10), "loss": MeanMetric()}

    problems = list(model_contract(Exact()))
    assert {problem.split("metric ")[1].split(" ")[0] for problem in problems} == {"'auroc'"}


def test_a_model_without_what_the_engine_needs_is_named() -> None:
    assert list(model_contract(object())) == [
        f"model: object has no `{name}`; README.md says what a model must offer"
        for name in ("metrics", "monitor", "higher_is_better")
    ]
