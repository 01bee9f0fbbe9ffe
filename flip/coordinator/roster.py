"""The sites of a study: who takes part, what they are asked, and what of their answers is written down."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flip.coordinator.check_replies import MOST_EXAMPLES, Wanted, checked
from flip.errors import StudyFailed, StudyHeld, StudyUnfit, several
from flip.messages import TRACKERS, Ask, Fault, Payload, Reply, Scalar, Task
from flip.messages.model_file import ModelFile, model_of
from flip.messages.stages import is_last_question, release_stage
from flip.messages.wire import join, take
from flip.privacy import UNIT
from flip.runs.recorder import Recorder, line_of

SPENT = frozenset({"privacy/epsilon", "privacy/delta"})
OTHER_SITES = (
    "Sites refuse so where a run that was stopped before its first whole round goes on, and other sites answer now "
    "than did then: start the study anew, without resume="
)
FIT_METRICS = SPENT | {"loss"}


@dataclass
class Roster:
    """The sites of one run.

    Args:
        run: identifier of the run, new on a rerun.
        manifest: the study as canonical JSON.
        trains: by site, whether it trains or is only tested on.
        min_sites: the fewest sites that a round can do with (`strategy.min_sites`); None: every one that it asks.
        recorder: where everything is written down.
        trackers: the online trackers that the numbers go to, with commas; each site is told with each task.

    Attributes:
        agreed: what all sites agreed on before the first round (`statistics/...`); it goes with every task.
        left_out: sites that refused, or whose cohort cannot be used.
        trained_on: by site, its number of training examples.
        validates: whether any site has validation data.
        privacy: by site, epsilon and delta spent so far.
        unit: of whom these are.
        must_occur: names of what has to be among the training rows of some site.
        absent: those of them that no site has.
        compare: what speaks against the study, a sentence each, by what each site tells (`ComparesSites`).
        against: what it found.
        pooled: the study's own weights are trained on the pooled cohort.
        held: by stage of a run, the sites at which its answers wait for a person.
    """

    run: str
    manifest: str
    trains: Mapping[str, bool]
    min_sites: int | None
    recorder: Recorder
    trackers: str = ""
    agreed: Payload = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    trained_on: dict[str, int] = field(default_factory=dict)
    validates: bool = False
    privacy: dict[str, dict[str, float]] = field(default_factory=dict)
    unit: str = UNIT
    must_occur: Sequence[str] = ()
    absent: Sequence[str] = ()
    compare: Callable[[Mapping[str, Payload]], Sequence[str]] = lambda told: ()
    against: Sequence[str] = ()
    pooled: bool = False
    held: dict[str, set[str]] = field(default_factory=dict)

    def task(self, step: str, round: int, weights: Payload, stage: str = "study", **params: Scalar) -> Task:
        """A task of this run."""
        told = {TRACKERS: self.trackers} if self.trackers else {}
        return Task(self.run, stage, round, step, weights, self.agreed, {**params, **told}, self.manifest)

    def model(self, weights: Payload, **scores: float | None) -> ModelFile:
        """These weights as a model's file has them: with what the sites agreed on, and what is known of it."""
        return model_of(weights, take(self.agreed, "statistics"), self.manifest, pooled=self.pooled, scores=scores)

    def prepare_as(self, given: ModelFile) -> None:
        """Have the sites prepare their rows as those were on which a given model was trained."""
        self.agreed, self.pooled = join(statistics=given.agreed), given.pooled

    def sites(self, *, training: bool) -> list[str]:
        """The sites that take part, in the order of their names."""
        return sorted(
            site for site, trains in self.trains.items() if site not in self.left_out and (trains or not training)
        )

    def asked(self, ask: Ask, task: Task, sites: Sequence[str], phase: str, wanted: Wanted) -> Iterator[Reply]:
        """Ask, check each reply, and write it down before anyone uses it.

        Raises StudyHeld, once all have answered, where a site holds an answer that the run cannot go on without.
        """
        waits = False
        for reply in ask(task, sites):
            reply = checked(reply, task, wanted)
            line = line_of(task, reply, phase, self.unit)
            if line["privacy"]:
                self.privacy[reply.site] = {name: line["privacy"][name] for name in ("epsilon", "delta")}
            self.recorder.line(line)
            if reply.fault is Fault.HELD:
                waits = not is_last_question(task)
                self.held.setdefault(release_stage(task), set()).add(reply.site)
            yield reply
        if waits:
            self.all_released()

    def all_released(self) -> None:
        """Raise StudyHeld where answers of sites wait there for a person."""
        if self.held:
            where = "; ".join(f"{stage} at {', '.join(sorted(sites))}" for stage, sites in sorted(self.held.items()))
            raise StudyHeld(f"{where}: {Fault.HELD.value}")

    def fits(self, weights: Payload, state: Payload, moves: float | None = None) -> Wanted:
        """What the reply to a fit must hold: arrays like these, of no more examples than the site said that it has.

        `moves`: how far they may lie from those sent; what is beyond, sites would refuse in the mean.
        A site that did not say so, and came later, counts for no more than all that did: at most half of the mean.
        """
        others = sum(self.trained_on.values()) or MOST_EXAMPLES
        most = {site: self.trained_on.get(site, others) for site in self.trains}
        return Wanted(weights, state, FIT_METRICS, {}, most, moves=moves)

    def enough(self, used: int, faults: Mapping[str, Fault], when: str) -> None:
        """Raise StudyFailed, with the faults of sites that train, if fewer can be used than the strategy needs."""
        missing = {site: fault for site, fault in faults.items() if self.trains[site]}
        if used < (self.min_sites or used + len(missing) or 1):
            alike = {fault: [site for site in sorted(missing) if missing[site] is fault] for fault in missing.values()}
            why = "; ".join(f"{', '.join(sites)}: {fault.value}" for fault, sites in alike.items())
            if self.min_sites is None and missing:
                text = f"not every site could be used {when}, and strategy.min_sites=null needs each one"
            else:
                text = f"{several(used, 'usable site')} {when}, strategy.min_sites={self.min_sites or 1}"
            remedy = f". {OTHER_SITES}" if Fault.REFUSED_PROTOCOL in missing.values() else ""
            raise StudyFailed(
                f"{text}. {why or 'no other that was asked has a weight above 0'}{remedy}", missing.values()
            )

    def learnable(self) -> None:
        """Raise StudyUnfit where no site has a training row of something that must occur, or the sites differ."""
        if self.against:
            raise StudyUnfit("; ".join(self.against))
        if self.absent:
            names = "', '".join(self.absent)
            raise StudyUnfit(
                f"no site has a training row with '{names}', so nothing can be learned of it; correct dataset.target, "
                "or a site's columns, or leave a class out that nobody has"
            )


def noting(replies: Iterable[Reply], faults: dict[str, Fault]) -> Iterator[Reply]:
    """The same replies; those that are faults are noted by site as they pass."""
    for reply in replies:
        if reply.fault is not None:
            faults[reply.site] = reply.fault
        yield reply
