"""A site: answers the coordinator's tasks on its own data, under its own policy, and says nothing more."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flip.config import build
from flip.config.policy import Policy
from flip.config.schema import Site
from flip.contracts import FederatedDataModule
from flip.errors import disk_full
from flip.files import private_files
from flip.messages import Fault, Reply, Task
from flip.site.admission import Accepted, Loaded, Place, accept, admit
from flip.site.audit import audited
from flip.site.bounds import memory_limit, time_limit
from flip.site.cohort_answers import answered_once, asks_about_cohort
from flip.site.cohorts_apart import keep_apart
from flip.site.disclosure import released
from flip.site.gate import OF_ROWS, Question, let_in
from flip.site.held import Waiting
from flip.site.journal import FILE, Behind, Journal, content_of, journal_of
from flip.site.layers import through_mechanisms
from flip.site.log import site_log
from flip.site.persons import persons_named
from flip.site.refusal import Refusal
from flip.site.steps import Steps
from flip.site.sums import SHAPES

Told = tuple[Reply, tuple[int, str]]  # a reply with its bytes and digest, of which the journal tells


class Silo:
    """A site.

    Args:
        name: the site's name in the roster.
        site: the site's own file.
        home: folder of the site's own log, state and reports; nothing in it is ever sent.
        deployed: the site is a hospital's, not simulated: its file may wave nothing through as public or simulated.
        file: where the site's file lies: it is read anew for every task. None: it stays as it is.
    """

    def __init__(self, name: str, site: Site, home: Path, *, deployed: bool = False, file: Path | None = None) -> None:
        self.place = Place(name, site, home, deployed, file)
        self._accepted: dict[str, Accepted] = {}
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

        Every task is in the site's journal before it passes the gate, and what came of it before that leaves. One that
        was answered before (same digest, same policy) gets what left then.
        """
        started = time.perf_counter()
        with private_files():
            reply = self._written_down(task, self._reply)
        return replace(reply, seconds=time.perf_counter() - started)

    def ended(self, task: Task, how: str) -> Reply:
        """Say that the process which was asked before this one ended; `how`, for the site's log. Never raises."""
        with private_files():
            self._log.error("%s round %s: %s", task.step, task.round + 1, how)
            return self._written_down(task, lambda task, _: told(self._fault(task, Fault.ENDED)))

    def _written_down(self, task: Task, reply_to: Callable[[Task, Behind], Told]) -> Reply:
        """The reply, of which the journal tells; a refusal where it cannot, and then nothing else leaves."""
        try:
            journal, behind = self._journal(), Behind()
            journal.asked(task)
            reply, content = self._seen(task, reply_to(task, behind), behind)
            return journal.left(task, reply, content, behind)
        except (OSError, ValueError) as error:
            self._log.error("%s: nothing leaves that the journal %s does not tell of: %s", task.step, FILE, error)
            return self._fault(task, Fault.DISK if disk_full(error) else Fault.REFUSED_JOURNAL)

    def _seen(self, task: Task, made: Told, behind: Behind) -> Told:
        """The same where it may leave; a fault where a person here is to see it first, or does not release it."""
        reply, content = made
        if reply.fault is not None:
            return made
        behind.held = content[1]
        try:
            fault = Waiting(self.home).fault(self.place.policy().release, task, reply, behind)
        except Refusal as refusal:
            fault = refusal.fault
        if fault is None:
            return made
        self._log.warning("%s round %s: %s; flip site release", task.step, task.round + 1, fault.name)
        return told(self._fault(task, fault))

    def _reply(self, task: Task, behind: Behind) -> Told:
        """The reply as it will leave, a fault where anything went wrong; and its bytes and digest."""
        try:
            return told(self._answer(task, behind))
        except Refusal as refusal:
            self._log.warning("%s round %s: %s", task.step, task.round + 1, refusal)
            fault = refusal.fault
        except build.DataError:
            self._log.exception("%s round %s: the cohort could not be read", task.step, task.round + 1)
            fault = Fault.DATA
        except Exception as error:  # the boundary of the site: every error becomes a fault, and is written down here
            self._log.exception("%s round %s", task.step, task.round + 1)
            fault = _fault_of(error, task)
        return told(self._fault(task, fault))

    def datamodule(self, task: Task) -> FederatedDataModule:
        """The site's data as for this task, loaded under its policy: for pooling, where one owner has all sites.

        The journal tells of it, as of a reply that holds nothing. Raises Refusal, and what a cohort raises.
        """
        with private_files():
            journal, behind = self._journal(), Behind(repeated=False)
            journal.asked(task)
            try:
                loaded = self._rows(task)
                behind.persons, behind.cohort = loaded.persons, self._names_kept(loaded)
            except Refusal as refusal:
                journal.left(task, *told(self._fault(task, refusal.fault)), behind)
                raise
            journal.left(task, *told(self._fault(task, None)), behind)
            return loaded.datamodule

    def _rows(self, task: Task) -> Loaded:
        question = Question(task, self.place, self._policy(), self._accept)
        for rule in OF_ROWS:
            rule(question)
        loaded = self._load(question.study)
        if loaded.few:
            raise Refusal(*loaded.few)
        loaded.agree(task)
        loaded.pooled = True
        return loaded

    def _names_kept(self, loaded: Loaded) -> str:
        """What the journal calls the persons of a cohort, once it has them."""
        loaded.cohort = loaded.cohort or self._journal().of_persons(persons_named(loaded.datamodule))
        return loaded.cohort

    @audited
    def _answer(self, task: Task, behind: Behind) -> Reply:
        policy = self._policy()
        with time_limit(policy.maximum_seconds, self._log, self.home), memory_limit(policy.maximum_memory, self._log):
            return self._answered(task, policy, behind)

    def _answered(self, task: Task, policy: Policy, behind: Behind) -> Reply:
        question = Question(task, self.place, policy, self._accept)
        let_in(question)
        store = self.place.store(task.run)
        if (found := store.answered(task, policy)) is not None:
            return found
        loaded = self._load(question.study)
        behind.cohort = self._names_kept(loaded)
        keep_apart(loaded, self.home, self._journal().person)
        return self._computed(task, loaded, policy, behind)

    def _computed(self, task: Task, loaded: Loaded, policy: Policy, behind: Behind) -> Reply:
        """A reply that was not given before, kept where it can be asked for again."""
        store = self.place.store(task.run)
        if task.step == "statistics" and loaded.mechanisms:
            from flip.site.fit import LocalFit

            LocalFit(self.place, loaded, store, task).afford()
        wrapped = through_mechanisms(Steps(self.place, loaded, self._log, behind).answer, self.place, loaded, task)
        if asks_about_cohort(task):
            return answered_once(self.place, loaded, task, wrapped)
        reply = wrapped(task)
        if task.step in ("fit", "evaluate", *SHAPES):  # as it leaves: a repeated task gets nothing that did not
            store.keep_reply(task, reply, policy)
        return reply

    def _journal(self) -> Journal:
        return journal_of(self.name, self.site, self.home)

    def _policy(self) -> Policy:
        """The policy of the site's file as it is now; what rested on another file is forgotten."""
        place = self.place.now()
        if place is not self.place:
            self.place, self._accepted, self._loaded = place, {}, {}
        return self.place.policy()

    def _accept(self, text: str, policy: Policy) -> Accepted:
        """Accept a study, once."""
        if text not in self._accepted:
            self._accepted[text] = accept(text, self.place, policy)
        return self._accepted[text]

    def _load(self, accepted: Accepted) -> Loaded:
        """Build an accepted study over the site's data, once."""
        if accepted.digest not in self._loaded:
            self._loaded[accepted.digest] = admit(accepted, self.place)
        return self._loaded[accepted.digest]

    def _fault(self, task: Task, fault: Fault | None) -> Reply:
        """A reply that holds nothing but its fault, if any."""
        return released(0, Policy(1, 1), "", private=False, site=self.name, task_digest=task.digest, fault=fault)


def told(reply: Reply) -> Told:
    """What the journal tells of a reply."""
    return reply, content_of(reply)


def _fault_of(error: Exception, task: Task) -> Fault:
    """Of an error that nothing foresaw; what a cohort raises while it is told of is its data's: nothing is trained."""
    if disk_full(error):
        return Fault.DISK
    return Fault.DATA if isinstance(error, OSError | ValueError) and asks_about_cohort(task) else Fault.RAISED
