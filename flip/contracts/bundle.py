"""What the engine asks of a study's classes to hand their model on as a MONAI Bundle, which runs without the engine.

A configuration is plain values as `monai.bundle` reads them, without expressions (`$`). A `_target_` in `models` or
`datamodules` is copied into the bundle with the files that it imports of these two packages, so those files import
nothing else but what a bundle may ask for: torch, MONAI, numpy, scipy, nibabel.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

Config = Mapping[str, Any]


class Inference(TypedDict):
    """How a bundle predicts."""

    network: str  # attribute of the module that is the network, of which the bundle holds the weights
    patch: Sequence[int]  # shape of what the network takes at once, channels first
    outputs: Sequence[str]  # names of the channels of its output
    evaluator: Config  # what predicts by `run()`; added are dataset, network, weights, postprocessing and device
    modality: NotRequired[str]  # of the dataset's images, which an export adds
    postprocessing: Sequence[Config]  # transforms of {"pred": what was found}, in order


@runtime_checkable
class SaysPreprocessing(Protocol):
    """A dataset that can say, once it has taken the agreed sums, how an image becomes input as MONAI's transforms."""

    bundle_modality: str  # of the images, as DICOM writes it; empty where they have none

    def bundle_preprocessing(self) -> Sequence[Config]:
        """Transforms of `{"image": a folder of DICOM}`, in order. Raises ValueError, with the reason, if it cannot."""


@runtime_checkable
class RefusesBundle(Protocol):
    """A dataset whose preparation cannot be said so."""

    no_bundle: str  # why, as the end of a sentence


@runtime_checkable
class SaysInference(Protocol):
    """A module that can say how a bundle predicts with its network."""

    def bundle_inference(self) -> Inference:
        """How."""
