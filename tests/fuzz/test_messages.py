"""No task, reply or manifest, whatever its bytes, raises out of what reads it: a fault, or ValueError."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from flip.config.build import initial_module
from flip.coordinator.check_replies import Wanted, checked
from flip.federation.answer import answer_parts
from flip.messages import Fault, Reply, Task
from flip.messages.safetensors import pack
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.messages.weights import to_arrays
from flip.messages.wire import pack_reply, pack_task, unpack_reply, unpack_task
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.fuzz.cases import JSON, NUMBERS, TEXTS, cases, changed, spoiled
from tests.studies import tiny_heart_study

ONES = np.ones(3, np.float32)
TASK = Task("run", "study", 2, "fit", {"w": ONES}, {"c": np.zeros(2)}, {"split": "test"}, '{"seed":1}')
SUMS = {
    Topic.STATISTICS: {"moments/age": Summary(SummaryKind.MOMENTS, np.array([6.0, 300.0, 16000.0]), 10)},
    Topic.METRIC: {"loss/weight": Summary(SummaryKind.SUM, np.array(4.0), 4)},
}
REPLY = Reply("kings", TASK.digest, 4, {"loss": 0.5}, {"w": ONES}, {"c": np.zeros(2)}, SUMS)
WANTED = Wanted({"w": ONES}, {"c": np.zeros(2)}, frozenset({"loss"}), {"loss/weight": np.array(0.0)}, {"kings": 9})
TASK_HEAD = {"run": "r", "stage": "study", "round": 0, "step": "fit", "params": {"split": "test"}, "manifest": "{}"}
REPLY_HEAD = {
    "site": "kings", "task_digest": TASK.digest, "examples": 4, "metrics": {"loss": 0.5}, "seconds": 0.1,
    "summaries": {"metric/loss/weight": ["sum", 4]}, "withheld": {"loss": "CELL"}, "fault": None,
    "fingerprint": {"data": "0" * 64},
}  # fmt: skip
ARRAYS = {"weights/w": ONES, "state/c": np.zeros(2), "summaries/metric/loss/weight": np.array(4.0)}


def read_task(blob: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(unpack_task(blob).digest) == 64


def read_reply(blob: bytes) -> None:
    try:
        reply = unpack_reply(blob)
    except ValueError:
        return
    with np.errstate(all="raise", under="ignore"):  # what is too small becomes 0
        assert isinstance(checked(reply, TASK, WANTED), Reply)


@cases(500)
@given(some.one_of(some.binary(max_size=200), spoiled(pack_task(TASK))))
def test_bytes_that_claim_to_be_a_task(blob):
    read_task(blob)


@cases(500)
@given(some.one_of(some.binary(max_size=200), spoiled(pack_reply(REPLY))))
def test_bytes_that_claim_to_be_a_reply(blob):
    read_reply(blob)


@cases()
@given(some.one_of(changed(TASK_HEAD), some.dictionaries(TEXTS, JSON, max_size=4)))
def test_a_head_that_claims_to_be_a_tasks(head):
    read_task(pack({"weights/w": ONES}, head))


@cases()
@given(some.one_of(changed(REPLY_HEAD), some.dictionaries(TEXTS, JSON, max_size=4)))
def test_a_head_that_claims_to_be_a_replys(head):
    read_reply(pack(ARRAYS, head))


FLOATS = some.floats(width=32)


@cases()
@given(
    some.lists(FLOATS, min_size=3, max_size=3),
    some.lists(some.floats(), min_size=3, max_size=3),
    NUMBERS,
    some.sampled_from(["statistics", "fit", "evaluate", "describe"]),
)
def test_numbers_that_pass_the_check_can_be_computed_with(weights, moments, examples, step):
    task = Task("run", "study", 2, step, TASK.weights, TASK.state, {}, "{}")
    told = {Topic.STATISTICS: {"moments/age": Summary(SummaryKind.MOMENTS, np.array(moments), 10)}}
    arrays = {"weights": {"w": np.array(weights, np.float32)}, "state": {"c": np.zeros(2)}}
    wanted = Wanted(TASK.weights, TASK.state, frozenset({"train"}), {}, {"kings": 9})
    reply = checked(Reply("kings", task.digest, examples, {"train": 9.0}, summaries=told, **arrays), task, wanted)
    if reply.fault is None:
        assert 0 <= reply.examples <= 9
        with np.errstate(over="raise", invalid="raise"):
            assert np.isfinite((reply.weights["w"] - -reply.weights["w"]) * np.float32(1e9)).all()
            number, total, squares = reply.summaries[Topic.STATISTICS]["moments/age"].values.astype(np.float32) * 100
        assert number <= 900
        assert number * squares >= total * total * 0.99 or abs(total) > 1e15
    else:
        assert not reply.weights
        assert not reply.summaries


@cases()
@given(JSON, JSON, JSON, JSON, JSON)
def test_a_reply_of_any_types_is_checked(metrics, examples, weights, summaries, fingerprint):
    reply = Reply("kings", TASK.digest, examples, metrics, weights, {}, summaries, fingerprint=fingerprint)
    assert checked(reply, TASK, WANTED).fault in (Fault.INVALID, Fault.IMPLAUSIBLE)


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Silo, Task]]:
    folder = tmp_path_factory.mktemp("site")
    study = tiny_heart_study(write_tiny_heart(folder / "data"))
    weights = to_arrays(initial_module(study.manifest))
    moments = {"statistics/moments/features": np.array([[100.0, 0.0, 1e7]] * 13)}
    task = Task("run", "study", 0, "statistics", weights, moments, {}, study.manifest_text)
    return Silo("cleveland", study.sites["cleveland"], folder / "home"), task


def answered(silo: Silo, **head: object) -> Reply:
    return unpack_reply(b"".join(answer_parts(silo, pack({}, {**TASK_HEAD, **head}))))


@cases(60)
@given(
    some.sampled_from(["statistics", "describe", "evaluate", "measure", "", "fit", "_fit", "keys"]),
    some.dictionaries(some.sampled_from(["split", "outcomes", "threshold", "tries", "alone"]), JSON, max_size=3),
    some.integers(0, 10**6),
)
def test_a_site_answers_any_step_with_any_parameters(silo, step, params, number):
    site, task = silo
    try:
        reply = answered(site, step=step, params=params, round=number, manifest=task.manifest)
    except ValueError:
        return
    assert reply.fault is not None or step in ("statistics", "describe", "evaluate", "fit", "measure")


@cases(60)
@given(some.data())
def test_a_site_answers_a_study_of_any_form(silo, data):
    site, task = silo
    manifest = data.draw(some.one_of(changed(json.loads(task.manifest)), JSON))
    text = data.draw(some.one_of(some.just(json.dumps(manifest)), TEXTS))
    assert isinstance(answered(site, step="statistics", manifest=text), Reply)
    site._loaded.clear()


def test_where_a_site_writes_is_its_own_home(silo, tmp_path: Path):
    site, task = silo
    before = {path.name for path in site.home.parent.iterdir()}
    answered(site, step="fit", run="../../x", manifest=task.manifest)
    assert {path.name for path in site.home.parent.iterdir()} == before
