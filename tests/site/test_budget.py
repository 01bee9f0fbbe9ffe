"""A hospital's privacy budget holds over runs, studies, backends and crashes, and counts before the noise is used."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flip.federation.answer import answer_parts
from flip.messages import Fault, Reply, Task
from flip.messages.weights import digest
from flip.messages.wire import pack_task, unpack_reply
from flip.privacy import accounting
from flip.privacy.accounting import epsilon
from flip.site.ledger import FILE, ledger_of, of_run
from flip.site.private_fit import Privacy
from flip.site.refusal import Refusal
from tests.site import test_gate
from tests.site.test_gate import RULES

DELTA = 1e-5
SMALL = ("privacy=dp_sgd", "privacy.dp_sgd.metrics_epsilon=null", "dataset.batch_size=8", "strategy.rounds=2")
PRIVATE = (*SMALL, "privacy.dp_sgd.target_epsilon=1")
FIXED = (*SMALL, "privacy.dp_sgd.target_epsilon=null", "privacy.dp_sgd.noise_multiplier=5")
Answer = Callable[[Task], Reply]


class Hospital(test_gate.Hospital):
    """A deployed site with a privacy budget."""

    def __init__(self, folder: Path, *overrides: str, budget: float = 2.0) -> None:
        super().__init__(folder, *overrides)
        self.budget(budget)

    def budget(self, most: float, **site: object) -> None:
        """Have the owner write it into the site's file."""
        self.policy(RULES | {"privacy": {"mechanism": "dp_sgd", "epsilon": most, "delta": DELTA}})
        self.file.write_text(yaml.safe_dump(yaml.safe_load(self.file.read_text()) | site))

    def entries(self) -> list[Any]:
        """What the ledger holds."""
        return ledger_of(self.silo.place, self.task()).entries()

    def spent(self, run: str | None = None) -> float:
        """Epsilon of all that the ledger holds, or of a run."""
        entries = self.entries()
        return epsilon(entries if run is None else of_run(entries, run), DELTA)

    def run(self, name: str, answer: Answer | None = None) -> list[Fault | None]:
        """All tasks of a study, as a coordinator asks them; the faults."""
        tasks = [self.task("statistics", run=name), *(self.task(number=each, run=name) for each in range(2))]
        return [(answer or self.silo.answer)(task).fault for task in tasks]


def directly(own: Hospital) -> Answer:
    """The site's own process."""
    return own.silo.answer


def over_flower(own: Hospital) -> Answer:
    """The site's half of Flower: its link hands over one message, and takes one."""
    from flip.federation.flower.messages import record
    from flip.federation.flower.supernode import work_once

    def answer(task: Task) -> Reply:
        sent: list[bytes] = []
        message = SimpleNamespace(content=record(pack_task(task)))
        link: Any = SimpleNamespace(receive=lambda: message, send=lambda _, blob, __: sent.append(blob))
        site: Any = SimpleNamespace(name="cleveland", answer=partial(answer_parts, own.silo))
        assert work_once(link, site)
        return unpack_reply(sent[0])

    return answer


def over_nvflare(own: Hospital) -> Answer:
    """The site's half of FLARE: the executor of a provisioned site, in FLARE's own context."""
    from nvflare.apis.shareable import Shareable

    from flip.federation.nvflare.app import executor
    from flip.federation.nvflare.components import TASK
    from flip.federation.nvflare.files import BLOB

    workspace = SimpleNamespace(get_file_path_in_root=lambda name: str(own.folder / name))
    context = SimpleNamespace(get_workspace=lambda: workspace, get_identity_name=lambda: "cleveland")
    (own.folder / "site").symlink_to(own.folder / "home")  # beside the file, as in a kit
    at_site = executor()

    def answer(task: Task) -> Reply:
        found = at_site.execute(TASK, Shareable({BLOB: pack_task(task)}), context, None)
        return unpack_reply(found[BLOB])

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("backend", [directly, over_flower, over_nvflare])
def test_a_sweep_of_twenty_runs_stops_at_the_budget(tmp_path, backend):
    own = Hospital(tmp_path, *PRIVATE)
    answer = backend(own)
    found = [own.run(f"run {number}", answer) for number in range(20)]
    let_in = found.index([Fault.REFUSED_BUDGET] * 3)
    assert 2 <= let_in < 6  # each spends 1 of 2, and together they spend less than their sum
    assert found == [[None] * 3] * let_in + [[Fault.REFUSED_BUDGET] * 3] * (20 - let_in)
    assert 1.5 < own.spent() <= 2


