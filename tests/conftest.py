"""Shared fixtures: where the real data lie, the command line from an empty folder, and a researcher's own package."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[1]
Flip = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = Path(os.environ.get("FLIP_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}; set FLIP_DATA_DIR to their folder")
    return folder.resolve()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return empty


@pytest.fixture
def flip(folder: Path) -> Flip:
    """`python -m flip ...` in a process of its own, from the empty folder."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        settings = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
        command = [sys.executable, "-m", "flip", *arguments]
        return subprocess.run(
            command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@dataclass(frozen=True)
class Acme:
    """A researcher's own package and configuration, outside this repository."""

    packages: Path
    conf: Path

    def arguments(self, *overrides: str) -> list[str]:
        return ["--config-dir", str(self.conf), "experiment=acme", *overrides]

    def write(self, name: str, text: str) -> Path:
        path = self.conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
        return path


PARTS = '''
"""The smallest parts of a study; nothing in them needs torch."""

from pathlib import Path

from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg


class Data:
    def __init__(self, root: str, columns: dict | None = None, trains: bool = True, *, batch_size: int = 4):
        self.root = Path(root)

    def prepare_data(self):
        pass

    def persons(self) -> int:
        return len((self.root / "persons.txt").read_text().split())


class Optimizer:
    def __init__(self, params, lr: float):
        self.lr = lr


class Model:
    metrics = {}
    monitor = "loss"
    higher_is_better = False

    def __init__(self, optimizer, width: int = 2):
        if width % 2:
            raise ValueError("width must be even")
        self.optimizer = optimizer

    def state_dict(self):
        return {}


class Median(FedAvg):
    needs = "each"

    def __post_init__(self):
        self.needs = "each"


class SecureSum(Mechanism):
    strategies = ("sum",)


def narrow(optimizer, lr: float = 1.0):
    return Model(optimizer)


SETTING = 3
'''

EXPERIMENT = """
    # @package _global_
    # A study of one's own.
    defaults:
      - override /sites: [north, south]
    name: acme
    allow_targets: [acme.]
    dataset: {_target_: acme.parts.Data, batch_size: 2}
    model:
      _target_: acme.parts.Model
      width: 4
      optimizer: {_target_: acme.parts.Optimizer, _partial_: true, lr: 0.1}
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acme:
    """The package `acme` on PYTHONPATH, and a study of it with two sites, in a folder for `--config-dir`."""
    own = Acme(tmp_path / "packages", tmp_path / "acme_conf")
    (own.packages / "acme").mkdir(parents=True)
    (own.packages / "acme" / "__init__.py").touch()
    (own.packages / "acme" / "parts.py").write_text(PARTS)
    (own.packages / "acme" / "broken.py").write_text("import a_package_that_nobody_has\n")
    own.write("experiment/acme.yaml", EXPERIMENT)
    for name in ("north", "south"):
        cohort = tmp_path / "cohorts" / name
        cohort.mkdir(parents=True)
        (cohort / "persons.txt").write_text("p1\np2\n")
        own.write(f"sites/{name}.yaml", f"# @package sites.{name}\nroot: {cohort}\npolicy: public_data\n")
    monkeypatch.setenv("PYTHONPATH", str(own.packages))
    monkeypatch.syspath_prepend(str(own.packages))
    for name in [each for each in sys.modules if each.split(".")[0] == "acme"]:
        monkeypatch.delitem(sys.modules, name)
    return own
