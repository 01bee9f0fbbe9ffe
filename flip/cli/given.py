"""Models that were trained elsewhere, brought into a run's folder: to be applied, or for training to begin from."""

from pathlib import Path
from typing import TYPE_CHECKING

from flip.config import build
from flip.config.bundle import read_model
from flip.config.schema import SITES
from flip.files import write_atomic
from flip.messages.applied import Applied
from flip.messages.match import match
from flip.messages.model_file import ModelFile, load_model
from flip.messages.weights_file import read_weights
from flip.runs.models import keep_models, keep_start, stay
from flip.runs.scores import scores_of

if TYPE_CHECKING:
    from flip.config.study import Study


def bring(study: "Study", folder: Path) -> list[str]:
    """Keep in a run's folder what the study brings; what training takes of its start, in words, also in `init.txt`."""
    from flip.messages.weights import digest, to_arrays

    keep_models(folder, [read_model(path) for path in study.model_from])
    if study.given_at == SITES:
        stay(folder)
    if study.init is None:
        return []
    start = read_weights(study.init)
    keep_start(folder, start)
    words = [f"sha256: {digest(start)}", *match(to_arrays(build.initial_module(study.manifest)), start).lines()]
    write_atomic(folder / "init.txt", ("\n".join(words) + "\n").encode())
    return words


def applied(study: "Study", model: ModelFile) -> Applied:
    """What goes with the one model that a job applies. Raises UserError for a companion that cannot be read."""
    companions = {name: load_model(path) for name, path in study.companions.items()}
    return Applied(model.digest, scores_of(study.model_from[0], model), companions)
