"""The scores of a trained model, where they are known."""

import json
from collections.abc import Mapping
from pathlib import Path

from flip.messages.model_file import ModelFile


def scores_of(path: Path, model: ModelFile) -> Mapping[str, float]:
    """A model's metrics by the names of `result.json`: those of the run that it is read from, and its file's own.

    `path` is the run's folder, or a file of its weights.
    """
    result = (path if path.is_dir() else path.parent.parent) / "result.json"
    of_run = json.loads(result.read_text()).get("metrics") or {} if result.is_file() else {}
    return {name: float(value) for name, value in {**of_run, **model.scores}.items() if isinstance(value, int | float)}
