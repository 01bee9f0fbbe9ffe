"""One fit at a site: seeds, the strategy's and the mechanisms' halves, Lightning, what is kept and returned."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import seed_everything

from flip import build
from flip.config import OptimizerState, Site
from flip.federation import Task
from flip.local_state import LocalState
from flip.privacy import Mechanism, PrivateFit, Spent
from flip.strategies.fedavg import FedAvg
from flip.training import Centralized, Device, RoundCallback, fit_centralized, fit_round, updates
from flip.weights import stable_seed, to_arrays


@dataclass
class SiteLocal:
    """What the strategy's half may use during one fit (`flip.strategies.fedavg.Local`)."""

    store: LocalState
    round: int
    steps: int
    learning_rate: float = float("nan")

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays of the latest earlier round."""
        return self.store.load(f"strategy-{name}", self.round)

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays for the next rounds."""
        self.store.save(f"strategy-{name}", self.round, arrays)


@dataclass
class LocalFit:
    """One task "fit" at one site, on what the site has loaded."""

    name: str
    site: Site
    manifest: Mapping[str, Any]
    module: Any
    datamodule: Any
    strategy: FedAvg
    mechanisms: list[Mechanism]
    store: LocalState
    task: Task

    def round(self) -> dict[str, Any]:
        """One federated round; returns the fields of the reply."""
        trainer, device, train = (
            self.manifest["trainer"],
            device_of(self.manifest, self.site),
            self.datamodule.train_dataloader(),
        )
        steps = updates(train, device.settings, steps=trainer["steps"], epochs=trainer["epochs"])
        keep = trainer["optimizer_state"] == OptimizerState.keep.value
        local = SiteLocal(self.store, self.task.round, steps)
        shared = self.strategy.shared(self.module)
        self.strategy.before_fit(local, self.task)
        seed_fit(self.manifest["seed"], self.name, self.task.round)
        private = self._protect(self.module, train, steps=steps, planned=steps * self.strategy.rounds)
        corrects = type(self.strategy).correct is not FedAvg.correct
        kept = self.store.load("optimizer", self.task.round) if keep else None
        callback = RoundCallback(self.strategy.correct if corrects else None, kept)
        fit_round(private.module, private.loader, steps=steps, device=device, callback=callback)
        local.learning_rate = callback.learning_rate
        everything = to_arrays(self.module)
        after = {key: everything.pop(key) for key in shared}
        state = self.strategy.after_fit(local, self.task.weights, after)
        if everything:
            self.store.save("personal", self.task.round, everything)
        if keep:
            self.store.save("optimizer", self.task.round, callback.optimizer_arrays)
        metrics = {"loss": callback.mean_loss, **self._spend(private)}
        return {"examples": len(train.dataset), "metrics": metrics, "weights": after, "state": state}

    def alone(self, module: Any) -> dict[str, Any]:
        """The whole training of this site without the others; returns the fields of the reply."""
        how = centralized(self.manifest, self.store.folder)
        device, train = device_of(self.manifest, self.site), self.datamodule.train_dataloader()
        steps = updates(train, device.settings, steps=None, epochs=how.max_epochs)
        seed_fit(self.manifest["seed"], self.name, 0)
        private = self._protect(module, train, steps=steps, planned=steps)
        validate = self.datamodule.val_dataloader() or None
        loss = fit_centralized(private.module, private.loader, validate, device=device, how=how)
        metrics = {"loss": loss, **self._spend(private)}
        return {"examples": len(train.dataset), "metrics": metrics, "weights": to_arrays(module)}

    def _protect(self, module: Any, loader: Any, *, steps: int, planned: int) -> PrivateFit:
        """Let the privacy mechanisms change module, optimizer and loader."""
        key = noise_key(self.name, self.site, self.manifest["seed"], self.task) if self.mechanisms else b""
        private = PrivateFit(
            module, loader, steps, planned, self.task, key, self.store.ledger() if self.mechanisms else []
        )
        for mechanism in self.mechanisms:
            mechanism.prepare(private)
        return private

    def _spend(self, private: PrivateFit) -> dict[str, float]:
        """Write the ledger, and name the privacy spent at this site so far."""
        if not self.mechanisms:
            return {}
        self.store.save_ledger(private.ledger)
        spent = [entry for mechanism in self.mechanisms if (entry := mechanism.spent(private.ledger))]
        return privacy_metrics(spent)


def privacy_metrics(spent: list[Spent]) -> dict[str, float]:
    """Epsilon and delta as metrics of a reply."""
    return {"privacy/epsilon": spent[0].epsilon, "privacy/delta": spent[0].delta} if spent else {}


def centralized(manifest: Mapping[str, Any], folder: Path) -> Centralized:
    """How the study trains without federation; its callbacks write into `folder`."""
    declared = manifest["trainer"]["centralized"]
    return Centralized(int(declared["max_epochs"]), declared["resume"], build.callbacks(manifest), folder)


def device_of(manifest: Mapping[str, Any], site: Site) -> Device:
    """The site's device with the study's settings of the Trainer."""
    return Device(site.accelerator, site.precision, build.trainer_arguments(manifest))


def seed_fit(seed: int, site: str, round: int) -> None:
    """Seed every generator that batches and augmentation draw from, as a function of (seed, site, round)."""
    seed_everything(stable_seed(seed, site, round) % 2**32, verbose=False)


def noise_key(name: str, site: Site, seed: int, task: Task) -> bytes:
    """Key of the privacy noise: HMAC of the site's secret over the task's digest and the data's fingerprint."""
    message = f"{task.digest}:{fingerprint(Path(site.root))}"
    return hmac.new(site_secret(name, site, seed), message.encode(), hashlib.sha256).digest()


def site_secret(name: str, site: Site, seed: int) -> bytes:
    """The site's secret: its file (made on first use, mode 600); in simulation derived from the seed (no claim)."""
    if site.secret is None:
        return hmac.new(b"simulated: no privacy claim", f"{seed}:{name}".encode(), hashlib.sha256).digest()
    path = Path(site.secret)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(32))
    return path.read_bytes()


def fingerprint(root: Path) -> str:
    """Sha256 over names, sizes and change times of a site's files: other data give other privacy noise."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    lines = [f"{path.relative_to(root)}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
