"""A site: answers the coordinator's tasks on its own data, under its own policy, and says nothing more."""

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flip.config import build
from flip.config.build import initial_module
from flip.config.policy import Policy
from flip.config.schema import SIMULATED, Site
from flip.determinism import configure_torch, stable_seed
from flip.errors import UserError, disk_full
from flip.messages import Answer, Fault, Reply, Task
from flip.messages.summary import Summary
from flip.messages.weights import load_arrays
from flip.messages.wire import take
from flip.privacy import Mechanism
from flip.site.admission import Loaded, Refusal, loader, split_size
from flip.site.log import site_log
from flip.site.measure import measure
from flip.site.state import LocalState
from flip.site.statistics import dataset_summaries, description, shapes, skipped, summary_of


class Silo:
    """A site.

    Args:
        name: the site's name in the roster.
        site: the site's own file.
        home: folder of the site's own log, state and reports; nothing in it is ever sent.
        deployed: the site is a hospital's, not simulated: its file may wave nothing through as public or simulated.
    """

    def __init__(self, name: str, site: Site, home: Path, *, deployed: bool = False) -> None:
        self.name, self.site, self.home, self.deployed = name, site, home, deployed
        self._loaded: dict[str, Loaded] = {}
        self._log = site_log(name, home)

    def answer(self, task: Task) -> Reply:
        """Answer a task. Never raises: what goes wrong is a fault of the closed list, its details in the site's log.

        A fit that was answered before (same digest) is not run again: its stored reply is returned.
        """
        started = time.perf_counter()
        try:
            reply = LocalState(self.home / "state", task.run).answered(task.digest) or self._answer(task)
        except Refusal as refusal:
            self._log.warning("%s round %s: %s", task.step, task.round, refusal)
            reply = Reply(self.name, task.digest, fault=refusal.fault)
        except build.DataError:
            self._log.exception("%s round %s: the cohort could not be read", task.step, task.round)
            reply = Reply(self.name, task.digest, fault=Fault.DATA)
        except Exception as error:  # the boundary of the site: every error becomes a fault, and is written down here
            self._log.exception("%s round %s", task.step, task.round)
            reply = Reply(self.name, task.digest, fault=Fault.DISK if disk_full(error) else Fault.RAISED)
        return replace(reply, seconds=time.perf_counter() - started)

    def datamodule(self, task: Task) -> Any:
        """The site's data as for this task, loaded under its policy: for pooling, where one owner has all sites."""
        loaded = self._load(task.manifest)
        self._agree(loaded, task)
        return loaded.datamodule

    def _answer(self, task: Task) -> Reply:
        loaded = self._load(task.manifest)
        steps: dict[str, Callable[[Loaded, Task], Reply]]
        steps = {
            "statistics": self._statistics,
            "describe": self._describe,
            "fit": self._fit,
            "evaluate": self._evaluate,
            "measure": self._measure,
        }

        def answer(inner: Task) -> Reply:
            return steps[inner.step](loaded, inner)

        wrapped: Answer = answer
        for mechanism in reversed(loaded.mechanisms):
            wrapped = mechanism.wrap_answer(wrapped)
        return wrapped(task)

    def _load(self, text: str) -> Loaded:
        """Build the study once, after the site's policy has agreed to it."""
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in self._loaded:
            manifest = json.loads(text)
            targets = build.targets(manifest)
            try:
                self.policy = Policy.read(self.name, self.site.policy, deployed=self.deployed)
                if self.deployed and self.site.secret == SIMULATED:
                    raise UserError(f"secret: '{SIMULATED}' protects nothing; name a file, or null for one of its own")
            except UserError as error:
                self._log.error("%s", error)
                raise Refusal(Fault.REFUSED_POLICY) from error
            if self.policy.refuses_targets(targets):
                raise Refusal(Fault.REFUSED_TARGET)
            if manifest["code"] != build.code_digest(targets):
                raise Refusal(Fault.REFUSED_CODE)
            configure_torch(int(manifest["trainer"]["threads"]))
            datamodule = build.datamodule(manifest, self.name, self.site)
            persons = build.persons(datamodule)
            if refusal := self.policy.refuses_cohort(persons):
                raise Refusal(refusal)
            build.load_cohort(datamodule)
            if 0 < split_size(datamodule, "train") < self.policy.minimum_cell:
                raise Refusal(Fault.REFUSED_COHORT)
            mechanisms = build.mechanisms(manifest)
            self._loaded[key] = Loaded(
                manifest=manifest,
                module=self._module(manifest, mechanisms),
                datamodule=datamodule,
                strategy=build.strategy(manifest),
                mechanisms=mechanisms,
                outcomes=build.outcomes(manifest),
                persons=persons,
                agreed={},
            )
        return self._loaded[key]

    def _module(self, manifest: Mapping[str, Any], mechanisms: list[Mechanism]) -> Any:
        """The study's module, once the privacy mechanisms agree to it and to how this site trains."""
        module = initial_module(manifest)
        settings = build.trainer_arguments(manifest)
        settings |= {"precision": self.site.precision} if self.site.precision else {}
        for mechanism in mechanisms:
            mechanism.check(module, settings)
        return module

    def _large(self, number: int) -> int:
        """A number of persons or examples, or 0 where it is below the site's minimum cell."""
        return number if number >= self.policy.minimum_cell else 0

    def _reply(self, task: Task, summaries: Mapping[str, Summary] | None = None, **fields: Any) -> Reply:
        kept = {name: summary.suppress(self.policy.minimum_cell) for name, summary in (summaries or {}).items()}
        allowed = {name: summary for name, summary in kept.items() if not summary.withheld}
        return Reply(self.name, task.digest, summaries=allowed, **fields)

    def _statistics(self, loaded: Loaded, task: Task) -> Reply:
        """How many persons and examples, what was skipped, and the summaries that the dataset wants agreed."""
        data = loaded.datamodule
        sizes = {split: float(self._large(split_size(data, split))) for split in ("train", "validate", "test")}
        summaries, others = skipped(data, loaded.persons)
        for reason, number in others.items():
            self._log.warning("%d skipped for a reason that the dataset does not declare: %s", number, reason)
        summaries |= dataset_summaries(data, persons=loaded.persons, minimum_cell=self.policy.minimum_cell)
        metrics = {"persons": float(loaded.persons), **sizes}
        return self._reply(task, summaries, examples=int(sizes["train"]), metrics=metrics)

    def _describe(self, loaded: Loaded, task: Task) -> Reply:
        """The cohort by column, with histograms where edges were agreed, and the shapes of an example.

        With the parameter `tries` instead one step of a copy of the model, which raises where the data do not fit it.
        """
        from flip.site.fit import try_step

        self._agree(loaded, task)
        if task.params.get("tries"):
            try_step(loaded.manifest, self.site, loaded.module, loaded.datamodule)
            return self._reply(task)
        edges = take(task.state, "edges")
        self._log.info(
            "run %s asks to describe the cohort, with histograms of %s", task.run, sorted(edges) or "nothing"
        )
        persons, cell = loaded.persons, self.policy.minimum_cell
        told = description(loaded.datamodule, edges, persons=persons, minimum_cell=cell)
        sizes = {name: replace(shape, persons=persons) for name, shape in shapes(loaded.datamodule).items()}
        return self._reply(task, {**told, **sizes})

    def _fit(self, loaded: Loaded, task: Task) -> Reply:
        """One round of local training, or with the parameter `alone` the whole training of this site."""
        from flip.site.fit import LocalFit

        self._receive(loaded, task)
        store = LocalState(self.home / "state", task.run)
        fit = LocalFit(
            self.name, self.site, loaded.manifest, loaded.module, loaded.datamodule, loaded.strategy,
            loaded.mechanisms, store, self.home, task,
        )  # fmt: skip
        alone = bool(task.params.get("alone"))
        reply = self._reply(
            task, **(fit.alone(initial_module(loaded.manifest, centralized=True)) if alone else fit.round())
        )
        store.keep_reply(reply)
        return reply

    def _evaluate(self, loaded: Loaded, task: Task) -> Reply:
        """Score the weights on the validation or test split; on request also what the study adds to the report."""
        from flip.site.disclosure import leaving
        from flip.site.evaluate import score
        from flip.site.fit import device_of

        self._receive(loaded, task)
        split, module, data = str(task.params["split"]), loaded.module, loaded.datamodule
        examples, cell = self._large(split_size(data, split)), self.policy.minimum_cell
        if not examples:
            return self._reply(task)
        if hasattr(module, "decide_at"):
            module.decide_at(task.params.get("threshold"))
        if getattr(module, "fits_baseline", False):  # of rows that no noise protects: never under a mechanism
            module.fit_baseline(data.train_dataloader() if split == "test" and not loaded.mechanisms else ())
        device, seed = device_of(loaded.manifest, self.site), stable_seed(loaded.manifest["seed"], self.name, "score")
        values, scores = score(module, data, loader(data, split), split=split, device=device, cell=cell, seed=seed)
        persons = min(examples, loaded.persons)
        values, summaries = leaving(module, values, scores, examples=examples, persons=persons, cell=cell)
        if task.params.get("outcomes") and loaded.outcomes is not None:
            collected = loaded.outcomes.collect(module, data, self.home)
            summaries |= {f"outcomes/{name}": summary_of(name, array, persons) for name, array in collected.items()}
        return self._reply(task, summaries, examples=examples, metrics=values)

    def _measure(self, loaded: Loaded, task: Task) -> Reply:
        """What the study's outcomes measure in every person, into this site's folder; the reply is empty."""
        self._agree(loaded, task)
        measure(self.name, self.site, loaded, task.weights, self.home)
        return self._reply(task)

    def _agree(self, loaded: Loaded, task: Task) -> None:
        """The statistics that all sites agreed on, into the data."""
        agreed = {
            name.removeprefix("statistics/"): array
            for name, array in task.state.items()
            if name.startswith("statistics/")
        }
        changed = any(
            name not in loaded.agreed or not np.array_equal(array, loaded.agreed[name])
            for name, array in agreed.items()
        )
        if changed:
            loaded.datamodule.agree(agreed)
            loaded.agreed = agreed

    def _receive(self, loaded: Loaded, task: Task) -> None:
        """Agreed statistics into the data; the site's own parameters, then the sent ones, into the module."""
        self._agree(loaded, task)
        before = task.round + (1 if task.step == "evaluate" else 0)
        personal = LocalState(self.home / "state", task.run).load("personal", before)
        load_arrays(loaded.module, {**(personal or {}), **task.weights})


def load_libraries() -> None:
    """Import what every site needs for its first fit, torch and Lightning: seconds, once in a process."""
    importlib.import_module("flip.site.fit")
