"""What a site computes for each step of the protocol, on what it has loaded; what leaves of it goes by `released`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flip.config.build import initial_module
from flip.contracts import Decides, FitsBaseline
from flip.determinism import stable_seed
from flip.files import ALONE, FINE_TUNED
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Topic
from flip.messages.weights import load_arrays
from flip.messages.wire import take
from flip.metrics import scored_names
from flip.privacy import private_among
from flip.site.admission import Loaded, Place, protected
from flip.site.disclosure import enough, released, suppress_outcomes
from flip.site.fingerprint import fingerprint
from flip.site.given import begin, refuse_other_model, start_of
from flip.site.images_page import PAGE, write_images
from flip.site.journal import Behind
from flip.site.measure import measure
from flip.site.own_models import with_weights
from flip.site.persons import persons_of
from flip.site.received_weights import receive
from flip.site.recompute import as_kept
from flip.site.refusal import Refusal
from flip.site.remarks import remarks_in_words
from flip.site.state import LocalState
from flip.site.statistics import (
    cohort_counts,
    cohort_summaries,
    description,
    persons_told,
    shapes,
    surveyed,
)

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule
    from flip.site.fit import Fields, LocalFit


@dataclass
class Steps:
    """The steps of a study at a site."""

    place: Place
    loaded: Loaded
    log: logging.Logger
    behind: Behind

    def answer(self, task: Task) -> Reply:
        """Compute the answer to a task that has passed the gate."""
        self.behind.repeated = False
        steps: Mapping[str, Callable[[Task], Reply]]
        steps = {
            "statistics": self.statistics,
            "describe": self.describe,
            "plan": self.plan,
            "begin": self.begin,
            "fit": self.fit,
            "evaluate": self.evaluate,
            "measure": self.measure,
            "predict": self.predict,
        }
        return steps[task.step](task)

    def _released(self, persons: int, task: Task, **fields: object) -> Reply:
        own = {"site": self.place.name, "task_digest": task.digest}
        private = private_among(self.loaded.mechanisms) is not None
        self.behind.persons = persons
        return released(persons, self.loaded.policy, task.step, private=private, **own, **fields)

    def statistics(self, task: Task) -> Reply:
        """How many persons and examples, what was skipped, and the summaries that the dataset wants agreed."""
        data, cell = self.loaded.datamodule, self.loaded.policy.minimum_cell
        counts = cohort_counts(self.loaded.persons, data, cell)
        summaries, others = cohort_summaries(self.loaded.persons, data, cell)
        for reason, number in others.items():
            self.log.warning("%d skipped for a reason that the dataset does not declare: %s", number, reason)
        for words in remarks_in_words(data):
            self.log.info("%s", words)
        place, told = self.place, {"examples": int(counts["train"]), "metrics": counts, "summaries": summaries}
        told["fingerprint"] = fingerprint(place.name, place.site, place.home, datamodule=data, task=task)
        return self._released(int(counts["persons"]), task, **told)

    def describe(self, task: Task) -> Reply:
        """The cohort by column, with histograms where edges were agreed, an example's shapes; here a page of images.

        With the parameter `tries` instead one step of a copy of the model, which raises where the data do not fit it.
        """
        from flip.site.fit import try_step

        self.loaded.agree(task)
        if task.params.get("tries"):
            try_step(self.loaded.manifest, self.place.site, self.loaded.module, self.loaded.datamodule)
            return self._released(0, task)
        edges = take(task.state, "edges")
        self.log.info("run %s asks to describe the cohort, with histograms of %s", task.run, sorted(edges) or "nothing")
        if not edges and write_images(self.place.home, self.loaded.datamodule):
            self.log.info("a few of its images are in %s, which stays here", PAGE)
        data, cell = self.loaded.datamodule, self.loaded.policy.minimum_cell
        persons = persons_told(self.loaded.persons, data, cell)
        told = {Topic.DESCRIPTION: description(persons, data, edges, cell), Topic.SHAPE: shapes(data, cell)}
        return self._released(persons, task, summaries=told)

    def plan(self, task: Task) -> Reply:
        """What the training rows tell for a plan of the study, as histograms and sums; no dataset has to tell any."""
        data, cell = self.loaded.datamodule, self.loaded.policy.minimum_cell
        persons = persons_of(data, "train", cell).number
        return self._released(persons, task, summaries={Topic.DESCRIPTION: surveyed(persons, data, cell)})

    def begin(self, task: Task) -> Reply:
        """Take the given weights that the rounds begin from; the reply is empty."""
        weights = with_weights(task, self.place.site).weights
        begin(self.loaded.manifest, weights, self.place.store(task.run))
        return self._released(0, task)

    def fit(self, task: Task) -> Reply:
        """One round of local training, the whole training of this site alone, or that of the final weights further.

        Raises Refusal where the batches that were drawn are of too few persons; nothing of such a fit is kept.
        """
        from flip.site.fit import LocalFit

        store = self.place.store(task.run)
        receive(self.loaded, task, store)
        fit = LocalFit(self.place, self.loaded, store, task)
        try:
            fields = self._fitted(fit, store)
            return self._released(fields.pop("persons"), task, **fields)
        except Refusal:
            manifest, mechanisms = self.loaded.manifest, self.loaded.mechanisms
            self.loaded.module = protected(initial_module(manifest), manifest, self.place.site, mechanisms)
            raise

    def _fitted(self, fit: "LocalFit", store: LocalState) -> "Fields":
        """What a fit gives, by its stage."""
        if fit.task.stage == ALONE:
            return fit.alone(self._alone(store))
        return fit.fine_tuned() if fit.task.stage == FINE_TUNED else fit.round()

    def _alone(self, store: LocalState) -> "TrainableModule":
        """The module that is trained without the others, from the study's start."""
        module = initial_module(self.loaded.manifest, centralized=True)
        load_arrays(module, start_of(self.loaded.manifest, store))
        return as_kept(module, self.place.site, self.loaded.mechanisms)

    def evaluate(self, task: Task) -> Reply:
        """Score the weights on the validation or test split; on request also what the study adds to the report."""
        from flip.site.evaluate import leaving, scalings, score
        from flip.site.fit import device_of

        receive(self.loaded, with_weights(task, self.place.site), self.place.store(task.run))
        split, module, data = str(task.params["split"]), self.loaded.module, self.loaded.datamodule
        cell = self.loaded.policy.minimum_cell
        persons = persons_of(data, split, cell)
        if not (persons.number and enough(persons.number, cell)):
            few: Mapping[str, Withheld] = dict.fromkeys(scored_names(module, split), Withheld.SPLIT)
            return self._released(0, task, withheld=few if persons.number else {})
        if isinstance(module, Decides):
            chosen = task.params.get("threshold")
            module.decide_at(None if chosen is None else float(chosen))
        if isinstance(module, FitsBaseline) and module.fits_baseline:
            # of rows that no noise protects: never under a mechanism
            module.fit_baseline(data.train_dataloader() if split == "test" and not self.loaded.mechanisms else ())
        if (private := private_among(self.loaded.mechanisms)) is not None:
            from flip.site.private_scores import private_scores

            return self._released(persons.number, task, **private_scores(self.place, self.loaded, task, private))
        device = device_of(self.loaded.manifest, self.place.site)
        seed = stable_seed(self.loaded.manifest["seed"], self.place.name, "score")
        least = persons.examples_of(cell)
        rows = scalings(data, split, pooled=bool(task.params.get("pooled")))
        repeats = persons.number < persons.examples
        own, again = score(module, *rows, split=split, device=device, cell=least, seed=seed, repeats=repeats)
        values, summaries, withheld = leaving(persons, module, own, again, split=split, cell=cell)
        if task.params.get("outcomes") and self.loaded.outcomes is not None:
            outcomes = self.loaded.outcomes.collect(module, data, self.place.home)
            summaries[Topic.OUTCOMES] = suppress_outcomes(persons, outcomes, cell)
        found = {"metrics": values, "summaries": summaries, "withheld": withheld}
        return self._released(persons.number, task, examples=persons.examples, **found)

    def measure(self, task: Task) -> Reply:
        """What the study's outcomes measure in every person, into this site's folder; the reply is empty.

        Raises Refusal at a deployed site: nobody elsewhere applies weights of their choice there or replaces its files.
        """
        self._of_ours(task)
        measure(self.place, self.loaded, task)
        return self._released(0, task)

    def predict(self, task: Task) -> Reply:
        """The model's predictions for every row, into this site's folder; the reply is empty. Raises as `measure`."""
        from flip.site.predict import predict

        self._of_ours(task)
        predict(self.place, self.loaded, task, self.log)
        return self._released(0, task)

    def _of_ours(self, task: Task) -> None:
        """Take the agreed statistics of a model that this machine's owner applies here. Raises Refusal for another."""
        if self.place.deployed:
            why = "a hospital measures and predicts with its own site_file, not for a coordinator"
            raise Refusal(Fault.REFUSED_POLICY, why)
        refuse_other_model(self.loaded.manifest, task)
        self.loaded.agree(task)
