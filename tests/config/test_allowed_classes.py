"""The list of classes that a study may name: what it says, and what its classes do when they are built and stepped."""

import inspect
import random
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from flip.config.places import argument_refusals, listed, nested_places, refusal
from flip.config.schema import Site
from flip.config.targets import COORDINATOR_TARGETS, resolve
from flip.site.admission import Place
from flip.site.audit import guarded
from tests.config.list_classes import classes

CLASSES = sorted({(place, name) for place, names in listed().items() for name in names})
LIBRARY = [each for each in CLASSES if each[1].split(".")[0] in ("monai", "torch", "torchmetrics")]
SHOWN = 60  # classes that the fast test draws; the slow one takes all

TINY: dict[str, Any] = {
    "spatial_dims": 2, "dimensions": 2, "in_channels": 1, "out_channels": 2, "num_classes": 2, "n_classes": 2,
    "channels": (4, 8), "strides": (2,), "kernel_size": 3, "features": (4, 4, 4, 4, 4, 4), "img_size": (32, 32),
    "in_features": 4, "out_features": 2, "num_features": 4, "num_channels": 4, "num_groups": 2, "input_size": 4,
    "hidden_size": 4, "embed_dim": 4, "num_heads": 2, "num_embeddings": 4, "embedding_dim": 4, "d_model": 4, "nhead": 2,
    "normalized_shape": 4, "scale_factor": 2, "output_size": 2, "keys": ["image"], "num_labels": 2, "task": "binary",
    "patch_size": (8, 8), "roi_size": (8, 8), "spatial_size": (8, 8), "model_name": "efficientnet-b0", "p": 0.5,
    "in_shape": (1, 8, 8), "latent_size": 2, "classes": 2, "factor": 2, "width": 16, "widths": {"tabular": 4},
    "ranges": (0, 1), "margin": 1, "axis": 0, "dim": 0, "k": 2, "length": 4, "shape": (2,), "gamma": 0.5, "lr": 0.1,
    "times": [1.0, 2.0], "label": 1, "labels": 2, "inplanes": (4, 8, 8, 8), "hidden_channels": 4, "degree": 1,
}  # fmt: skip
"""A tiny value for each argument without a default, by its name."""


def made(name: str, needs: dict[str, Any]) -> tuple[Any, str]:
    """The class built from tiny values, and why it could not be: what it raised with them."""
    target = resolve(name)
    parameters = inspect.signature(target).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty and each.kind not in (2, 4)]
    given = {each: TINY[each] for each in required if each in TINY} | needs
    if name.startswith("torch.optim.lr_scheduler."):
        given["optimizer"] = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    elif name.startswith("torch.optim."):
        given = {"params": [torch.nn.Parameter(torch.zeros(2, 2))], "lr": 0.1}
    try:
        return target(**given), ""
    except Exception as error:  # the values do not fit it, which is no event
        return None, f"{type(error).__name__}: {error}"


def step(thing: Any) -> None:
    """One step with tiny tensors, as far as they fit it."""
    image = torch.rand(1, 1, 32, 32)
    with suppress(Exception):  # the tensors do not fit it, which is no event
        if isinstance(thing, torch.optim.Optimizer):
            thing.step(lambda: torch.zeros(()))
        elif isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
            thing.step()
        elif "loss" in type(thing).__module__:
            thing(image, image)
        elif "metric" in type(thing).__module__:
            thing(image > 0.5, image > 0.5)
        elif hasattr(thing, "keys"):
            thing({"image": image[0]})
        else:
            thing(image[0] if "transforms" in type(thing).__module__ else image)


def stepped(place: Place, chosen: list[tuple[str, str]]) -> tuple[int, list[str]]:
    """Build and step classes under the hook: how many could be built, and what they tried."""
    warnings.simplefilter("ignore")
    built = 0
    with guarded(place) as guard, torch.no_grad():
        for kind, name in chosen:
            thing, _ = made(name, dict(listed()[kind][name]))
            if thing is not None:
                built += 1
                step(thing)
    return built, guard.tried


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("north", Site(root=str(tmp_path), policy="public_data"), tmp_path / "home", deployed=True)


@pytest.mark.parametrize(("kind", "name"), [each for each in CLASSES if each not in LIBRARY])
def test_each_class_of_ours_is_found_at_its_place(kind: str, name: str) -> None:
    assert resolve(name) is not None
    assert refusal(name, COORDINATOR_TARGETS, (kind,)) is None
    assert refusal(name, COORDINATOR_TARGETS, ("nowhere",)) == "cannot stand here: no class may"


def test_each_class_of_a_library_is_found() -> None:
    assert [name for kind, name in LIBRARY if refusal(name, COORDINATOR_TARGETS, (kind,))] == []
    assert [name for _, name in LIBRARY if resolve(name).__name__ != name.split(".")[-1]] == []


def test_some_classes_try_nothing_when_they_are_built_and_stepped(place: Place) -> None:
    built, tried = stepped(place, random.Random(len(LIBRARY)).sample(LIBRARY, SHOWN))
    assert tried == []
    assert built > SHOWN / 2


@pytest.mark.slow
def test_no_class_tries_anything_when_it_is_built_and_stepped(place: Place) -> None:
    built, tried = stepped(place, LIBRARY)
    assert tried == []
    assert built > 0.6 * len(LIBRARY)


@pytest.mark.slow
def test_the_file_is_what_the_installed_packages_give() -> None:
    assert {kind: dict(names) for kind, names in listed().items()} == classes()


def test_no_class_stands_twice_or_out_of_order() -> None:
    text = (Path(inspect.getfile(refusal)).parent / "allowed_classes.yaml").read_text()
    lines = {kind: [next(iter(each)) if isinstance(each, dict) else each for each in names]
             for kind, names in yaml.safe_load(text).items()}  # fmt: skip
    assert {kind: names for kind, names in lines.items() if names != sorted(set(names))} == {}


@pytest.mark.parametrize("word", ["sources", "cache", "Cache", "Save", "Load", "decoder", "Perceptual", "Trt"])
def test_what_reads_keeps_or_fetches_is_not_on_it(word: str) -> None:
    named = [name for _, name in CLASSES if word in name and "torch.nn" not in name]
    assert named == []


@pytest.mark.parametrize(
    ("places", "parameter", "inside"),
    [
        (("model",), "optimizer", ("optimizer",)),
        (("model",), "network", ("network",)),
        (("dataset_part",), "transforms", ("transform",)),
        (("callback",), "anything", ("callback",)),
        (None, "anything", None),
    ],
)
def test_a_parameter_says_what_may_fill_it(
    places: tuple[str, ...] | None, parameter: str, inside: tuple[str, ...] | None
) -> None:
    assert nested_places(places, parameter) == inside


def test_a_class_that_the_owner_names_stands_anywhere() -> None:
    own = "monai.networks.nets.MILModel"
    assert refusal(own, COORDINATOR_TARGETS, ("model",))
    assert refusal(own, (*COORDINATOR_TARGETS, own), ("model",)) is None
    assert refusal("monai.networks.nets.NetAdapter", (*COORDINATOR_TARGETS, "monai."), ("network",))


def test_what_must_be_stated_is_asked_for() -> None:
    name = "monai.networks.nets.EfficientNetBN"
    told = {"model_name": "efficientnet-b0"}
    assert [argument for argument, _ in argument_refusals(name, told)] == ["pretrained"]
    assert [*argument_refusals(name, told | {"pretrained": False})] == []