def test_what_a_run_is_told_is_its_own_part_and_never_more_than_the_ledger_holds(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    for run in ("first", "second"):
        replies = [own.silo.answer(own.task(number=each, run=run)).metrics for each in range(2)]
        told = [each["privacy/epsilon"] for each in replies]
        assert told[0] < told[1] == own.spent(run) <= own.spent()
        assert 0.9 < told[1] <= 1
    assert own.spent() > own.spent("second")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_restart_another_study_or_another_seed_goes_on_from_the_ledger(tmp_path, restarted):
    own = Hospital(tmp_path, *PRIVATE, budget=1.0)
    assert own.run("first") == [None] * 3
    other = test_gate.Hospital(tmp_path / "other", *PRIVATE, "seed=7", "dataset.split.seed=5", "name=another").study
    own.study = other
    if restarted:
        own.open()
    assert own.run("second") == [Fault.REFUSED_BUDGET] * 3
    own.budget(2.0)
    assert own.run("second") == [None] * 3


def test_a_study_that_would_be_stopped_in_a_later_round_is_refused_at_its_first_task(tmp_path):
    own = Hospital(tmp_path, *FIXED, budget=2.0)
    found = own.run("first")
    assert found == [None] * 3
    one, both = epsilon(own.entries()[:1], DELTA), own.spent()
    own = Hospital(tmp_path / "again", *FIXED, budget=(one + both) / 2)  # enough for the first of two rounds
    assert own.run("first") == [Fault.REFUSED_BUDGET] * 3
    assert own.entries() == []
    assert "the budget of this data set over all studies" in (own.folder / "home" / "site.log").read_text()


def test_a_run_that_goes_on_counts_what_it_has_spent_as_part_of_its_plan(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, budget=1.0)
    tasks = [own.task(number=each) for each in range(2)]
    assert own.silo.answer(tasks[0]).fault is None
    own.open()
    assert [own.silo.answer(task).fault for task in (own.task("statistics"), *tasks)] == [None] * 3


@pytest.mark.slow
def test_a_training_alone_after_the_rounds_is_charged_too(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, budget=1.1)
    assert own.run("run") == [None] * 3
    assert own.silo.answer(own.task(stage="alone", alone="cleveland")).fault is Fault.REFUSED_BUDGET


def test_without_a_budget_the_ledger_is_kept_all_the_same(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    own.policy(RULES)
    for run in range(4):
        assert own.run(f"run {run}") == [None] * 3
    assert own.spent() > 1.5
    own.budget(1.0)
    assert own.run("another") == [Fault.REFUSED_BUDGET] * 3


def test_data_sets_that_the_site_names_have_a_budget_each(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, budget=1.0)
    own.budget(1.0, cohort="ward")
    assert own.run("first") == [None] * 3
    assert own.run("second") == [Fault.REFUSED_BUDGET] * 3
    own.budget(1.0, cohort="clinic")
    assert own.run("third") == [None] * 3
    own.budget(1.0, cohort="ward")
    assert own.run("fourth") == [Fault.REFUSED_BUDGET] * 3


def test_the_same_task_again_is_not_charged_and_has_the_same_noise(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    first = own.silo.answer(own.task())
    for reply in (own.folder / "home" / "state").glob("*/replies/*"):
        reply.unlink()  # so that it is computed again
    own.open()
    again = own.silo.answer(own.task())
    assert digest(first.weights) == digest(again.weights)
    assert (len(own.entries()), first.metrics) == (1, again.metrics)


def test_a_site_whose_ledger_was_touched_answers_nothing_under_a_mechanism(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    assert own.run("first") == [None] * 3
    (own.folder / "home" / FILE).unlink()
    own.open()
    assert own.run("second") == [Fault.REFUSED_BUDGET] * 3
    assert "is gone" in (own.folder / "home" / "site.log").read_text()


# Crashes and others at the same time.

KILLED = """
import os, signal, sys
from pathlib import Path
from flip.site import fit
from tests.site.test_budget import Hospital, PRIVATE

def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

own = Hospital.__new__(Hospital)
own.folder, own.file = Path(sys.argv[1]), Path(sys.argv[1]) / "site.yaml"
from tests.studies import tiny_heart_study
own.study = tiny_heart_study(own.folder / "data", *PRIVATE)
own.open()
setattr(fit, sys.argv[2], killed)
own.silo.answer(own.task())
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["fit_on", pytest.param("to_arrays", marks=pytest.mark.slow)])
def test_a_site_killed_between_reserve_and_reply_has_spent_and_told_nothing(tmp_path, moment):
    own = Hospital(tmp_path, *PRIVATE, budget=1.0)
    words = [sys.executable, "-c", KILLED, str(tmp_path), moment]
    ended = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert ended.returncode == -signal.SIGKILL
    (entry,) = own.entries()
    assert list((own.folder / "home" / "state").glob("*/replies/*")) == []
    assert own.silo.answer(own.task()).fault is None  # the same noise: paid for
    assert own.entries() == [entry]
    assert own.run("another") == [Fault.REFUSED_BUDGET] * 3


def test_two_runs_at_once_cannot_both_spend_what_is_left_for_one(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, budget=1.0)
    tasks = [own.task(run=run) for run in ("one", "two")]
    budgets = [
        Privacy(own.silo.place, SimpleNamespace(policy=own.silo.place.now().policy()), each).budget for each in tasks
    ]  # type: ignore[arg-type]
    plan = [{"noise_multiplier": 5.0, "sample_rate": 0.5, "steps": 6.0}]
    for budget in budgets:
        budget.permit(plan)  # each of them sees that there is room

    def reserve(number: int) -> Fault | None:
        try:
            budgets[number].reserve(plan, bytes([number]))
        except Refusal as refused:
            return refused.fault
        return None

    assert epsilon(plan, DELTA) <= 1 < epsilon(plan * 2, DELTA)
    with ThreadPoolExecutor(2) as threads:
        assert {*threads.map(reserve, range(2))} == {None, Fault.REFUSED_BUDGET}


# Floors, and whose the rows are.


@pytest.mark.parametrize(
    ("overrides", "fault", "words"),
    [
        (["dataset.batch_size=16"], Fault.REFUSED_RULE, "a batch of 15 of 15 persons: at most the part 0.5"),
        (["dataset.batch_size=4"], Fault.REFUSED_FEW_PERSONS, "batches of 3.75 persons, fewer than minimum_cell: 5"),
        (["privacy.dp_sgd.delta=0.07"], Fault.REFUSED_RULE, "delta 0.07 is no less than 1 / 15 persons"),
        (["privacy.dp_sgd.delta=0.06"], None, ""),
    ],
)
def test_a_hospital_with_too_few_persons_for_noise_is_refused_with_the_number(tmp_path, overrides, fault, words):
    own = Hospital(tmp_path, *PRIVATE, *overrides)
    own.policy(RULES)
    assert own.run("run")[0] is fault
    if words:
        assert words in (own.folder / "home" / "site.log").read_text()


def test_a_target_that_cannot_be_met_is_refused_with_its_key(tmp_path, monkeypatch):
    accounting.noise_for.cache_clear()
    monkeypatch.setattr("flip.privacy.accounting.MOST", 1.0)
    own = Hospital(tmp_path, *PRIVATE)
    assert own.run("run") == [Fault.REFUSED_BUDGET] * 3
    assert "privacy.dp_sgd.target_epsilon=1: no noise gives it" in (own.folder / "home" / "site.log").read_text()


def test_a_dataset_that_does_not_say_whose_its_rows_are_trains_only_where_the_file_says_each_is_one(
    tmp_path, monkeypatch
):
    own = Hospital(tmp_path, *PRIVATE)
    rules = RULES | {"minimum_cell": 1, "privacy": {"mechanism": "dp_sgd", "epsilon": 2, "delta": DELTA}}
    site = {"root": yaml.safe_load(own.file.read_text())["root"], "policy": rules}
    for person, fault in (("row", None), ("MRN", Fault.REFUSED_RULE)):
        own.file.write_text(yaml.safe_dump({**site, "person": person}))
        place = own.silo.place.now()
        loaded: Any = SimpleNamespace(deployed=True, datamodule=object())
        privacy = Privacy(place, loaded, own.task())
        if fault is None:
            assert privacy.whose("train") is None
        else:
            with pytest.raises(Exception, match="whose its examples are"):
                privacy.whose("train")


def test_the_ledger_holds_no_name_of_a_run_or_patient(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    own.silo.answer(own.task(run="run of somebody"))
    text = (own.folder / "home" / FILE).read_text()
    assert "somebody" not in text
    assert set(json.loads(text)) == {"noise_multiplier", "sample_rate", "steps", "run", "noise", "data", "seal"}
