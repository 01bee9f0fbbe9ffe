"""What the engine does with the loaders of a dataset."""

from collections.abc import Sized
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader


def batched_alike(loader: "Loader", **batches: object) -> "Loader":
    """A loader of the same data by the same workers, in other batches (`batch_sampler`, `collate_fn`)."""
    from torch.utils.data import DataLoader

    names = ["num_workers", "pin_memory", "timeout", "worker_init_fn", "generator", "collate_fn"]
    names += ["multiprocessing_context", "prefetch_factor", "persistent_workers"] if loader.num_workers else []
    settings: Any = {name: getattr(loader, name) for name in names} | batches
    return DataLoader(loader.dataset, **settings)


def examples_in(loader: "Loader") -> int:
    """Number of examples that a loader is over."""
    return len(cast("Sized", loader.dataset))
