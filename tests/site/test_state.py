"""What a site keeps between tasks: by run and round, the last two."""

import numpy as np

from flip.config.policy import Policy
from flip.messages import Reply
from flip.site.state import LocalState


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


def test_only_the_last_two_rounds_are_kept(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(5):
        store.save("control", number, arrays(number))
    assert len(list(store.folder.iterdir())) == 2
    assert store.load("control", before=3) is None


def test_another_run_does_not_see_it(tmp_path):
    LocalState(tmp_path, "first").save("control", 0, arrays(1))
    assert LocalState(tmp_path, "second").load("control", before=9) is None


def test_a_run_identifier_cannot_leave_the_folder(tmp_path):
    LocalState(tmp_path / "state", "../../elsewhere").save("control", 0, arrays(1))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_reply_is_found_by_the_digest_of_its_task_with_the_policy_that_it_was_made_under(tmp_path):
    store = LocalState(tmp_path, "run")
    policy = Policy(minimum_persons=50, minimum_cell=5)
    store.keep_reply(Reply("kings", "digest", examples=7, weights=arrays(3)), policy)
    reply, under = store.answered("digest")
    assert (reply.examples, under) == (7, policy)
    assert store.answered("another") is None


def test_the_privacy_ledger_outlives_the_process(tmp_path):
    LocalState(tmp_path, "run").save_ledger([{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10}])
    assert LocalState(tmp_path, "run").ledger()[0]["steps"] == 10


def test_a_round_that_is_run_again_takes_the_place_of_what_came_after(tmp_path):
    store = LocalState(tmp_path, "run")
    for number in range(4):
        store.save("control", number, arrays(number))
    store.save("control", 1, arrays(9))
    assert store.load("control", before=9)["control/weight"].tolist() == [9, 9]
