"""What goes with a model that is applied: what is known of it, and the models that the outcomes use beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from flip.messages import Payload
from flip.messages.model_file import ModelFile
from flip.messages.weights import digest
from flip.messages.wire import join, take

APPLIED = "applied"  # how the names of these arrays in a task's state begin


@dataclass(frozen=True)
class Applied:
    """A model that is applied.

    Attributes:
        digest: sha256 of its weights.
        scores: its metrics where it was evaluated, by the names of `result.json`.
        companions: models of other studies that the study's outcomes use besides, by the outcomes' name for each.
    """

    digest: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    companions: Mapping[str, ModelFile] = field(default_factory=dict)

    def state(self) -> Payload:
        """As arrays of a task."""
        manifests = {name: each.manifest for name, each in self.companions.items()}
        about = json.dumps({"digest": self.digest, "scores": dict(self.scores), "manifests": manifests})
        weights = {
            f"{name}/{key}": array for name, each in self.companions.items() for key, array in each.weights.items()
        }
        return join(**{APPLIED: {"about": np.frombuffer(about.encode(), np.uint8), **weights}})

    @classmethod
    def of(cls, state: Payload) -> "Applied":
        """From the arrays of a task; empty where it has none."""
        found = dict(take(state, APPLIED))
        if "about" not in found:
            return cls()
        about = json.loads(found.pop("about").tobytes())
        companions = {}
        for name, manifest in about["manifests"].items():
            weights = take(found, name)
            companions[name] = ModelFile(weights, {}, manifest, digest(weights))
        return cls(about["digest"], about["scores"], companions)
