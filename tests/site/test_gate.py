"""Every task passes one gate at a site; what was answered before is handed out behind it, as it left, and no more."""

import json
import multiprocessing
import stat
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.study import Study
from flip.messages import Fault, Reply, Task
from flip.messages.summary import Topic
from flip.messages.weights import digest, to_arrays
from flip.messages.wire import pack_task, unpack_task
from flip.site.counters import Counter
from flip.site.silo import Silo
from flip.site.steps import Steps
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

RULES = {"minimum_persons": 10, "minimum_cell": 5, "persons_per_parameter": 0, "maximum_change": 100.0}
RULES |= {"approval": "none"}
MOMENTS = {"statistics/moments/features": np.array([[100.0, 0.0, 1e7]] * 13)}


class Hospital:
    """A deployed site with its own file, and a study that asks it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.file = folder, folder / "site.yaml"
        self.study: Study = tiny_heart_study(write_tiny_heart(folder / "data"), *overrides)
        self.policy(RULES)
        self.open()

    def open(self, *, deployed: bool = True) -> None:
        """Start the site's process anew."""
        from flip.config.site_file import load_site

        home = self.folder / "home"
        self.silo = Silo("cleveland", load_site(self.file), home, deployed=deployed, file=self.file)

    def policy(self, rules: object) -> None:
        """Have the owner write the site's file."""
        root = self.folder / "data" / "uci_heart" / "processed.cleveland.data"
        self.file.write_text(yaml.safe_dump({"root": str(root), "person": "row", "policy": rules}))

    def task(self, step: str = "fit", number: int = 0, *, stage: str = "study", run: str = "run", **params) -> Task:
        before = step in ("statistics", "describe")
        weights = {} if before else to_arrays(initial_module(self.study.manifest))
        state = {} if step == "statistics" else dict(MOMENTS)
        return Task(run, stage, number, step, weights, state, params, self.study.manifest_text)

    def moved(self, by: float, number: int = 0, step: str = "fit", **params) -> Task:
        """A task with other weights."""
        task = self.task(step, number, **params)
        weights = {name: (array + by).astype(array.dtype) for name, array in task.weights.items()}
        return replace(task, weights=weights)

    def edges(self, shift: float, run: str = "run") -> Task:
        """A question for a histogram."""
        task = self.task("describe", run=run)
        return replace(task, state={**task.state, "edges/age": np.linspace(30.0, 80.0, 11) + shift})

    def other_split(self, share: float, run: str) -> Task:
        """A question about a cohort that is split otherwise."""
        manifest = json.loads(self.study.manifest_text)
        manifest["dataset"]["split"]["train"] = share
        return replace(self.task("statistics", run=run), manifest=json.dumps(manifest))


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that were computed."""
    steps: list[str] = []
    answer = Steps.answer

    def noted(self: Steps, task: Task) -> Reply:
        steps.append(task.step)
        return answer(self, task)

    monkeypatch.setattr(Steps, "answer", noted)
    return steps


# The policy, as the site's file says it now.


@pytest.mark.parametrize("restarted", [False, True])
def test_a_task_answered_before_is_refused_once_the_owner_has_tightened_the_policy(hospital, restarted):
    assert hospital.silo.answer(hospital.task()).fault is None
    hospital.policy(RULES | {"minimum_persons": 5000})
    if restarted:
        hospital.open()
    refused = hospital.silo.answer(hospital.task())
    assert (refused.fault, dict(refused.weights)) == (Fault.REFUSED_COHORT, {})


def test_a_rule_that_is_misspelt_refuses_everything_from_then_on(hospital):
    assert hospital.silo.answer(hospital.task()).fault is None
    hospital.policy(RULES | {"minimum_person": 5000})
    for step in ("statistics", "fit"):
        assert hospital.silo.answer(hospital.task(step)).fault is Fault.REFUSED_POLICY
    hospital.file.unlink()
    assert hospital.silo.answer(hospital.task()).fault is Fault.REFUSED_POLICY


@pytest.mark.parametrize("rule", [{"targets": ["models.", "datamodules."]}, {"targets": ["models."]}])
def test_every_rule_holds_for_what_was_answered_before(hospital, rule):
    assert hospital.silo.answer(hospital.task()).fault is None
    hospital.policy(RULES | rule)
    assert hospital.silo.answer(hospital.task()).fault is Fault.REFUSED_TARGET


@pytest.mark.parametrize("step", ["fit", "evaluate", "statistics"])
def test_a_reply_made_under_another_policy_is_not_handed_out(hospital, computed, step):
    params = {"split": "test"} if step == "evaluate" else {}
    for _ in range(3):
        assert hospital.silo.answer(hospital.task(step, **params)).fault is None
    assert computed == [step]
    hospital.policy(RULES | {"minimum_persons": 11})
    assert hospital.silo.answer(hospital.task(step, **params)).fault is None
    assert computed == [step, step]


def test_a_deployed_site_cannot_wave_its_data_through_under_another_name(hospital):
    hospital.policy({"minimum_persons": 1, "minimum_cell": 1})
    assert hospital.silo.answer(hospital.task()).fault is Fault.REFUSED_POLICY


# The protocol.


def numbers(size: int) -> np.ndarray:
    return np.zeros(size)


HOSTILE = {
    "an unknown step": lambda h: h.task("exfiltrate"),
    "a step in another stage": lambda h: h.task("statistics", stage="alone"),
    "an unknown stage": lambda h: h.task("evaluate", stage="later", split="test"),
    "a round beyond the study's": lambda h: h.task(number=3),
    "a round far beyond": lambda h: h.task(number=10**6),
    "a round before the first": lambda h: h.task(number=-1),
    "a round that is no number": lambda h: replace(h.task(), round=0.5),
    "statistics of a later round": lambda h: h.task("statistics", 1),
    "an unknown parameter": lambda h: h.task("evaluate", split="test", rows=True),
    "a parameter of another step": lambda h: h.task(tries=True),
    "a parameter of another type": lambda h: h.task("evaluate", split="test", outcomes="yes"),
    "a threshold that is no number": lambda h: h.task("evaluate", stage="test", split="test", threshold=float("nan")),
    "a threshold above one": lambda h: h.task("evaluate", stage="test", split="test", threshold=50.0),
    "a threshold among the rounds": lambda h: h.task("evaluate", split="validate", threshold=0.5),
    "outcomes among the rounds": lambda h: h.task("evaluate", split="validate", outcomes=True),
    "a split that there is not": lambda h: h.task("evaluate", split="train"),
    "no split": lambda h: h.task("evaluate"),
    "a training alone of another site": lambda h: h.task(stage="alone", alone="va"),
    "a training alone among the rounds": lambda h: h.task(alone="cleveland"),
    "no weights": lambda h: replace(h.task(), weights={}),
    "weights with statistics": lambda h: replace(h.task("statistics"), weights=h.task().weights),
    "weights of another shape": lambda h: replace(
        h.task(), weights={**h.task().weights, "linear.bias": np.zeros(2, np.float32)}
    ),
    "weights of another type": lambda h: replace(h.task(), weights={**h.task().weights, "linear.bias": numbers(1)}),
    "weights of another name": lambda h: replace(h.task(), weights={**h.task().weights, "other": numbers(1)}),
    "unknown state": lambda h: replace(h.task(), state={**MOMENTS, "control/linear.bias": numbers(1)}),
    "state with an evaluation": lambda h: replace(h.task("evaluate", split="test"), state={"else": numbers(1)}),
    "edges with a fit": lambda h: replace(h.task(), state={**MOMENTS, "edges/age": numbers(3)}),
    "a histogram of single values": lambda h: replace(h.task("describe"), state={"edges/age": numbers(1000)}),
    "statistics that fill the memory": lambda h: replace(h.task(), state={"statistics/x": numbers(10**6 + 1)}),
    "a manifest that is none": lambda h: replace(h.task(), manifest=b"{}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_task_that_the_study_does_not_have_is_refused_before_anything_is_computed(hospital, computed, name):
    task = HOSTILE[name](hospital)
    if name == "a manifest that is none":
        task = replace(task, manifest=3)
    reply = hospital.silo.answer(task)
    assert (reply.fault, computed) == (Fault.REFUSED_PROTOCOL, [])
    assert not list((hospital.folder / "home" / "state").glob("*/asked.jsonl"))


def test_no_memory_is_taken_for_arrays_that_the_study_does_not_have(hospital, tmp_path):
    assert hospital.silo.answer(hospital.task()).fault is None
    large = np.memmap(tmp_path / "large", np.float64, "w+", shape=(10**7,))
    task = replace(hospital.task(number=1), state={**MOMENTS, "control/linear.weight": large})
    tracemalloc.start()
    assert hospital.silo.answer(task).fault is Fault.REFUSED_PROTOCOL
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 10


def test_a_task_that_came_as_bytes_is_answered_as_one_of_this_process(hospital):
    task = hospital.task("evaluate", 2, stage="test", split="test", threshold=0.5, outcomes=True)
    assert hospital.silo.answer(unpack_task(pack_task(task))).fault is None


# How often.


def test_a_run_has_as_many_fits_as_the_study_has_rounds_and_the_same_again_is_none(hospital):
    for number in range(3):
        for _ in range(2):
            assert hospital.silo.answer(hospital.task(number=number)).fault is None
    hospital.open()  # what was counted is on disk
    assert hospital.silo.answer(hospital.moved(0.1, 2)).fault is Fault.REFUSED_PROTOCOL
    assert hospital.silo.answer(hospital.task(number=2)).fault is None
    assert hospital.silo.answer(hospital.task(stage="alone", alone="cleveland")).fault is None
    assert hospital.silo.answer(hospital.moved(0.1, stage="alone", alone="cleveland")).fault is Fault.REFUSED_PROTOCOL


def test_sixty_evaluations_of_other_weights_are_two_a_round(hospital):
    asked = [hospital.moved(0.01 * number, number % 3, "evaluate", split="test") for number in range(60)]
    answered = [hospital.silo.answer(task).fault for task in asked]
    assert answered == [None] * 6 + [Fault.REFUSED_PROTOCOL] * 54


def test_a_model_is_scored_at_one_threshold_in_a_run(hospital):
    asked = [
        hospital.task("evaluate", stage=stage, split="test", threshold=at)
        for stage, at in [("test", 0.5), ("test", 0.5), ("test", 0.3)]
    ]
    assert [hospital.silo.answer(task).fault for task in asked] == [None, None, Fault.REFUSED_PROTOCOL]


def test_no_round_takes_the_evaluations_of_another(hospital):
    asked = [hospital.moved(0.01 * number, 1, "evaluate", split="test") for number in range(6)]
    assert [hospital.silo.answer(task).fault for task in asked] == [None] * 2 + [Fault.REFUSED_PROTOCOL] * 4


def test_models_of_sites_alone_are_scored_for_so_many_sites_and_no_more(hospital, monkeypatch):
    monkeypatch.setattr("flip.site.gate.MOST_ALONE", 2)
    hospital.open(deployed=False)  # a hospital scores its own alone
    faults = [
        hospital.silo.answer(hospital.task("evaluate", stage="alone", split="test", alone=name)).fault
        for name in ("cleveland", "va", "kings", "va")
    ]
    assert faults == [None, None, Fault.REFUSED_PROTOCOL, None]


def test_a_histogram_is_told_over_one_set_of_edges_in_a_run(hospital):
    assert Topic.DESCRIPTION in hospital.silo.answer(hospital.edges(0.0)).summaries
    faults = {hospital.silo.answer(hospital.edges(0.1 * number)).fault for number in range(1, 30)}
    assert faults == {Fault.REFUSED_PROTOCOL}


def take_many(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        Counter(path).take("slot", str(number % 30), 12)


def test_processes_of_one_site_count_together(tmp_path):
    fork, path = multiprocessing.get_context("fork"), tmp_path / "asked.jsonl"
    started = [fork.Process(target=take_many, args=(path, 10 * number)) for number in range(4)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    assert len(set(filter(None, path.read_text().splitlines()))) == 12
    assert not Counter(path).take("slot", "one more", 12)
    assert Counter(path).take("another slot", "one more", 12)


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path):
    path = tmp_path / "asked.jsonl"
    assert Counter(path).take("slot", "first", 2)
    path.write_text(path.read_text() + '["slot", "sec')
    assert Counter(path).take("slot", "third", 2)
    assert not Counter(path).take("slot", "fourth", 2)


# Questions about a cohort, over all runs and studies.


def test_a_cohort_that_was_described_is_told_again_as_it_left_whichever_run_asks(hospital, computed):
    first = hospital.silo.answer(hospital.task("statistics"))
    hospital.open()
    for run in ("second", "third"):
        task = hospital.task("statistics", run=run)
        again = hospital.silo.answer(task)
        assert (again.metrics, again.fingerprint, again.task_digest) == (first.metrics, first.fingerprint, task.digest)
    assert computed == ["statistics"]


def test_a_split_that_is_moved_again_and_again_is_refused(hospital):
    hospital.policy(RULES | {"maximum_questions": 3, "near_cohorts": "answered"})
    shares = [0.6 + 0.01 * number for number in range(6)]
    found = [hospital.silo.answer(hospital.other_split(each, f"run {each}")).fault for each in shares]
    assert found == [None] * 3 + [Fault.REFUSED_QUESTION] * 3
    assert hospital.silo.answer(hospital.other_split(shares[1], "a sweep")).fault is None


def test_thirty_histograms_over_shifted_edges_in_as_many_runs_are_refused(hospital):
    found = [hospital.silo.answer(hospital.edges(0.1 * number, f"run {number}")).fault for number in range(30)]
    assert found == [None] * 10 + [Fault.REFUSED_QUESTION] * 20


def test_the_same_question_about_other_data_is_another(hospital, computed):
    hospital.policy(RULES | {"maximum_questions": 1, "near_cohorts": "answered"})
    before = hospital.silo.answer(hospital.task("statistics"))
    table = hospital.folder / "data" / "uci_heart" / "processed.cleveland.data"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    hospital.open()
    assert before.fault is None
    assert hospital.silo.answer(hospital.task("statistics", run="next")).fault is Fault.REFUSED_QUESTION
    assert computed == ["statistics"]


# What lies at the site.


def places(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


@pytest.mark.slow
def test_all_that_a_site_writes_is_its_owners_alone(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    kept = ["strategy=scaffold", "trainer.optimizer_state=keep", "baselines.alone=true", "sites.va.secret=null"]
    callback = "trainer.callbacks={keeps: {_target_: pytorch_lightning.callbacks.ModelCheckpoint}}"
    study = tiny_heart_study(data, "federation=inprocess", *kept, callback, "strategy.rounds=2")
    assert execute(study, tmp_path / "run")["status"] == "ok"
    homes = [path.with_suffix("") for path in (tmp_path / "run" / "sites").glob("*.yaml")]
    found = {path: stat.S_IMODE(path.stat().st_mode) for home in homes for path in places(home)}
    assert len(homes) == 4
    assert len(found) > 40
    assert {path: oct(mode) for path, mode in found.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def test_a_task_answered_twice_gives_the_same_bits(hospital):
    first, second = (hospital.silo.answer(hospital.task()) for _ in range(2))
    assert digest(first.weights) == digest(second.weights)
