"""The test metrics of one model under a mechanism that protects each person: sums with noise that is in the ledger."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from flip.contracts.loaders import batched_alike, examples_in
from flip.messages import Fault, Task, Withheld
from flip.messages.summary import SummaryKind, Topic
from flip.metrics import array, exact_of, metric_states, metrics_of, scored_names
from flip.privacy import Mechanism
from flip.privacy.noised import Counts, Floats, Noised, clipped, counts_of, with_noise
from flip.site.admission import Loaded, Place
from flip.site.evaluate import ScoringCallback, score_with
from flip.site.fit import device_of
from flip.site.persons import PERSON, loader
from flip.site.private_fit import Privacy
from flip.site.refusal import Refusal
from flip.site.trainer import Device

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule


class PersonSums(ScoringCallback):
    """Adds up what each person adds to the sums, clipped; a batch holds the rows of one person, and of no other."""

    def __init__(self, module: "TrainableModule", counts: Sequence[Counts]) -> None:
        self.module, self.counts = module, counts
        self.before = [self._now(each) for each in counts]
        self.sums = [np.zeros_like(each) for each in self.before]

    def _now(self, counts: Counts) -> Floats:
        states = metric_states(self.module.metrics[counts.metrics[0]])
        return np.concatenate([array(states[name]).astype(np.float64).ravel() for name in counts.shapes])

    def batch_done(self, batch: object) -> None:
        """Add a person."""
        now = [self._now(each) for each in self.counts]
        for place, each in enumerate(self.counts):
            self.sums[place] += clipped(now[place] - self.before[place], each.bound)
        self.before = now


def by_person(rows: "Loader", codes: NDArray[np.int64] | None = None) -> "Loader":
    """The same rows, a batch a person.

    `codes`, int64 [n] in any order, are what the dataset says of whose its rows are; None: each is a person's own, but
    for those that say whose they are. Raises Refusal for rows that do not say it as the codes do.
    """
    whose: dict[int, list[int]] = {}
    for number in range(examples_in(rows)):
        row = rows.dataset[number]
        told = isinstance(row, Mapping) and PERSON in row
        if not told and codes is not None:
            why = f"a test row does not say whose it is, by {PERSON!r}"
            raise Refusal(Fault.REFUSED_RULE, f"privacy hides persons: {why}")
        whose.setdefault(int(row[PERSON]) if told else number, []).append(number)
    if codes is not None and Counter(codes.tolist()) != {person: len(each) for person, each in whose.items()}:
        why = "whose('test') and the rows' own persons are not the same"
        raise Refusal(Fault.REFUSED_RULE, f"privacy hides persons: {why}")
    return batched_alike(rows, batch_sampler=list(whose.values()), collate_fn=rows.collate_fn)


def person_sums(module: "TrainableModule", persons: "Loader", counts: Sequence[Counts], device: Device) -> list[Floats]:
    """The sums over the persons of a test split, a batch each, each person's part clipped."""
    metrics = [*metrics_of(module, "test").values(), *exact_of(module).values()]
    for metric in metrics:
        metric.reset()
    found = PersonSums(module, counts)
    score_with(found, module, persons, split="test", device=device)
    for metric in metrics:
        metric.reset()
    return found.sums


def private_scores(place: Place, loaded: Loaded, task: Task, mechanism: Mechanism) -> dict[str, object]:
    """The fields of a reply: of the test split the sums that can have noise, all other metrics withheld.

    The ledger holds the noise before this returns; the same task has the same noise, which spends nothing again. Raises
    Refusal where it would spend more than the site permits.
    """
    module, split = loaded.module, str(task.params["split"])
    withheld = dict.fromkeys(scored_names(module, split), Withheld.PRIVACY)
    counts, entry = counts_of(dict(module.metrics.items())), mechanism.metrics_noise()
    if split != "test" or entry is None or not counts or "metrics" not in loaded.policy.releases:
        return {"withheld": withheld}
    rows = cast("Loader", loader(loaded.datamodule, split))  # a split of somebody has one
    privacy = Privacy(place, loaded, task)
    persons = by_person(rows, privacy.whose(split))
    privacy.delta_floor(len(persons))
    sums = person_sums(module, persons, counts, device_of(loaded.manifest, place.site))
    key = privacy.noise_key(place.store(task.run).load("personal", task.round + 1) or {})
    spent = privacy.spent(privacy.budget.reserve([entry], key))
    states = with_noise(counts, sums, cast(float, entry["noise_multiplier"]), key)
    number = examples_in(rows)
    summaries = {Topic.METRIC: {name: Noised(SummaryKind.SUM, each, number) for name, each in states.items()}}
    told = {name for each in counts for name in each.metrics}
    left = {name: rule for name, rule in withheld.items() if name not in told}
    return {"examples": number, "metrics": spent, "summaries": summaries, "withheld": left}
