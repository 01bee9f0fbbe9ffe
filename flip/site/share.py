"""One device's share of a fit: its rows of every batch, and the gradients that it sums with the others'."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import distributed

from flip.contracts.loaders import batched_alike
from flip.site.persons import PERSON
from flip.site.plain_loop import step_of
from flip.site.trainer import RoundCallback

if TYPE_CHECKING:
    import pytorch_lightning as lightning

    from flip.contracts.dataset import Loader

PATIENCE = timedelta(hours=1)  # that a device waits for the slowest one's batch


@contextmanager
def join(meeting: str, share: "Share", index: int | None) -> Iterator[None]:
    """Meet the other processes in a file; a device other than the processor is known by its index."""
    backend = "gloo" if index is None else "cpu:gloo,cuda:nccl"
    if index is not None:
        torch.cuda.set_device(index)
    store = distributed.FileStore(meeting, share.of)  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=share.number, world_size=share.of, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


class Share:
    """What the process `number` of `of` takes of each batch, and what it weighs there: its part of the rows."""

    def __init__(self, number: int, of: int) -> None:
        self.number, self.of = number, of
        self.weights: deque[float] = deque()

    def rows(self, batch: Sequence[int]) -> list[int]:
        """Every `of`-th row; of a batch with fewer rows than devices one that weighs nothing."""
        own = [*batch[self.number :: self.of]]
        self.weights.append(len(own) / len(batch))
        return own or [batch[0]]

    def weigh(self, module: "lightning.LightningModule") -> None:
        """Have the losses of a module's training count as much as the rows that they are of."""
        step = step_of(module, "training_step")

        def training_step(batch: object, batch_idx: int) -> object:
            output, weight = step(batch, batch_idx), self.weights.popleft()
            if isinstance(output, Mapping):
                return {**output, "loss": output["loss"] * weight}
            return None if output is None else output * weight

        module.training_step = training_step  # type: ignore[method-assign, assignment]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum over all devices in place of each gradient; what none has a gradient of keeps none."""
        if not parameters:
            return
        there = torch.tensor([float(each.grad is not None) for each in parameters], device=parameters[0].device)
        distributed.all_reduce(there)
        moved = [each for each, number in zip(parameters, there.tolist(), strict=True) if number]
        for kind in dict.fromkeys(each.dtype for each in moved):
            alike = [each for each in moved if each.dtype is kind]
            flat = torch.cat([_gradient(each).reshape(-1) for each in alike])
            distributed.all_reduce(flat)
            for each, part in zip(alike, flat.split([each.numel() for each in alike]), strict=True):
                each.grad = part.reshape(each.shape).clone()

    def mean_buffers(self, module: torch.nn.Module) -> None:
        """Give a module the mean of what the devices have counted in its buffers, as batch norm's means."""
        for each in module.buffers():
            if each.is_floating_point():
                distributed.all_reduce(each)
                each /= self.of


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class SharedBatches:
    """The batches of a sampler, as the first process draws them, each cut down to a share."""

    def __init__(self, batches: Iterable[list[int]], share: Share) -> None:
        self.batches, self.share = batches, share

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # a sampler of batches has one

    def __iter__(self) -> Iterator[list[int]]:
        drawn = [*map(list, self.batches)] if self.share.number == 0 else []
        sizes = broadcast([len(batch) for batch in drawn])
        rows = iter(broadcast([row for batch in drawn for row in batch]))
        self.share.weights.clear()
        for size in sizes:
            yield self.share.rows([*islice(rows, size)])


def broadcast(numbers: list[int]) -> list[int]:
    """The whole numbers of the first process, in each of them: as tensors, since objects would travel as pickle."""
    count = torch.tensor([len(numbers)])
    distributed.broadcast(count, src=0)
    told = torch.zeros(int(count), dtype=torch.int64)
    told[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    distributed.broadcast(told, src=0)
    return [int(number) for number in told]


def shared_batches(loader: "Loader", share: Share) -> "Loader":
    """A loader of a share of each batch of a loader."""
    return batched_alike(loader, batch_sampler=SharedBatches(cast(Iterable[list[int]], loader.batch_sampler), share))


class Callback(RoundCallback):
    """The fit of a share, as the strategy sees the whole: gradients are corrected once they are summed."""

    def __init__(self, whole: RoundCallback, share: Share) -> None:
        super().__init__(whole.correct, keeps=whole.keeps, before=whole.before, passes=whole.passes)
        self.share = share
        self.losses: list[torch.Tensor] = []
        self.whose: list[torch.Tensor] = []

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Sum the gradients over the devices, then correct them."""
        self.share.sum_gradients([each for group in optimizer.param_groups for each in group["params"]])
        super().before_step(optimizer)

    def batch_done(self, batch: object, outputs: object) -> None:
        """Note the loss of a share, and whose it is; none stands for a batch without loss, as NaN."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self.losses.append(loss.detach().float() if isinstance(loss, torch.Tensor) else torch.tensor(float("nan")))
        known = isinstance(batch, Mapping) and PERSON in batch
        self.whose.append(batch[PERSON].cpu() if known else torch.zeros(0, dtype=torch.int64))  # type: ignore[index]

    def seen(self) -> dict[str, np.ndarray]:
        """Learning rate, losses [batches], and whose the rows were: codes of all batches, and how many each has."""
        whose = torch.cat(self.whose) if self.whose else torch.zeros(0, dtype=torch.int64)
        return {
            "rate": np.array(self.learning_rate),
            "losses": torch.stack([each.cpu() for each in self.losses]).numpy().astype(np.float64),
            "rows": np.array([len(each) for each in self.whose], np.int64),
            "whose": whose.numpy().astype(np.int64),
        }
