"""A site: answers the coordinator's tasks on its own data, under its own policy, and says nothing more."""

import hashlib
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flip.config import build
from flip.config.build import initial_module
from flip.config.schema import Site
from flip.contracts import Decides, FederatedDataModule, FitsBaseline
from flip.determinism import stable_seed
from flip.errors import disk_full
from flip.messages import Answer, Fault, Reply, Task, Withheld
from flip.messages.summary import Topic
from flip.messages.wire import take
from flip.metrics import scored_names
from flip.site.admission import Loaded, Place, admit, protected_module
from flip.site.bounds import time_limit
from flip.site.disclosure import enough, released, suppress_outcomes
from flip.site.fingerprint import fingerprint
from flip.site.images_page import PAGE, write_images
from flip.site.log import site_log
from flip.site.measure import measure
from flip.site.persons import loader, persons_of
from flip.site.received_weights import receive
from flip.site.refusal import Refusal
from flip.site.state import LocalState
from flip.site.statistics import cohort_counts, cohort_summaries, description, remarks_in_words, shapes

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader


class Silo:
    """A site.

    Args:
        name: the site's name in the roster.
        site: the site's own file.
        home: folder of the site's own log, state and reports; nothing in it is ever sent.
        deployed: the site is a hospital's, not simulated: its file may wave nothing through as public or simulated.
    """

    def __init__(self, name: str, site: Site, home: Path, *, deployed: bool = False) -> None:
        self.place = Place(name, site, home, deployed)
        self._loaded: dict[str, Loaded] = {}
        self._log = site_log(name, home)

    @property
    def name(self) -> str:
        """The site's name in the roster."""
        return self.place.name

    @property
    def site(self) -> Site:
        """The site's own file."""
        return self.place.site

    @property
    def home(self) -> Path:
        """Folder of the site's own log, state and reports."""
        return self.place.home

    def answer(self, task: Task) -> Reply:
        """Answer a task. Never raises: what goes wrong is a fault of the closed list, its details in the site's log.

        A fit that was answered before (same digest) is not run again: its stored reply is returned.
        """
        started = time.perf_counter()
        try:
            store = self.place.store(task.run)
            with time_limit(self.place.policy().maximum_seconds, self._log, self.home):
                reply = self._answered(task, store) or self._answer(task, store)
        except Refusal as refusal:
            self._log.warning("%s round %s: %s", task.step, task.round, refusal)
            reply = self._fault(task, refusal.fault)
        except build.DataError:
            self._log.exception("%s round %s: the cohort could not be read", task.step, task.round)
            reply = self._fault(task, Fault.DATA)
        except Exception as error:  # the boundary of the site: every error becomes a fault, and is written down here
            self._log.exception("%s round %s", task.step, task.round)
            reply = self._fault(task, Fault.DISK if disk_full(error) else Fault.RAISED)
        return replace(reply, seconds=time.perf_counter() - started)

    def datamodule(self, task: Task) -> FederatedDataModule:
        """The site's data as for this task, loaded under its policy: for pooling, where one owner has all sites."""
        loaded = self._load(task.manifest)
        loaded.agree(task)
        loaded.pooled = True
        return loaded.datamodule

    def _answered(self, task: Task, store: LocalState) -> Reply | None:
        """The stored reply, if there is one. Raises Refusal where the policy has become stricter since it was made."""
        found = store.answered(task.digest)
        if found is None:
            return None
        (reply, before), now = found, self.place.policy()
        if now.minimum_persons > before.minimum_persons:
            raise Refusal(
                Fault.REFUSED_COHORT, f"a stored reply was made under minimum_persons: {before.minimum_persons}"
            )
        if now.minimum_cell > before.minimum_cell:
            raise Refusal(
                Fault.REFUSED_FEW_PERSONS, f"a stored reply was made under minimum_cell: {before.minimum_cell}"
            )
        return reply

    def _answer(self, task: Task, store: LocalState) -> Reply:
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
        reply = wrapped(task)
        if task.step == "fit":  # as it leaves: a repeated task gets nothing that the mechanisms have not seen
            store.keep_reply(reply, loaded.policy)
        return reply

    def _load(self, text: str) -> Loaded:
        """Build the study once, after the site has agreed to it."""
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in self._loaded:
            self._loaded[key] = admit(text, self.place)
        return self._loaded[key]

    def _fault(self, task: Task, fault: Fault) -> Reply:
        return released(0, 1, site=self.name, task_digest=task.digest, fault=fault)

    def _released(self, persons: int, loaded: Loaded, task: Task, **fields: object) -> Reply:
        cell = loaded.policy.minimum_cell
        return released(persons, cell, site=self.name, task_digest=task.digest, **fields)

    def _statistics(self, loaded: Loaded, task: Task) -> Reply:
        """How many persons and examples, what was skipped, and the summaries that the dataset wants agreed."""
        data, cell = loaded.datamodule, loaded.policy.minimum_cell
        counts = cohort_counts(loaded.persons, data, cell)
        summaries, others = cohort_summaries(loaded.persons, data, cell)
        for reason, number in others.items():
            self._log.warning("%d skipped for a reason that the dataset does not declare: %s", number, reason)
        for words in remarks_in_words(data):
            self._log.info("%s", words)
        place, told = self.place, {"examples": int(counts["train"]), "metrics": counts, "summaries": summaries}
        told["fingerprint"] = fingerprint(place.name, place.site, place.home, datamodule=data, task=task)
        return self._released(loaded.persons, loaded, task, **told)

    def _describe(self, loaded: Loaded, task: Task) -> Reply:
        """The cohort by column, with histograms where edges were agreed, an example's shapes; here a page of images.

        With the parameter `tries` instead one step of a copy of the model, which raises where the data do not fit it.
        """
        from flip.site.fit import try_step

        loaded.agree(task)
        if task.params.get("tries"):
            try_step(loaded.manifest, self.site, loaded.module, loaded.datamodule)
            return self._released(0, loaded, task)
        edges = take(task.state, "edges")
        self._log.info(
            "run %s asks to describe the cohort, with histograms of %s", task.run, sorted(edges) or "nothing"
        )
        if not edges and write_images(self.home, loaded.datamodule):
            self._log.info("a few of its images are in %s, which stays here", PAGE)
        persons, cell = loaded.persons, loaded.policy.minimum_cell
        told = {
            Topic.DESCRIPTION: description(persons, loaded.datamodule, edges, cell),
            Topic.SHAPE: shapes(loaded.datamodule, cell),
        }
        return self._released(persons, loaded, task, summaries=told)

    def _fit(self, loaded: Loaded, task: Task) -> Reply:
        """One round of local training, or with the parameter `alone` the whole training of this site.

        Raises Refusal where the batches that were drawn are of too few persons; nothing of such a fit is kept.
        """
        from flip.site.fit import LocalFit

        store = self.place.store(task.run)
        receive(loaded, task, store)
        fit = LocalFit(self.place, loaded, store, task)
        try:
            if task.params.get("alone"):
                fields = fit.alone(initial_module(loaded.manifest, centralized=True))
            else:
                fields = fit.round()
            return self._released(fields.pop("persons"), loaded, task, **fields)
        except Refusal:
            loaded.module = protected_module(loaded.manifest, self.site, loaded.mechanisms)
            raise

    def _evaluate(self, loaded: Loaded, task: Task) -> Reply:
        """Score the weights on the validation or test split; on request also what the study adds to the report."""
        from flip.site.evaluate import leaving, score
        from flip.site.fit import device_of

        receive(loaded, task, self.place.store(task.run))
        split, module, data = str(task.params["split"]), loaded.module, loaded.datamodule
        cell = loaded.policy.minimum_cell
        persons = persons_of(data, split, cell)
        if not (persons.number and enough(persons.number, cell)):
            few: Mapping[str, Withheld] = dict.fromkeys(scored_names(module, split), Withheld.SPLIT)
            return self._released(0, loaded, task, withheld=few if persons.number else {})
        if isinstance(module, Decides):
            chosen = task.params.get("threshold")
            module.decide_at(None if chosen is None else float(chosen))
        if (
            isinstance(module, FitsBaseline) and module.fits_baseline
        ):  # of rows that no noise protects: never under a mechanism
            module.fit_baseline(data.train_dataloader() if split == "test" and not loaded.mechanisms else ())
        device, seed = device_of(loaded.manifest, self.site), stable_seed(loaded.manifest["seed"], self.name, "score")
        least = persons.examples_of(cell)
        rows = cast("Loader", loader(data, split))  # a split of somebody has one
        own, summed = score(module, data, rows, split=split, device=device, cell=least, seed=seed)
        values, states, withheld = leaving(persons, module, own, summed, cell=cell)
        summaries = {Topic.METRIC: states}
        if task.params.get("outcomes") and loaded.outcomes is not None:
            outcomes = loaded.outcomes.collect(module, data, self.home)
            summaries[Topic.OUTCOMES] = suppress_outcomes(persons, outcomes, cell)
        found = {"metrics": values, "summaries": summaries, "withheld": withheld}
        return self._released(persons.number, loaded, task, examples=persons.examples, **found)

    def _measure(self, loaded: Loaded, task: Task) -> Reply:
        """What the study's outcomes measure in every person, into this site's folder; the reply is empty.

        Raises Refusal at a deployed site: nobody elsewhere applies weights of their choice there or replaces its files.
        """
        if self.place.deployed:
            raise Refusal(Fault.REFUSED_POLICY, "a hospital measures with its own site_file, not for a coordinator")
        loaded.agree(task)
        measure(self.place, loaded, task.weights)
        return self._released(0, loaded, task)


def load_libraries() -> None:
    """Import what every site needs for its first fit, torch and Lightning: seconds, once in a process."""
    importlib.import_module("flip.site.fit")
