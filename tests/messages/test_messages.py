"""Tasks, replies and summaries: what crosses a boundary, and what may not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flip.federation.spool import in_order, spool
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.safetensors import pack, unpack
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.messages.wire import pack_reply, pack_task, reply_parts, unpack_reply, unpack_task

TASK = Task(
    "run", "study", 2, "fit", {"w": np.ones(3, np.float32)}, {"c": np.zeros(2)}, {"split": "test"}, '{"seed":1}'
)


def reply(site: str, **fields) -> Reply:
    return Reply(site, TASK.digest, examples=4, metrics={"loss": 0.5}, weights={"w": np.ones(3, np.float32)}, **fields)


def count(number: float, persons: int = 100) -> Summary:
    return Summary(SummaryKind.COUNT, np.array([float(number)]), persons)


def test_a_task_comes_back_with_the_same_digest():
    assert unpack_task(pack_task(TASK)).digest == TASK.digest


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"}, {"stage": "alone"}, {"round": 3}, {"step": "evaluate"}, {"manifest": "{}"},
        {"params": {"split": "validate"}},
        {"weights": {"w": np.zeros(3, np.float32)}}, {"state": {}},
    ],
)  # fmt: skip
def test_every_field_of_a_task_is_in_its_digest(change):
    assert replace(TASK, **change).digest != TASK.digest


def test_a_reply_comes_back_whole():
    told = {
        Topic.SKIPPED: {"a gap": count(3)},
        Topic.METRIC: {"sex/male/auroc/ends": count(5), "loss/weight": count(4)},
    }
    sent = reply("kings", summaries=told, state={"dc": np.ones(1)}, fault=None)
    back = unpack_reply(pack_reply(sent))
    assert (back.site, back.task_digest, back.examples, back.metrics) == ("kings", TASK.digest, 4, {"loss": 0.5})
    values = {
        topic: {name: each.values.item() for name, each in named.items()} for topic, named in back.summaries.items()
    }
    assert values == {Topic.SKIPPED: {"a gap": 3}, Topic.METRIC: {"sex/male/auroc/ends": 5, "loss/weight": 4}}
    assert back.state["dc"].tolist() == [1]


def test_a_fault_comes_back():
    assert unpack_reply(pack_reply(reply("kings", fault=Fault.RAISED))).fault is Fault.RAISED


def test_a_fault_outside_the_closed_list_is_not_a_reply():
    head = {
        "site": "kings",
        "task_digest": "",
        "examples": 1,
        "metrics": {},
        "seconds": 0.0,
        "summaries": {},
        "fault": "Mr Smith, born 1950",
    }
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(pack({}, head))


def test_an_infinite_number_of_persons_is_not_a_reply():
    blob = pack_reply(reply("kings", summaries={Topic.SKIPPED: {"gap": count(3, persons=12345)}}))
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(blob.replace(b"12345", b"1e999"))


@pytest.mark.parametrize("name", [b"patient/gap", b"skipped_gap"])
def test_a_summary_of_no_known_topic_is_not_a_reply(name):
    blob = pack_reply(reply("kings", summaries={Topic.SKIPPED: {"gap": count(3)}}))
    assert blob.count(b"skipped/gap") == 2
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(blob.replace(b"skipped/gap", name))


HEAD = {"run": "r", "stage": "study", "round": 0, "step": "fit", "params": {}, "manifest": "{}"}
ANSWER = {
    "site": "kings", "task_digest": "", "examples": 1, "metrics": {}, "seconds": 0.0, "summaries": {}, "withheld": {},
    "fault": None, "fingerprint": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"params": None}, {"params": [1]}, {"params": {"split": ["test"]}}, {"params": {"split": "x" * 1001}},
        {"params": {"threshold": 10**400}}, {"params": {"threshold": float("nan")}}, {"round": -1}, {"round": 10**9},
        {"round": True}, {"round": 1.0}, {"round": "0"}, {"step": None}, {"step": ["fit"]}, {"run": 5},
        {"run": "r" * 1001}, {"stage": {}}, {"manifest": {"seed": 1}}, {"manifest": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_task_of_other_types_is_not_one(change):
    assert unpack_task(pack({}, HEAD)).step == "fit"
    with pytest.raises(ValueError, match="not a task"):
        unpack_task(pack({}, {**HEAD, **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": []}, {"metrics": None}, {"metrics": {"loss": None}}, {"metrics": {"loss": True}},
        {"metrics": {"loss": 10**400}}, {"metrics": {"l" * 1001: 1.0}}, {"examples": None}, {"examples": 1.5},
        {"examples": True}, {"examples": 10**30}, {"site": None}, {"site": ["kings"]}, {"task_digest": 7},
        {"seconds": "long"}, {"seconds": []}, {"fingerprint": []}, {"fingerprint": {"data": "a person"}},
        {"withheld": []}, {"withheld": {"auroc": 5}}, {"withheld": {"auroc": ["CELL"]}}, {"fault": []}, {"fault": ""},
        {"fault": 0}, {"summaries": []}, {"summaries": {"metric/x": ["count", 1]}}, {"summaries": {"metric/x": 5}},
        {"summaries": None}, {"state": {}}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_reply_of_other_types_is_not_one(change):
    assert unpack_reply(pack({}, ANSWER)).examples == 1
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(pack({}, {**ANSWER, **change}))


@pytest.mark.parametrize("persons", [-1, 1.5, True, "5", None, 10**30])
def test_an_aggregate_of_no_number_of_persons_is_not_a_reply(persons):
    head = {**ANSWER, "summaries": {"skipped/gap": ["count", persons]}}
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(pack({"summaries/skipped/gap": np.ones(1)}, head))


@pytest.mark.parametrize("name", ["other/w", "w", "summaries/skipped/gap"])
def test_an_array_that_nobody_looks_at_does_not_come_with_a_message(name):
    with pytest.raises(ValueError, match="unknown group"):
        unpack_task(pack({name: np.ones(1)}, HEAD))
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(pack({name: np.ones(1)}, ANSWER))


def test_a_shape_of_a_hundred_thousand_axes_is_not_multiplied():
    header = {"__metadata__": {"head": "{}"}, "w": {"dtype": "I8", "shape": [2**40] * 65, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    with pytest.raises(ValueError, match="not a packed message"):
        unpack(len(text).to_bytes(8, "little") + text)


# Summaries.


def test_moments_of_two_sites_add_up():
    rows = np.random.default_rng(0).normal(size=20)
    parts = [
        Summary(SummaryKind.MOMENTS, np.array([len(p), p.sum(), (p**2).sum()]), len(p)) for p in (rows[:7], rows[7:])
    ]
    merged = parts[0].merge(parts[1])
    assert merged.values == pytest.approx([20, rows.sum(), (rows**2).sum()])
    assert merged.persons == 20


def test_summaries_of_different_shapes_do_not_merge():
    with pytest.raises(ValueError, match="cannot merge"):
        count(1).merge(Summary(SummaryKind.COUNT, np.zeros(2), 5))


def test_a_withheld_summary_merges_as_nothing():
    assert count(7).merge(Summary(SummaryKind.COUNT, np.zeros(0), 0)).values.tolist() == [7]


def test_what_a_site_withholds_arrives_by_its_rule_and_no_other_word_does():
    blob = pack_reply(reply("a", withheld={"auroc": Withheld.CELL}))
    assert unpack_reply(blob).withheld == {"auroc": Withheld.CELL}
    with pytest.raises(ValueError, match="not a reply"):
        unpack_reply(blob.replace(b"CELL", b"PAT7"))


# The order of arrival.


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_replies_come_in_site_order_whatever_the_order_of_arrival(order):
    arrivals = ((site, pack_reply(reply(site))) for site in order)
    assert [each.site for each in in_order(arrivals, TASK, ["a", "b", "c"])] == ["a", "b", "c"]


def test_a_reply_can_still_be_read_after_the_next_one_and_its_file_is_gone(tmp_path):
    files = {site: spool(tmp_path / site, reply_parts(reply(site))) for site in ("a", "b")}
    kept = [*in_order(iter(files.items()), TASK, ["a", "b"])]
    assert [each.weights["w"].tolist() for each in kept] == [[1, 1, 1], [1, 1, 1]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["bytes", "file"])
def test_a_reply_that_is_longer_than_any_can_be_takes_no_disk(form, tmp_path, monkeypatch):
    monkeypatch.setattr("flip.federation.spool.BESIDE", 1000)
    monkeypatch.setattr("flip.federation.spool.tempfile.tempdir", str(tmp_path))
    blob = pack_reply(replace(reply("a"), state={"more": np.zeros(500)}))
    found = [spool(tmp_path / "a", [blob]) if form == "file" else blob, pack_reply(reply("b"))]
    replies = in_order(zip("ab", found, strict=True), TASK, ["a", "b"])
    assert next(replies).fault is Fault.INVALID
    assert next(replies).fault is None
    assert not (tmp_path / "a").exists()


def test_an_empty_file_is_no_reply(tmp_path):
    (tmp_path / "a").touch()
    (found,) = in_order(iter([("a", tmp_path / "a")]), TASK, ["a"])
    assert found.fault is Fault.INVALID


def test_a_site_that_never_answers_has_exactly_one_reply_with_a_fault():
    replies = list(in_order(iter([("b", pack_reply(reply("b")))]), TASK, ["a", "b"]))
    assert [(each.site, each.fault) for each in replies] == [("a", Fault.LOST), ("b", None)]


def test_a_reply_that_comes_twice_counts_once():
    blob = pack_reply(reply("a"))
    assert len(list(in_order(iter([("a", blob), ("a", blob), ("b", pack_reply(reply("b")))]), TASK, ["a", "b"]))) == 2


def test_a_reply_in_the_name_of_another_site_is_invalid():
    (found,) = in_order(iter([("a", pack_reply(reply("b")))]), TASK, ["a"])
    assert (found.site, found.fault) == ("a", Fault.INVALID)


def test_bytes_that_are_no_reply_are_invalid():
    (found,) = in_order(iter([("a", b"\x80\x04 not ours")]), TASK, ["a"])
    assert found.fault is Fault.INVALID
