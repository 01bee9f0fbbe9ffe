"""What a site keeps between tasks: by run and round, the last two."""

from dataclasses import replace

import numpy as np
import pytest

from flip.config.policy import Policy
from flip.messages import Fault, Reply, Task
from flip.site import state
from flip.site.refusal import Refusal
from flip.site.state import LocalState


def asked(number: int, step: str = "fit") -> Task:
    return Task("run", "study", number, step, {}, {}, {}, "{}")


def arrays(value: float) -> dict[str, np.ndarray]:
    return {"control/weight": np.full(2, value, np.float32)}


def test_a_round_reads_the_latest_earlier_one(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(3):
        store.save("control", number, arrays(number))
    assert store.load("control", before=3)["control/weight"].tolist() == [2, 2]
    assert store.load("control", before=2)["control/weight"].tolist() == [1, 1]


def test_nothing_is_read_before_the_first_round(tmp_path):
    assert LocalState(tmp_path, "run").load("control", before=0) is None


def test_only_the_last_two_rounds_are_kept_once_they_are_old(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "YOUNG", -1.0)
    store = LocalState(tmp_path, "run")
    for number in range(5):
        store.save("control", number, arrays(number))
    assert len(list(store.folder.glob("*.safetensors"))) == 2


def test_a_coordinator_whose_copy_lags_behind_by_some_fast_rounds_can_go_on(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(20):
        store.save("control", number, arrays(number))
        for step in ("fit", "evaluate"):
            store.keep_reply(asked(number, step), Reply("kings", ""), Policy(minimum_persons=1, minimum_cell=1))
    assert store.load("control", before=5)["control/weight"].tolist() == [4, 4]
    assert store.answered(asked(5), Policy(minimum_persons=1, minimum_cell=1)) is not None


def test_young_rounds_are_bounded_in_number(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(2 * state.RECENT):
        store.save("control", number, arrays(number))
    assert len(list(store.folder.glob("*.safetensors"))) == state.RECENT


def test_a_round_whose_kept_arrays_are_gone_is_not_begun_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "YOUNG", -1.0)
    store = LocalState(tmp_path, "run")
    for number in range(5):
        store.save("control", number, arrays(number))
    with pytest.raises(Refusal, match="before round 4 is kept") as refused:
        store.load("control", before=3)
    assert refused.value.fault is Fault.GONE


def test_another_run_does_not_see_it(tmp_path):
    LocalState(tmp_path, "first").save("control", 0, arrays(1))
    assert LocalState(tmp_path, "second").load("control", before=9) is None


def test_a_run_identifier_cannot_leave_the_folder(tmp_path):
    LocalState(tmp_path / "state", "../../elsewhere").save("control", 0, arrays(1))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_reply_is_found_by_its_task_under_the_policy_that_it_was_made_under_and_no_other(tmp_path):
    store, policy = LocalState(tmp_path, "run"), Policy(minimum_persons=50, minimum_cell=5)
    store.keep_reply(asked(0), Reply("kings", "", examples=7, weights=arrays(3)), policy)
    found = store.answered(asked(0), policy)
    assert found is not None
    assert found.examples == 7
    assert store.answered(asked(1), policy) is None
    for rule in ({"minimum_persons": 51}, {"minimum_cell": 4}, {"targets": ("models.",)}, {"maximum_questions": 9}):
        assert store.answered(asked(0), replace(policy, **rule)) is None


def test_a_round_that_is_run_again_takes_the_place_of_what_came_after(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(4):
        store.save("control", number, arrays(number))
    store.save("control", 1, arrays(9))
    assert store.load("control", before=9)["control/weight"].tolist() == [9, 9]
