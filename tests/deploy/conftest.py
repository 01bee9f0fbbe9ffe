"""Kits of two hospitals that have made their own keys, made once and copied for each test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.kits import BACKENDS, fresh


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of such kits, of each backend."""
    places = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    for backend, place in places.items():
        fresh(place, backend)
    return places


@pytest.fixture
def deployed(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a backend's kits, of the requests and of the sites' own folders."""

    def copied(backend: str) -> Path:
        shutil.copytree(made[backend], tmp_path, dirs_exist_ok=True)
        return tmp_path / "kits"

    return copied
