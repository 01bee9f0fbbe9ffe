"""A model's file: weights, and with them all that another hospital needs to read its rows as the training did.

A safetensors file: the weights under their own names, what the sites agreed on before the first round (means, levels,
vocabulary, percentiles) under `agreed/NAME`, and a head of JSON with `manifest`, `digest` (of the weights alone, as
`result.json` has it), `pooled`, and `scores`, free for what is found of the model later.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip.errors import UserError
from flip.messages import Payload
from flip.messages.safetensors import load_file, save_file
from flip.messages.weights import LAST_WEIGHTS, digest
from flip.messages.wire import take

AGREED = "agreed/"
BUNDLE = Path("configs") / "metadata.json"  # in the folder of a MONAI Bundle
REMEDY = "name the folder of a finished run, or the weights/last.safetensors or weights/best.safetensors of one"


@dataclass(frozen=True)
class ModelFile:
    """A trained model.

    Attributes:
        weights: those of the model that travel (`strategy.share`), by their names in its state.
        agreed: the sums over all sites by which rows are prepared, as the dataset's `agree` takes them.
        manifest: the study that trained it.
        digest: sha256 of the weights alone: by it a hospital's policy names them, for a training to begin from.
        pooled: it was trained on the pooled cohort, so that rows are scaled as those were (`ScaledForPooling`).
        scores: what is known of it besides; `threshold`: from which probability on it decides yes, or None.
    """

    weights: Payload
    agreed: Payload
    manifest: Mapping[str, Any]
    digest: str
    pooled: bool = False
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_digest(self) -> str:
        """Sha256 by which a hospital's policy names the model, to be applied."""
        return digest_of_both(self.digest, self.agreed)


def model_digest(weights: Payload, agreed: Payload) -> str:
    """Sha256 of a model with what its rows are prepared by: the same weights on rows scaled otherwise are another.

    It is never that of weights alone, so that who permits these to begin from has not permitted them to be applied.
    """
    return digest_of_both(digest(weights), agreed)


def digest_of_both(weights: str, agreed: Payload) -> str:
    """The same, from the digest of the weights."""
    return hashlib.sha256(f"model {weights} {digest(agreed)}".encode()).hexdigest()


def save_model(path: Path, model: ModelFile) -> None:
    """Write a model's file, atomically."""
    head = {name: getattr(model, name) for name in ("manifest", "digest", "pooled", "scores")}
    save_file(path, {**model.weights, **{AGREED + name: array for name, array in model.agreed.items()}}, head)


def load_model(path: Path) -> ModelFile:
    """Read a model's file, or that of the finished run whose folder it is; its arrays lie in the file.

    Raises UserError, with the remedy, for anything else, and for a file that was changed.
    """
    file = path / LAST_WEIGHTS if path.is_dir() else path
    if not file.is_file() and (path / BUNDLE).is_file():
        raise UserError(
            f"{path} is a MONAI Bundle, which says nothing of what sites agreed on; train from it (init={path}), or "
            "name the run that it was exported from"
        )
    if not file.is_file():
        missing = f"holds no {LAST_WEIGHTS}" if path.is_dir() else "is no file on this machine"
        raise UserError(f"{path} {missing}; {REMEDY}")
    try:
        arrays, head = load_file(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: is no model's file of a run's, or is cut off; {REMEDY}") from error
    if not isinstance(manifest := head.get("manifest"), dict):
        raise UserError(
            f"{file}: says nothing of the study that trained it, as the files of earlier versions; {REMEDY}"
        )
    weights = {name: array for name, array in arrays.items() if not name.startswith(AGREED)}
    agreed, pooled, scores = take(arrays, AGREED[:-1]), head.get("pooled"), head.get("scores")
    if digest(weights) != head.get("digest") or not isinstance(pooled, bool) or not isinstance(scores, dict):
        raise UserError(f"{file}: its weights are not those that it was written with; restore it from a copy")
    return ModelFile(weights, agreed, manifest, str(head["digest"]), pooled, scores)


def model_of(
    weights: Payload, agreed: Payload, manifest: str, *, pooled: bool, scores: Mapping[str, Any] | None = None
) -> ModelFile:
    """A model as it is written: `manifest` is canonical JSON."""
    return ModelFile(weights, agreed, json.loads(manifest), digest(weights), pooled, scores or {})
