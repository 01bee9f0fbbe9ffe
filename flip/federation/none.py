"""Training without federation: one hospital on its own data, or in simulation the sites' data pooled."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flip.config.build import initial_module
from flip.contracts import FederatedDataModule, ScaledForPooling
from flip.coordinator.loop import Coordinator
from flip.errors import StudyFailed
from flip.files import CENTRALIZED, POOLED
from flip.messages import Ask, Payload, Task
from flip.messages.match import begin_from
from flip.runs.recorder import POOLED_LINE
from flip.site.refusal import Refusal
from flip.site.silo import Silo

if TYPE_CHECKING:
    import torch

    from flip.contracts.dataset import Loader


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
    from flip.site.centralized import fit_centralized
    from flip.site.fit import centralized, device_of

    manifest, baseline = json.loads(coordinator.roster.manifest), prefix != "test"
    names = coordinator.roster.sites(training=True)
    data = [taken_out(silos[name], coordinator.roster.task("fit", 0, {})) for name in names]
    train, validate = split_loaders(data)
    module = initial_module(manifest, centralized=True)
    begin_from(module, coordinator.start)
    coordinator.roster.pooled = not baseline  # the study's own weights, those that the run keeps
    record = epoch_recorder(coordinator, module, CENTRALIZED if baseline else "fit")
    how = replace(centralized(manifest, folder, resume), record=record)
    seed_fit(manifest["seed"], POOLED, 0)
    fit_centralized(
        module,
        pooled_loader(train, shuffle=True),
        pooled_loader(validate, shuffle=False),
        device=device_of(manifest, silos[names[0]].site),
        how=how,
    )
    weights, stage = to_arrays(module), CENTRALIZED if baseline else "test"
    coordinator.evaluation.test(ask, stage, weights, prefix, pooled=True, main=not baseline)
    return weights


def taken_out(silo: Silo, task: Task) -> FederatedDataModule:
    """A site's data, by its own rules. Raises StudyFailed where it does not give them; its log says why."""
    try:
        return silo.datamodule(task)
    except Refusal as refusal:
        raise StudyFailed(f"{silo.name}: {refusal.fault.value}", [refusal.fault]) from refusal


def epoch_recorder(
    coordinator: Coordinator, module: "torch.nn.Module", phase: str
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


def split_loaders(data: Sequence[FederatedDataModule]) -> "tuple[list[Loader], list[Loader]]":
    """The sites' loaders to train and to validate on, as scaled for the pooled cohort where a dataset has such."""
    train, validate = [], []
    for each in data:
        if isinstance(each, ScaledForPooling):
            train.append(each.pooled_train_dataloader())
            validate.append(each.pooled_val_dataloader())
        else:
            train.append(each.train_dataloader())
            validate.append(each.val_dataloader())
    return train, [cast("Loader", loader) for loader in validate if loader]


def pooled_loader(loaders: "Sequence[Loader]", *, shuffle: bool) -> "Loader | None":
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
