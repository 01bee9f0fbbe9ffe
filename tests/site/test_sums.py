"""Secure sums at a site's gate and under its file: which steps pass, how often, and who its peers are."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from flip.__main__ import main
from flip.config.site_file import load_site
from flip.coordinator.check_replies import Wanted
from flip.messages import Fault, Reply, Task
from flip.messages.wire import pack_reply, pack_task, unpack_reply, unpack_task
from flip.privacy.secure_aggregation import SecureAggregation
from flip.site.silo import Silo
from flip.site.steps import Steps
from flip.strategies.fedavg import FedAvg
from tests.cohorts.heart import write_tiny_heart
from tests.config.checks.test_sums import SECURE
from tests.coordinator.test_loop import Notes, coordinator
from tests.site.test_gate import MOMENTS, RULES
from tests.studies import tiny_heart_study

NAMES = ("cleveland", "hungarian", "switzerland", "va")


class Hospitals:
    """Four deployed sites that know one another's keys; `tap` has every task with its site and reply."""

    def __init__(self, folder: Path, **rules: object) -> None:
        self.folder = folder
        self.study = tiny_heart_study(write_tiny_heart(folder / "data"), *SECURE)
        self.tap: list[tuple[Task, str, Reply]] = []
        self.lost: set[tuple[str, str]] = set()
        self.write(**rules)
        keys = {}
        for name in NAMES:
            folder.joinpath(name).mkdir(exist_ok=True)
            keys[name] = self.key(name)
        self.write(keys, **rules)
        self.open()

    def write(self, peers: dict | None = None, **rules: object) -> None:
        """Have the owners write their files."""
        for name in NAMES:
            root = self.folder / "data" / "uci_heart" / f"processed.{name}.data"
            own = {"root": str(root), "person": "row", "policy": {**RULES, "share": 1.0, "minimum_cell": 2, **rules}}
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump({**own, "peers": peers or {}}))

    def key(self, name: str) -> str:
        """What `flip site peer` says."""
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["site", "peer", str(self.folder / f"{name}.yaml")]) == 0
        return out.getvalue().strip()

    def open(self) -> None:
        """Start the sites' processes anew."""
        files = {name: self.folder / f"{name}.yaml" for name in NAMES}
        self.silos = {
            name: Silo(name, load_site(file), file.with_suffix(""), deployed=True, file=file)
            for name, file in files.items()
        }

    def task(self, number: int = 0) -> Task:
        from flip.config.build import initial_module
        from flip.messages.weights import to_arrays

        weights = to_arrays(initial_module(self.study.manifest))
        return Task("run", "study", number, "fit", weights, dict(MOMENTS), {}, self.study.manifest_text)

    def ask(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        """As a backend: bytes there and back."""
        for name in names:
            if (task.step, name) in self.lost:
                yield Reply(name, task.digest, fault=Fault.LOST)
                continue
            reply = unpack_reply(pack_reply(self.silos[name].answer(unpack_task(pack_task(task)))))
            self.tap.append((task, name, reply))
            yield reply

    def round(self, number: int = 0) -> dict[str, Reply]:
        """A round as the strategy sees it."""
        mechanism = SecureAggregation()
        mechanism.lend(FedAvg(rounds=1).weight)
        return {reply.site: reply for reply in mechanism.wrap_ask(self.ask)(self.task(number), NAMES)}

    def asked(self, step: str) -> Task:
        """The task of a step as it was asked last."""
        return next(task for task, *_ in reversed(self.tap) if task.step == step)

    def log(self, name: str = "va") -> str:
        return (self.folder / name / "site.log").read_text()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A fit without training: the weights moved by the site's own number."""
    answer = Steps.answer

    def fit(self: Steps, task: Task) -> Reply:
        if task.step != "fit":
            return answer(self, task)
        own = np.float32(0.001 * (1 + NAMES.index(self.place.name)))
        moved = {name: array + own for name, array in task.weights.items()}
        return Reply(self.place.name, task.digest, 10, {"loss": 0.5}, moved)

    monkeypatch.setattr(Steps, "answer", fit)


@pytest.fixture
def hospitals(tmp_path: Path) -> Hospitals:
    return Hospitals(tmp_path)


def test_hospitals_that_require_it_make_a_sum_whose_parts_nobody_sees(tmp_path):
    hospitals = Hospitals(tmp_path, secure_aggregation="required", least_sites=1)
    replies = hospitals.round()
    assert {reply.fault for reply in replies.values()} == {None}
    start = hospitals.task().weights
    for reply in replies.values():
        for name, array in reply.weights.items():
            np.testing.assert_allclose(array, start[name] + np.float32(0.0025), atol=1e-6, rtol=0)
    assert not any(dict(reply.weights) for *_, reply in hospitals.tap)
    assert {task.step for task, *_ in hospitals.tap} == {"fit", "keys", "shares", "masked", "survivors", "unmask"}


def test_a_repeated_task_gets_the_stored_reply(hospitals):
    hospitals.round()
    hospitals.open()
    for task, name, reply in list(hospitals.tap):
        again = hospitals.silos[name].answer(task)
        assert again.fault is None
        assert {key: array.tobytes() for key, array in again.state.items()} == {
            key: array.tobytes() for key, array in reply.state.items()
        }


def test_a_round_begun_again_opens_the_same_sum_and_no_other(hospitals):
    first = hospitals.round()
    hospitals.open()
    again = hospitals.round()
    assert all(np.array_equal(again["va"].weights[name], array) for name, array in first["va"].weights.items())
    hospitals.lost = {("masked", "va")}
    other = hospitals.round()
    assert not any(reply.weights for reply in other.values())
    assert "unmask/0: this run has asked 1 times already, which are all" in hospitals.log("cleveland")


def test_a_round_is_begun_three_times_at_most(hospitals):
    hospitals.lost = {("shares", name) for name in NAMES}
    for _ in range(3):
        hospitals.round()
    hospitals.lost = set()
    assert not any(reply.weights for reply in hospitals.round().values())
    assert "keys/0: this run has asked 3 times already, which are all" in hospitals.log()


def test_a_step_of_one_try_has_one_question(hospitals):
    hospitals.round()
    again = hospitals.asked("shares")
    fewer = replace(again, state={name: each for name, each in again.state.items() if name != "keys/va"})
    assert hospitals.silos["cleveland"].answer(fewer).fault is Fault.REFUSED_PROTOCOL
    session = again.params["session"]
    assert f"shares/0/{session}: this run has asked 1 times already" in hospitals.log("cleveland")


def test_weights_that_are_not_the_studys_come_into_no_sum(tmp_path, monkeypatch):
    monkeypatch.undo()
    hospitals = Hospitals(tmp_path)
    task = hospitals.task()
    chosen = replace(task, weights={name: array + np.float32(1) for name, array in task.weights.items()})
    assert hospitals.silos["va"].answer(chosen).fault is Fault.REFUSED_WEIGHTS
    params = {"session": "s", "fit": chosen.digest}
    keys = replace(task, step="keys", weights={}, state={}, params=params)
    assert hospitals.silos["va"].answer(keys).fault is Fault.REFUSED_PROTOCOL


def text(length: int) -> np.ndarray:
    return np.zeros(length, np.uint8)


SUMS = {
    "no session": lambda task: replace(task, params={"fit": "0"}),
    "a long session": lambda task: replace(task, params={**task.params, "session": "s" * 65}),
    "another parameter": lambda task: replace(task, params={**task.params, "split": "test"}),
    "weights": lambda task: replace(task, weights={"linear.bias": np.zeros(1, np.float32)}),
    "an array with keys": lambda task: replace(task, state={"keys/a": text(232)}),
    "keys of another length": lambda task: replace(task, step="shares", state={"keys/a": text(231)}),
    "too many sites": lambda task: replace(task, step="shares", state={f"keys/{n}": text(232) for n in range(257)}),
    "rows for too many": lambda task: replace(task, step="masked", state={"shares/a": np.zeros((257, 148), np.uint8)}),
    "numbers": lambda task: replace(task, step="unmask", state={"present/a": np.ones(1)}),
    "statistics": lambda task: replace(task, step="unmask", state={"statistics/moments/a": text(1)}),
    "a name that is none": lambda task: replace(task, step="unmask", state={"present": text(1)}),
    "a round beyond the last": lambda task: replace(task, round=3),
    "another stage": lambda task: replace(task, stage="alone"),
}


def test_a_step_of_a_sum_that_has_what_no_sum_has_does_not_pass_the_gate(hospitals):
    task = replace(hospitals.task(), step="keys", weights={}, state={}, params={"session": "s", "fit": "f"})
    silo = hospitals.silos["va"]
    for name, made in SUMS.items():
        assert silo.answer(made(task)).fault is Fault.REFUSED_PROTOCOL, name
    counted = hospitals.folder / "va" / "state"
    assert not list(counted.rglob("asked.jsonl")), "what does not pass is not counted"


def test_a_study_without_the_mechanism_has_no_such_steps(hospitals, tmp_path):
    plain = tiny_heart_study(tmp_path / "data")
    task = replace(hospitals.task(), step="keys", weights={}, state={}, params={"session": "s", "fit": "f"})
    asked = replace(task, manifest=plain.manifest_text)
    assert hospitals.silos["va"].answer(asked).fault is Fault.REFUSED_PROTOCOL
    assert "keys: the study makes no sums" in hospitals.log()


def test_a_hospital_without_peers_refuses_the_mechanism_by_name(hospitals):
    hospitals.write()
    assert hospitals.silos["va"].answer(hospitals.task()).fault is Fault.REFUSED_RULE
    assert "privacy=secure_aggregation: this site's file names no peers" in hospitals.log()
    assert hospitals.key("va") in hospitals.log()


def test_a_peer_whose_key_is_another_is_in_no_sum_here(hospitals):
    keys = {name: hospitals.key(name) for name in NAMES}
    hospitals.write({**keys, "hungarian": keys["va"]})
    assert not any(reply.weights for reply in hospitals.round().values())
    assert "keys that hungarian did not sign for this round" in hospitals.log()


def test_a_key_that_is_none_is_named_by_the_check(hospitals, capsys):
    hospitals.write({"va": "abc"})
    assert main(["site", "check", str(hospitals.folder / "cleveland.yaml")]) == 2
    assert "peers.va: 'abc' is no public key of 64 digits" in capsys.readouterr().err


@pytest.fixture
def peers(hospitals, capsys):
    """What `flip site peers` says at cleveland of a roster: status, words, complaint."""
    keys = {name: hospitals.key(name) for name in NAMES}

    def said(**changed: str) -> tuple[int, str, str]:
        roster = hospitals.folder / "roster.yaml"
        roster.write_text(yaml.safe_dump({**keys, **changed}))
        status = main(["site", "peers", str(roster), str(hospitals.folder / "cleveland.yaml")])
        return status, *capsys.readouterr()

    return keys, said


def test_a_roster_shows_the_owner_what_it_changes_and_the_line_that_accepts_it(hospitals, peers):
    keys, said = peers
    file = hospitals.folder / "cleveland.yaml"
    before = file.read_text()
    status, words, _ = said(new="ab" * 32, va="cd" * 32)
    shown = [line.split()[:2] for line in words.splitlines()[:4]]
    assert shown == [["hungarian", "as"], ["new", "new"], ["switzerland", "as"], ["va", "CHANGED"]]
    assert (status, file.read_text()) == (0, before), "the owner alone accepts"
    accepted = yaml.safe_load(words.splitlines()[-1])["peers"]
    others = {name: keys[name] for name in ("hungarian", "switzerland")}
    assert accepted == {**others, "new": "ab" * 32, "va": "cd" * 32}


def test_a_roster_without_this_sites_own_key_is_refused(peers):
    keys, said = peers
    status, _, complaint = said(cleveland="ab" * 32)
    assert status == 2
    assert f"has not the key of this site, {keys['cleveland']}" in complaint


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [({"va": "abc"}, "'abc' is no public key"), ({"a": "ab" * 32, "b": "ab" * 32}, "two names with one key")],
)
def test_a_roster_that_is_none_is_refused(peers, changed, complaint):
    status, _, said = peers[1](**changed)
    assert status == 2
    assert complaint in said


def test_the_bytes_that_a_site_sent_are_in_the_record(hospitals):
    loop = coordinator(Notes())
    replies = hospitals.round()
    task = hospitals.task()
    roster = loop.roster
    roster.trains = dict.fromkeys(NAMES, True)
    wanted = Wanted(task.weights, {}, frozenset({"loss"}), {}, {})
    assert len([*roster.asked(lambda *_: iter(replies.values()), task, NAMES, "fit", wanted)]) == 4
    numbers = sum(array.size for array in task.weights.values())
    line = next(each for each in loop.roster.recorder.lines if each["site"] == "va")
    assert 8 * numbers < line["bytes_up"] < 8 * numbers + 2000
    assert json.dumps(line)
