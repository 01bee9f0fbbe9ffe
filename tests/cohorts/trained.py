"""A finished run on tiny heart disease, for what is done with its model."""

import json
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


def trained_on(data: Path, folder: Path, *words: str) -> Path:
    """The folder of a run over rounds."""
    assert execute(tiny_heart_study(data, "federation=inprocess", *words), folder)["status"] == "ok"
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found
