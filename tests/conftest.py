"""Shared fixtures: where the real data lie, the command line from an empty folder, and a researcher's own package."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import settings

from tests.cohorts.heart import write_tiny_heart
from tests.commands import run_flip
from tests.own_parts import PARTS

ROOT = Path(__file__).resolve().parents[1]
Flip = Callable[..., "subprocess.CompletedProcess[str]"]

settings.register_profile("fuzz", settings.default)  # `make fuzz` names it: see tests/fuzz/cases.py

# A shell starts what goes to the background with SIGINT ignored, nohup with SIGHUP, and all that the tests start would
# inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# What takes minutes, the longest first, files that mostly wait and files that compute in turn.
LONGEST = (
    "tests/federation/test_live_faults.py::TestFlower",
    "tests/conf/test_published.py",
    "tests/conf/test_experiments.py",
    "tests/federation/test_live_faults.py::TestNVFlare",
    "tests/federation/test_faults.py",
    "tests/conf/test_sarcopenia_demo.py",
    "tests/conf/test_outcome_studies.py",
    "tests/runs/test_resume.py",
    "tests/federation/test_nothing_left.py",
    "tests/federation/test_parity.py",
    "tests/conf/",
    "tests/federation/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: with several workers, one would otherwise do it alone at the end."""

    def place(item: pytest.Item) -> int:
        begins = [at for at, name in enumerate(LONGEST) if item.nodeid.startswith(name)]
        return min(begins, default=len(LONGEST))

    items.sort(key=place)


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
        return run_flip(folder, *arguments, seconds=300, **{"COLUMNS": "200", **environment})

    return run


@dataclass(frozen=True)
class Acme:
    """A researcher's own package and configuration, outside this repository."""

    packages: Path
    conf: Path
    cohorts: Path

    def cohort(self, name: str) -> Path:
        """The table of the site `north` or `south`."""
        hospital = {"north": "cleveland", "south": "va"}[name]
        return self.cohorts / "uci_heart" / f"processed.{hospital}.data"

    def arguments(self, *overrides: str) -> list[str]:
        return ["--config-dir", str(self.conf), "experiment=acme", *overrides]

    def write(self, name: str, text: str) -> Path:
        path = self.conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
        return path


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
      optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}
    trainer: {centralized: {max_epochs: 2}}
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acme:
    """The package `acme` on PYTHONPATH, and a study of it with two sites, in a folder for `--config-dir`."""
    own = Acme(tmp_path / "packages", tmp_path / "acme_conf", tmp_path / "cohorts")
    (own.packages / "acme").mkdir(parents=True)
    (own.packages / "acme" / "__init__.py").touch()
    (own.packages / "acme" / "parts.py").write_text(PARTS)
    (own.packages / "acme" / "broken.py").write_text("import a_package_that_nobody_has\n")
    own.write("experiment/acme.yaml", EXPERIMENT)
    write_tiny_heart(own.cohorts)
    for name in ("north", "south"):
        own.write(f"sites/{name}.yaml", f"# @package sites.{name}\nroot: {own.cohort(name)}\npolicy: public_data\n")
    monkeypatch.setenv("PYTHONPATH", str(own.packages))
    monkeypatch.syspath_prepend(str(own.packages))
    for name in [each for each in sys.modules if each.split(".")[0] == "acme"]:
        monkeypatch.delitem(sys.modules, name)
    return own


@pytest.fixture(scope="session")
def short() -> Iterator[Path]:
    """A folder with a short name, for the sockets of Ray, whose paths hold 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        yield Path(name)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, also those of started processes."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """What starts a kit narrows the umask of its process, which here goes on to other tests."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)
