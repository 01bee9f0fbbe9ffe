"""The options `strategy=` and `privacy=`: each binds as it stands, hides no argument, and explains every key."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from flip.strategies import __path__ as PACKAGE
from flip.strategies.fedavg import FedAvg
from flip.strategies.fedopt import Adaptive, FedOpt
from flip.strategies.robust import Coordinatewise, Robust

CONF = Path(__file__).parents[2] / "conf"
STRATEGIES = sorted((CONF / "strategy").glob("*.yaml"))
FILES = [*STRATEGIES, *sorted((CONF / "privacy").glob("*.yaml"))]


def test_every_strategy_is_an_option():
    modules = [importlib.import_module(f"flip.strategies.{each.name}") for each in pkgutil.iter_modules(PACKAGE)]
    classes = {each for module in modules for each in vars(module).values() if inspect.isclass(each)}
    bases = {FedOpt, Adaptive, Robust, Coordinatewise}
    strategies = {each for each in classes if issubclass(each, FedAvg)} - bases
    assert {get_class(OmegaConf.load(path)._target_) for path in STRATEGIES} == strategies


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_a_strategy_binds_and_shows_every_argument(path):
    config = OmegaConf.load(path)
    instantiate(config)
    assert set(config) - {"_target_"} == set(inspect.signature(get_class(config._target_)).parameters)


def test_dp_sgd_binds_and_shows_every_argument():
    config = OmegaConf.load(CONF / "privacy" / "dp_sgd.yaml").dp_sgd
    instantiate(config)
    assert set(config) - {"_target_"} == set(inspect.signature(get_class(config._target_)).parameters)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_opens_with_the_command_that_uses_it_and_comments_every_key(path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# python -m flip ")
    assert f"{path.parent.name}={path.stem}" in first
    keys = [line for line in lines if ":" in line.split("#")[0] and "_target_" not in line and not line.endswith(":")]
    assert all(" # " in line and ("for example" in line or "valid" in line or "false" in line) for line in keys)
