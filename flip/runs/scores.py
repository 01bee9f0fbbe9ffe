"""The scores of a trained model, where they are known."""

import json
from collections.abc import Mapping
from pathlib import Path

from flip.messages.model_file import ModelFile


def scores_of(path: Path, model: ModelFile) -> Mapping[str, float]:
    """A model's metrics by the names of `result.json`: its file's own, else those of the run that it was read from.

    None where neither has any. `path` is the run's folder, or a file of its weights.
    """
    result = (path if path.is_dir() else path.parent.parent) / "result.json"
    if model.scores:
        known = model.scores
    elif result.is_file():
        known = json.loads(result.read_text()).get("metrics") or {}
    else:
        known = {}
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
