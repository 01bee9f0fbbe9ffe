"""What would leave a site and waits there: kept until persons whom its file lists release it, or refuse to.

Their decisions lie in the folder `releases` beside the site's file, as approvals do in theirs. A release of statistics
or of results is of the very answers that a person was shown, by their digests: an answer of other bytes waits anew. One
of the training is of all of it in that run, as one envelope. One listed person is enough to refuse.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flip.config.approvers import Release
from flip.config.envelope import canonical
from flip.files import write_atomic
from flip.messages import Fault, Payload, Reply, Task
from flip.messages.stages import TRAINING, release_stage
from flip.site.approvals import READABLE, read_file
from flip.site.journal import Behind
from flip.site.signatures import Signature, signers
from flip.site.state import PRIVATE

HELD, RELEASES = "held", "releases"  # folders: in the site's home, and beside its file
WAITING, LEFT = ".json", ".left"
PURPOSE = b"FLIP release of a stage\n"
MOST_VALUES = 1000  # of one name that a person is shown

Record = dict[str, object]


@dataclass(frozen=True)
class Decision:
    """What persons at a site say of a stage of a run.

    Attributes:
        site: the site's name in the roster. run, study: identifier, and sha256 of the manifest. stage: of `STAGES`.
        answers: digests of what was shown; of the training it is all of it, whatever is shown.
        leaves: whether it may leave. reason: why.
    """

    site: str
    run: str
    study: str
    stage: str
    answers: Sequence[str]
    leaves: bool
    reason: str
    signatures: Sequence[Signature] = ()

    @classmethod
    def parse(cls, text: str) -> "Decision":
        """From a file's text. Raises ValueError for what is none."""
        try:
            value = json.loads(text)
            made = cls(**{**value, "signatures": [Signature(**each) for each in value["signatures"]]})
            if not isinstance(made.answers, list) or not isinstance(made.leaves, bool):
                raise ValueError("a part of the decision has another type")
            return made
        except (AttributeError, LookupError, TypeError, RecursionError) as error:
            raise ValueError("is no decision") from error

    @property
    def statement(self) -> str:
        """What is signed: all but the signatures."""
        return canonical({name: value for name, value in asdict(self).items() if name != "signatures"})

    @property
    def digest(self) -> str:
        """Sha256 of the statement."""
        return hashlib.sha256(self.statement.encode()).hexdigest()

    def signers(self, rule: Release) -> set[str]:
        """The listed persons whose signature is whole."""
        return signers(PURPOSE, self.statement, self.signatures, rule.by.keys)

    def is_of(self, record: Mapping[str, object]) -> bool:
        """Whether it speaks of an answer."""
        same = all(getattr(self, key) == record[key] for key in ("site", "run", "study", "stage"))
        return same and (self.stage == TRAINING or record["digest"] in self.answers)


@dataclass(frozen=True)
class Waiting:
    """The answers that wait at a site, and what persons there have said of them; `home` is the site's."""

    home: Path

    @property
    def folder(self) -> Path:
        """Where the decisions lie."""
        return self.home.parent / RELEASES

    def keep(self, decision: Decision) -> Path:
        """Write a decision down, in place of the same one with fewer signatures."""
        path = self.folder / f"{decision.digest[:16]}.json"
        write_atomic(path, (canonical(asdict(decision)) + "\n").encode(), READABLE)
        return path

    def decisions(self) -> Iterator[Decision]:
        """Every one that can be read, whoever has signed it; links count for nothing."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.json")):
            try:
                yield Decision.parse(read_file(path))
            except (OSError, ValueError):
                continue  # it lets nothing leave

    def records(self) -> list[Record]:
        """What waits, in the order in which it came."""
        found = [json.loads(path.read_text()) for path in (self.home / HELD).glob(f"*{WAITING}")]
        return sorted(found, key=lambda each: str(each["held"]))

    def decided(self, record: Mapping[str, object], rule: Release) -> bool | None:
        """Whether an answer may leave; None where it waits. A refusal comes before every release."""
        found = [(each.leaves, each.signers(rule)) for each in self.decisions() if each.is_of(record)]
        if any(who and not leaves for leaves, who in found):
            return False
        return True if any(leaves and len(who) >= rule.by.needed for leaves, who in found) else None

    def fault(self, rule: Release | None, task: Task, reply: Reply, behind: Behind) -> Fault | None:
        """Why an answer of the digest `behind.held` does not leave now; where it is held, it is written down.

        One that leaves after it was held is in the journal with the persons that were behind it when it was computed.
        """
        stage = release_stage(task)
        if rule is None or stage not in rule.stages:
            behind.held = ""
            return None
        record = _record(task, stage, reply, behind)
        decided = self.decided(record, rule)
        name = hashlib.sha256(canonical([record[key] for key in ("run", "study", "digest")]).encode()).hexdigest()[:32]
        path = self.home / HELD / f"{name}{WAITING}"
        if decided is None and not path.exists():
            write_atomic(path, (canonical(record) + "\n").encode(), PRIVATE)
        if decided and path.exists():
            first = json.loads(path.read_text())
            behind.persons, behind.cohort, behind.repeated = first["persons"], first["cohort"], False
            path.replace(path.with_suffix(LEFT))
        behind.held = "" if decided else behind.held
        return None if decided else Fault.HELD if decided is None else Fault.REFUSED_RELEASE


def _record(task: Task, stage: str, reply: Reply, behind: Behind) -> Record:
    """What a person is shown of an answer: how many persons, which numbers."""
    told = {
        f"{topic.value}/{name}": _values(each.values.ravel().tolist())
        for topic, named in reply.summaries.items()
        for name, each in named.items()
    }
    return {
        "held": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "site": reply.site,
        "run": task.run,
        "study": hashlib.sha256(task.manifest.encode()).hexdigest(),
        "stage": stage,
        "step": f"{task.step} of {task.stage}",
        "round": task.round,
        "digest": behind.held,
        "persons": behind.persons,
        "cohort": behind.cohort,
        "examples": reply.examples,
        "metrics": {name: repr(value) for name, value in sorted(reply.metrics.items())},
        "withheld": {name: rule.name for name, rule in sorted(reply.withheld.items())},
        "told": told,
        "arrays": {**_shapes(reply.weights), **_shapes(reply.state)},
    }


def _values(values: list[float]) -> list[str]:
    more = [f"and {len(values) - MOST_VALUES} more"] if len(values) > MOST_VALUES else []
    return [f"{value:.6g}" for value in values[:MOST_VALUES]] + more


def _shapes(arrays: Payload) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in sorted(arrays.items())}
