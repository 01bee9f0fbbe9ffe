"""What several devices at a site cannot do: named before the run, by the coordinator's check and by the site itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flip.config.checks.optimization import configured
from flip.config.schema import Site
from flip.config.study import Manifest
from flip.privacy import Mechanism, private_among

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule

SCALED = ("16", "16-mixed", "16-true")
"""Precisions whose losses are scaled by what one device has seen."""


def device_problems(site: Site, *, here: bool) -> Iterator[str]:
    """What is wrong with `devices` in a site's file, each after its key; `here`: they are those of this machine."""
    number = site.devices
    if number < 1:
        yield f"devices: {number} must be 1 or more: how many devices of the accelerator train, one process each"
    if number < 2:
        return
    if site.accelerator not in ("cpu", "gpu", "cuda"):
        yield f"devices: {number} of accelerator: {site.accelerator}; write gpu, or devices: 1"
    elif here and site.accelerator != "cpu":
        import torch

        if number > (found := torch.cuda.device_count()):
            yield f"devices: {number}, and torch finds {found} on this machine; write at most {max(found, 1)}"
    if site.precision in SCALED:
        yield f"devices: {number} and precision: {site.precision}, which each device scales by itself; write bf16-mixed"


def unfit_devices(
    site: Site,
    manifest: Manifest,
    module: "TrainableModule",
    mechanisms: Sequence[Mechanism],
    settings: Mapping[str, object],
) -> str:
    """Why a study cannot train over a site's devices; empty where it can. `settings` are the Trainer's."""
    import torch

    if site.devices < 2:
        return ""
    if private_among(mechanisms) is not None:
        return "its privacy mechanism draws its batches and noise on one device; set devices: 1"
    if (precision := str(site.precision or settings.get("precision"))) in SCALED:
        return f"precision: {precision} is scaled by each device by itself; set precision: bf16-mixed, or devices: 1"
    made = configured(manifest, module, [])
    if made and any(isinstance(each, torch.optim.LBFGS) for each in made[0]):
        return "LBFGS chooses its steps by the loss of one device; choose another optimizer, or devices: 1"
    return ""


def loader_problem(loader: "Loader") -> str:
    """Why the batches of a loader cannot be dealt out over devices; empty where they can."""
    from torch.utils.data import IterableDataset

    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return "the dataset gives its rows one after the other, so that no batch can be dealt out; set devices: 1"
    return ""
