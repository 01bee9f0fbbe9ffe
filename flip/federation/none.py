"""Training without federation: one hospital on its own data, or in simulation the sites' data pooled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flip.config.build import initial_module
from flip.coordinator.loop import Coordinator
from flip.files import POOLED
from flip.messages import Ask, Payload
from flip.runs.recorder import POOLED_LINE
from flip.site.silo import Silo


def train_pooled(
    coordinator: Coordinator,
    ask: Ask,
    silos: Mapping[str, Silo],
    *,
    folder: Path,
    prefix: str,
    resume: Path | None = None,
) -> Payload:
    """Train one model on the pooled training data of the sites, test it at each site; returns its weights.

    `prefix` starts the names of the test metrics ("test" where this is the study itself, not a baseline); `folder`
    receives what the study's callbacks write. `resume` is a checkpoint of Lightning's to go on from.
    """
    from flip.determinism import seed_fit
    from flip.messages.weights import to_arrays
    from flip.site.fit import centralized, device_of
    from flip.site.trainer import fit_centralized

    manifest, baseline = json.loads(coordinator.roster.manifest), prefix != "test"
    names = coordinator.roster.sites(training=True)
    data = [silos[name].datamodule(coordinator.roster.task("fit", 0, {})) for name in names]
    train = [getattr(each, "pooled_train_dataloader", each.train_dataloader)() for each in data]
    validate = [loader for each in data if (loader := getattr(each, "pooled_val_dataloader", each.val_dataloader)())]
    module = initial_module(manifest, centralized=True)
    how = replace(
        centralized(manifest, folder, resume), record=epoch_recorder(coordinator, module, POOLED if baseline else "fit")
    )
    seed_fit(manifest["seed"], POOLED, 0)
    fit_centralized(
        module,
        pooled_loader(train, shuffle=True),
        pooled_loader(validate, shuffle=False),
        device=device_of(manifest, silos[names[0]].site),
        how=how,
    )
    weights = to_arrays(module)
    coordinator.evaluation.test(ask, POOLED if baseline else "test", weights, prefix)
    return weights


def epoch_recorder(
    coordinator: Coordinator, module: Any, phase: str
) -> Callable[[int, int, Mapping[str, float], Mapping[str, float]], None]:
    """Write the lines of a pass over the pooled data: training, and validation where there is any; keep the best."""
    from flip.messages.weights import to_arrays

    def record(epoch: int, examples: int, trained: Mapping[str, float], validated: Mapping[str, float]) -> None:
        line = {**POOLED_LINE, "round": epoch, "phase": phase, "examples": examples, "metrics": dict(trained)}
        coordinator.roster.recorder.line(line)
        if phase == "fit":
            coordinator.rounds_done = epoch + 1
            if validated:
                coordinator.roster.recorder.line({**line, "phase": "validate", "metrics": dict(validated)})
                coordinator.evaluation.keep_best(validated, lambda: to_arrays(module))

    return record


def pooled_loader(loaders: list[Any], *, shuffle: bool) -> Any:
    """One loader over the sites' datasets, with the batch size and collation of the first; None without any."""
    from torch.utils.data import ConcatDataset, DataLoader

    if not loaders:
        return None
    first = loaders[0]
    if len(loaders) == 1:
        return first
    return DataLoader(
        ConcatDataset([each.dataset for each in loaders]),
        batch_size=first.batch_size,
        shuffle=shuffle,
        collate_fn=first.collate_fn,
        num_workers=first.num_workers,
        drop_last=first.drop_last,
    )
