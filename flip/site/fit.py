"""One fit at a site: seeds, the strategy's and the mechanisms' halves, Lightning, what is kept and returned."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flip.config import build
from flip.config.schema import OptimizerState, Site
from flip.config.study import Manifest
from flip.contracts import FederatedDataModule
from flip.contracts.loaders import examples_in
from flip.determinism import seed_fit
from flip.files import FINE_TUNED
from flip.messages import Fault, Task
from flip.messages.weights import load_arrays, to_arrays
from flip.privacy import PrivateFit, private_among
from flip.site.admission import OWN, Loaded, Place
from flip.site.batches import without_single
from flip.site.bounds import refuse_batches, refuse_steps
from flip.site.centralized import CentralizedFit, fit_centralized
from flip.site.devices import fit_on
from flip.site.disclosure import refuse_few, suppress_metrics
from flip.site.private_fit import Privacy
from flip.site.received_weights import keep_alone, keep_final, refuse_pull
from flip.site.refusal import Refusal
from flip.site.state import LocalState
from flip.site.trainer import Device, RoundCallback, passes, updates
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule


Fields = dict[str, Any]  # of a reply, with `persons`


@dataclass
class SiteLocal:
    """What the strategy's half may use during one fit (`flip.strategies.fedavg.Local`)."""

    store: LocalState
    round: int
    steps: int
    learning_rate: float = float("nan")
    loaded: dict[str, np.ndarray] = field(default_factory=dict)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays of the latest earlier round."""
        found = self.store.load(f"strategy-{name}", self.round)
        self.loaded |= {f"{name}/{key}": array for key, array in (found or {}).items()}
        return found

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays for the next rounds."""
        self.store.save(f"strategy-{name}", self.round, arrays)


