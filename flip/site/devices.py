"""Several devices at a site: one process each, which train on their share of every batch and step alike.

A batch of the study is dealt out over the processes, whose gradients are summed before each step: of a loss that is a
mean over rows the sum is the gradient of the whole batch, so that a site's file changes how fast a study trains and not
what it trains. Li S et al., PyTorch Distributed, 2020 (arXiv:2006.15704), without its wrapper of the module, which
would rename the weights and weigh a short share as a full one. The processes meet in a file and speak over loopback.
"""

import copy
import multiprocessing
import os
import random
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flip.config.checks.devices import loader_problem
from flip.determinism import configure_torch, stable_seed
from flip.errors import UserError
from flip.messages.safetensors import pack, unpack
from flip.messages.weights import digest, load_arrays, to_arrays
from flip.processes import end_with_parent
from flip.site.audit import current, under
from flip.site.audit_events import Guard
from flip.site.persons import PERSON
from flip.site.share import Callback, Share, join, shared_batches
from flip.site.trainer import Device, RoundCallback, fit_round

if TYPE_CHECKING:
    import pytorch_lightning as lightning

    from flip.contracts.dataset import Loader


@dataclass(frozen=True)
class Part:
    """What one process needs: its number of so many, where they meet, and the generators of the fit."""

    number: int
    of: int
    meeting: str
    threads: int
    guard: Guard | None
    seeds: tuple[Any, ...]


def fit_on(
    module: "lightning.LightningModule",
    loader: "Loader",
    *,
    steps: int,
    device: Device,
    callback: RoundCallback,
) -> None:
    """Train as `flip.site.trainer.fit_round` does, by `device.devices` processes; one is this process itself.

    Raises UserError for a loader whose batches cannot be dealt out, for what a process raised, and where the processes
    ended with other weights: then a learning rate or a step hung on what one of them saw alone.
    """
    if device.devices == 1:
        fit_round(module, loader, steps=steps, device=device, callback=callback)
        return
    if problem := loader_problem(loader):
        raise UserError(f"devices: {device.devices} in the site's file: {problem}")
    with tempfile.TemporaryDirectory() as folder, no_daemon():
        seeds = torch.get_rng_state(), np.random.get_state(), random.getstate(), torch.initial_seed()
        meeting, of = str(Path(folder) / "meeting"), device.devices
        parts = [Part(each, of, meeting, torch.get_num_threads(), current(), seeds) for each in range(of)]
        results = started(parts, (module, loader, steps, device, callback))
    ends = {digest(each["weights"]) for each in results}
    if len(ends) > 1:
        raise UserError(
            f"devices: {of} in the site's file: the devices did not step alike, as under a learning rate that waits "
            "for a number of its own batches; set devices: 1"
        )
    load_arrays(module, results[0]["weights"])
    callback.optimizer_arrays = results[0]["optimizer"]
    callback.learning_rate = float(results[0]["fit"]["rate"])
    replay([each["fit"] for each in results], callback)


def replay(fits: list[dict[str, np.ndarray]], callback: RoundCallback) -> None:
    """Tell the fit of the site its batches, as they were before they were dealt out."""
    losses = np.sum([each["losses"] for each in fits], axis=0)
    ends_of = [np.cumsum(each["rows"]) for each in fits]
    for number, loss in enumerate(losses):
        whose = [
            each["whose"][end[number] - each["rows"][number] : end[number]]
            for each, end in zip(fits, ends_of, strict=True)
        ]
        known = all(len(each) for each in whose)
        batch = {PERSON: torch.from_numpy(np.concatenate(whose))} if known else None
        callback.batch_done(batch, {"loss": torch.tensor(float(loss))})


def started(parts: list[Part], what: tuple[object, ...]) -> list[dict[str, dict[str, np.ndarray]]]:
    """Start a process for each part, and give what they ended with, in their order. Raises UserError."""
    spawn = multiprocessing.get_context("spawn")  # a fork has no device, nor the threads that torch waits for
    processes, pipes = [], []
    try:
        with on_loopback():
            for part in parts:
                here, there = spawn.Pipe(duplex=False)
                process = spawn.Process(target=run, args=(there, part, *what), daemon=True)
                process.start()
                there.close()
                processes.append(process)
                pipes.append(here)
        found: dict[int, dict[str, dict[str, np.ndarray]]] = {}
        while len(found) < len(parts):
            for pipe in wait([each for number, each in enumerate(pipes) if number not in found]):
                found[pipes.index(pipe)] = received(pipe, len(parts))  # type: ignore[arg-type]
        return [found[number] for number in range(len(parts))]
    finally:
        for process in processes:
            process.kill()
            process.join()


def received(pipe: Connection, of: int) -> dict[str, dict[str, np.ndarray]]:
    """What one process says at its end."""
    try:
        kinds = {kind: unpack(pipe.recv_bytes())[0] for kind in ("error", "weights", "optimizer", "fit")}
    except EOFError:
        raise UserError(f"devices: {of} in the site's file: a process ended in the midst of its fit") from None
    if kinds["error"]:
        text = bytes(kinds["error"]["text"]).decode()
        raise UserError(f"devices: {of} in the site's file: {text}")
    return kinds


def run(
    pipe: Connection,
    part: Part,
    module: "lightning.LightningModule",
    loader: "Loader",
    steps: int,
    device: Device,
    callback: RoundCallback,
) -> None:
    """In the process of one device: train, and say with what it ended."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    configure_torch(part.threads)
    found: dict[str, Mapping[str, np.ndarray]] = {"error": {}, "weights": {}, "optimizer": {}, "fit": {}}
    try:
        with under(part.guard):
            found |= trained(part, copy.deepcopy(module), loader, steps, device, callback)  # the memory came shared
    except Exception as error:  # whatever it raises is told by the process that started it
        text = f"{type(error).__name__}: {error}"
        found["error"] = {"text": np.frombuffer(text.encode(), np.uint8)}
    for arrays in found.values():
        pipe.send_bytes(pack(arrays, {}))


def trained(
    part: Part,
    module: "lightning.LightningModule",
    loader: "Loader",
    steps: int,
    device: Device,
    callback: RoundCallback,
) -> dict[str, Mapping[str, np.ndarray]]:
    """The fit of one part, in step with the others."""
    index = None if device.accelerator == "cpu" else part.number
    share = Share(part.number, part.of)
    with join(part.meeting, share, index):
        seed_device(part)
        own = Callback(callback, share)
        share.weigh(module)
        fit_round(
            module,
            shared_batches(loader, share),
            steps=steps,
            device=replace(device, devices=1, index=index),
            callback=own,
        )
        share.mean_buffers(module)
    return {"weights": to_arrays(module), "optimizer": own.optimizer_arrays, "fit": own.seen()}


def seed_device(part: Part) -> None:
    """Set the generators as the fit has them, and otherwise at each further device, as for the noise of dropout."""
    torch.set_rng_state(part.seeds[0])
    np.random.set_state(part.seeds[1])
    random.setstate(part.seeds[2])
    if part.number:
        seed = stable_seed(part.seeds[3], "device", part.number) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have the libraries that pass gradients on listen on loopback alone, in the processes that the block starts."""
    names = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


@contextmanager
def no_daemon() -> Iterator[None]:
    """Let a worker of the simulation start processes, which Python keeps from a daemon: here they end with it."""
    config: dict[str, object] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before
