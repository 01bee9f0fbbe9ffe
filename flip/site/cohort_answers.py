"""Answers about a cohort, each given once: the same question about the same data gets the reply that left then.

Two answers over cohorts that differ by one person tell of this person, whichever run or study asked for them. So what
counts is the cohort as it is defined and lies on the disk, not the run: one that was described is answered again, and a
site answers only so many others.
"""

import hashlib
import json
from dataclasses import replace

from flip.files import mapped, write_atomic
from flip.messages import Answer, Fault, Reply, Task
from flip.messages.weights import digest
from flip.messages.wire import reply_parts, take, unpack_reply
from flip.site.admission import Loaded, Place
from flip.site.counters import Counter
from flip.site.fingerprint import fingerprint
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE


def asks_about_cohort(task: Task) -> bool:
    """Whether the answer to a task describes the cohort; a try of the model tells nothing of it."""
    return task.step in ("statistics", "plan") or (task.step == "describe" and not task.params.get("tries"))


def answered_once(place: Place, loaded: Loaded, task: Task, answer: Answer) -> Reply:
    """The reply that left for the same question, else the answer, which is kept.

    Raises Refusal where it would be one question more than the policy's `maximum_questions`.
    """
    folder, cohort = place.home / "state" / "cohorts", _cohort(place, loaded, task)
    edges = take(task.state, "edges")
    question = hashlib.sha256(f"{cohort} {digest(edges)}".encode()).hexdigest() if edges else cohort
    kept = folder / f"{question}.{task.step}.safetensors"
    if kept.exists():
        return replace(unpack_reply(mapped(kept)), task_digest=task.digest)
    most = loaded.policy.maximum_questions
    if not Counter(folder / "asked.jsonl").take("cohort", question, most):
        raise Refusal(Fault.REFUSED_QUESTION, f"{task.step}: another cohort or other edges, maximum_questions: {most}")
    reply = answer(task)
    write_atomic(kept, reply_parts(reply), PRIVATE)
    return reply


def _cohort(place: Place, loaded: Loaded, task: Task) -> str:
    """What an answer about a cohort depends on: its definition, its data, the site's file, and what protects it."""
    study, data = loaded.manifest, loaded.datamodule
    read = fingerprint(place.name, place.site, place.home, datamodule=data, task=task)
    parts = [study["dataset"], study["privacy"], study["mechanisms"], loaded.policy.digest, read["data"], read["file"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