@dataclass
class LocalFit:
    """One task "fit" at one site, on what the site has loaded."""

    place: Place
    loaded: Loaded
    store: LocalState
    task: Task

    @property
    def manifest(self) -> Manifest:
        """The study."""
        return self.loaded.manifest

    @property
    def privacy(self) -> Privacy:
        """The study's privacy mechanisms, for this task."""
        return Privacy(self.place, self.loaded, self.task)

    def afford(self) -> None:
        """Raises Refusal where all rounds together would spend more privacy than the site has left for its data."""
        if not self.loaded.mechanisms or not (train := self.loaded.datamodule.train_dataloader()):
            return
        trainer, train = self.manifest["trainer"], self.batches(self.loaded.module)
        steps = updates(
            train, device_of(self.manifest, self.place.site), steps=trainer["steps"], epochs=trainer["epochs"]
        )
        self.privacy.afford(train, steps * self.loaded.strategy.rounds)

    def round(self) -> Fields:
        """One federated round; returns the fields of the reply, and how many persons its batches were of.

        Raises Refusal, before anything is kept, where they were too few.
        """
        trainer, strategy, module = self.manifest["trainer"], self.loaded.strategy, self.loaded.module
        device, train = device_of(self.manifest, self.place.site), self.batches(module)
        steps = updates(train, device, steps=trainer["steps"], epochs=trainer["epochs"])
        keep = trainer["optimizer_state"] == OptimizerState.keep.value
        local = SiteLocal(self.store, self.task.round, steps)
        refuse_steps(self.loaded.policy, steps if strategy.own is None else 2 * steps)
        refuse_pull(self.loaded, self.task, steps)
        self.privacy.afford(train, steps * strategy.rounds)
        shared, own_model = strategy.shared(module), self.own_model(train, steps)
        strategy.before_fit(local, self.task)
        seed_fit(self.manifest["seed"], self.place.name, self.task.round)
        kept = self.store.load("optimizer", self.task.round) if keep else None
        personal = self.store.load("personal", self.task.round) or {}
        own = {**local.loaded, **(kept or {}), **personal}
        private = self.privacy.protect(module, train, own, steps=steps, planned=steps * strategy.rounds)
        corrects = type(strategy).correct is not FedAvg.correct
        whole = passes(train, device, steps)
        callback = RoundCallback(strategy.correct if corrects else None, keeps=keep, before=kept, passes=whole)
        fit_on(private.module, private.loader, steps=steps, device=device, callback=callback)
        local.learning_rate = callback.learning_rate
        everything = self._weights(module, callback)
        after = {key: everything.pop(key) for key in shared}
        state = strategy.after_fit(local, self.task.weights, after)
        if everything:
            self.store.save("personal", self.task.round, everything)
        if own_model:
            self.store.save(OWN, self.task.round, own_model)
        if keep:
            self.store.save("optimizer", self.task.round, callback.optimizer_arrays)
        return {**self._fields(train, callback, private), "weights": after, "state": state}

    def own_model(self, train: "Loader", steps: int) -> dict[str, np.ndarray]:
        """Train the whole model that a strategy has this site keep for itself, on the batches of the round.

        Before its first round it is the sent one. Returns its weights; the module holds the sent ones again.
        """
        module, strategy = self.loaded.module, self.loaded.strategy.own
        if strategy is None:
            return {}
        load_arrays(module, self.store.load(OWN, self.task.round) or {})
        strategy.before_fit(SiteLocal(self.store, self.task.round, steps), self.task)
        seed_fit(self.manifest["seed"], self.place.name, self.task.round)
        device = device_of(self.manifest, self.place.site)
        callback = RoundCallback(strategy.correct, passes=passes(train, device, steps))
        fit_on(module, train, steps=steps, device=device, callback=callback)
        weights = to_arrays(module)
        self.loaded.receive(self.task, self.store)
        return weights

    def alone(self, module: "TrainableModule") -> Fields:
        """The whole training of this site without the others; returns and raises what `round` does."""
        how = centralized(self.manifest, self.store.folder)
        device, train = device_of(self.manifest, self.place.site), self.batches(module)
        steps = updates(train, device, steps=None, epochs=how.max_epochs)
        refuse_steps(self.loaded.policy, steps, rounds=self.loaded.strategy.rounds)
        seed_fit(self.manifest["seed"], self.place.name, 0)
        private = self.privacy.protect(module, train, {}, steps=steps, planned=steps)
        validate = self.loaded.datamodule.val_dataloader() or None
        callback = fit_centralized(private.module, private.loader, validate, device=device, how=how)
        weights = self._weights(module, callback)
        keep_alone(self.store, weights)
        return {**self._fields(train, callback, private), "weights": weights}

    def fine_tuned(self) -> Fields:
        """Train the final weights, which the module holds, further on this site's rows; what comes of them stays here.

        The optimizer begins anew, and nothing of a strategy's pulls the weights back. Returns and raises what `round`
        does, without weights, and Refusal under a privacy mechanism, which would not count it.
        """
        if self.loaded.mechanisms:
            raise Refusal(Fault.REFUSED_RULE, "training further after the rounds, under a privacy mechanism")
        trainer, module, rounds = self.manifest["trainer"], self.loaded.module, int(self.task.params["rounds"])
        device, train = device_of(self.manifest, self.place.site), self.batches(module)
        steps = rounds * updates(train, device, steps=trainer["steps"], epochs=trainer["epochs"])
        refuse_steps(self.loaded.policy, steps)
        seed_fit(self.manifest["seed"], self.place.name, self.task.rounds_behind)
        private = self.privacy.protect(module, train, {}, steps=steps, planned=steps)
        callback = RoundCallback(passes=passes(train, device, steps))
        fit_on(private.module, private.loader, steps=steps, device=device, callback=callback)
        self.store.save(FINE_TUNED, self.task.round, self._weights(module, callback))
        keep_final(self.store, self.task)
        return self._fields(train, callback, private)

    def batches(self, module: "TrainableModule") -> "Loader":
        """What a module trains on."""
        return without_single(module.train(), self.loaded.datamodule.train_dataloader())

    def _weights(self, module: "TrainableModule", callback: RoundCallback) -> dict[str, np.ndarray]:
        """The trained weights, if the batches were of enough persons."""
        arrays = to_arrays(module)
        refuse_few(callback.drawn.number, arrays, self.loaded.policy.minimum_cell)
        if private_among(self.loaded.mechanisms) is None:  # whose noise protects each person of a batch, however few
            refuse_batches(self.loaded.policy, callback.drawn.by_batch)
        return arrays

    def _fields(self, train: "Loader", callback: RoundCallback, private: PrivateFit) -> Fields:
        cell, loss = self.loaded.policy.minimum_cell, finite_loss(callback.mean_loss)
        metrics = {**suppress_metrics(callback.behind_loss.number, loss, cell), **self.privacy.spent(private.ledger)}
        return {"persons": callback.drawn.number, "examples": examples_in(train), "metrics": metrics}


def try_step(manifest: Manifest, site: Site, module: "TrainableModule", datamodule: FederatedDataModule) -> None:
    """One step on one batch with a copy of the module; raises what a training would."""
    train = datamodule.train_dataloader()
    if train and examples_in(train):
        device, trainer = device_of(manifest, site), manifest["trainer"]
        steps = updates(train, device, steps=trainer["steps"], epochs=trainer["epochs"])
        keeps = trainer["optimizer_state"] == OptimizerState.keep.value
        callback = RoundCallback(keeps=keeps, passes=passes(train, device, steps))
        fit_on(copy.deepcopy(module), train, steps=1, device=device, callback=callback)


def finite_loss(loss: float) -> dict[str, float]:
    """The loss as a metric of a reply; none where no batch had one (all Poisson samples empty)."""
    return {"loss": loss} if math.isfinite(loss) else {}


def centralized(manifest: Manifest, folder: Path, resume: Path | None = None) -> CentralizedFit:
    """How the study trains without federation; its callbacks write into `folder`."""
    epochs = int(manifest["trainer"]["centralized"]["max_epochs"])
    return CentralizedFit(epochs, str(resume) if resume else None, build.callbacks(manifest), folder)


def device_of(manifest: Manifest, site: Site) -> Device:
    """The site's devices with the study's settings of the Trainer."""
    return Device(site.accelerator, site.precision, build.trainer_arguments(manifest), site.devices)
