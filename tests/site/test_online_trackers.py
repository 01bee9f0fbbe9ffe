"""Which online trackers a study's numbers may go to is the site's to say; naming one changes nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from flip.config.online_trackers import online
from flip.config.policy import Policy
from flip.config.study import Study
from flip.coordinator.jobs import coordinator
from flip.coordinator.serve import Submission
from flip.errors import UserError
from flip.federation.answer import answer_parts
from flip.messages import TRACKERS, Fault, Task
from flip.messages.weights import digest
from flip.messages.wire import pack_task, unpack_reply, unpack_task
from flip.runs.folder import RunFolder
from flip.site.secret import noise_key
from tests.site.test_gate import RULES, Hospital

WANDB = {"_target_": "flip.tracking.WandbTracker", "project": "flip", "mode": "online"}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def tracked(task: Task, names: str = "wandb") -> Task:
    return replace(task, params={**task.params, TRACKERS: names})


@pytest.mark.parametrize("step", ["statistics", "describe", "fit"])
def test_a_hospital_takes_part_in_no_study_with_an_online_tracker_until_its_owner_names_it(hospital, step):
    task = hospital.task(step)
    assert hospital.silo.answer(tracked(task)).fault is Fault.REFUSED_RULE
    log = (hospital.folder / "home" / "site.log").read_text()
    assert "policy.trackers: the study's numbers go to 'wandb'" in log
    hospital.policy(RULES | {"trackers": ["wandb"]})
    assert hospital.silo.answer(tracked(task)).fault is None
    assert hospital.silo.answer(tracked(task, "wandb,other.Tracker")).fault is Fault.REFUSED_RULE


def test_what_was_answered_before_is_not_handed_on_to_a_tracker(hospital):
    task = hospital.task()
    assert hospital.silo.answer(task).fault is None
    refused = hospital.silo.answer(tracked(task))
    assert (refused.fault, dict(refused.weights)) == (Fault.REFUSED_RULE, {})


def test_a_tracker_is_no_part_of_the_question(hospital):
    hospital.policy(RULES | {"trackers": None})
    task = hospital.task()
    same, other = tracked(task), replace(task, params={"threshold": 0.5})
    assert task.digest == same.digest != other.digest
    site, home = hospital.silo.site, hospital.folder / "home"
    assert noise_key("cleveland", site, home, task, {}) == noise_key("cleveland", site, home, same, {})
    first, asked = hospital.silo.answer(task), (hospital.silo.place.store("run").folder / "asked.jsonl")
    before = asked.read_text()
    assert digest(hospital.silo.answer(same).weights) == digest(first.weights)
    assert asked.read_text() == before


def test_a_live_backends_site_half_refuses_by_the_bytes_of_a_task(hospital):
    task = tracked(hospital.task("statistics"))
    assert unpack_task(pack_task(task)).params == {TRACKERS: "wandb"}
    reply = unpack_reply(b"".join(answer_parts(hospital.silo, pack_task(task))))
    assert reply.fault is Fault.REFUSED_RULE


@pytest.mark.parametrize("value", [7, ["wandb"], True, None])
def test_a_tracker_that_is_no_text_is_refused(hospital, value):
    hospital.policy(RULES | {"trackers": None})
    task = replace(hospital.task("statistics"), params={TRACKERS: value})
    assert hospital.silo.answer(task).fault is Fault.REFUSED_PROTOCOL


@pytest.mark.parametrize(
    ("tracking", "names"),
    [
        ({}, ""),
        ({"wandb": None}, ""),
        ({"wandb": WANDB | {"mode": "offline"}}, ""),
        ({"wandb": {"_target_": WANDB["_target_"], "project": "flip"}}, ""),
        ({"csv": {"_target_": "flip.tracking.CsvTracker"}}, ""),
        ({"a": WANDB, "b": {"_target_": "mine.Tracker"}}, "mine.Tracker,wandb"),
    ],
)
def test_what_can_send_numbers_elsewhere_is_named(tracking, names):
    assert online(tracking) == names


def test_the_coordinator_tells_every_site_with_every_task_also_where_a_server_runs_the_study(hospital, tmp_path):
    study: Study = hospital.study
    sent = Submission("run", study.manifest_text, {}, alone=False, timeout=1.0, trackers="wandb").to_json()
    for trackers in (Submission.from_json(sent).trackers, ""):
        loop = coordinator(
            "run",
            study.manifest,
            text=study.manifest_text,
            trains={"cleveland": True},
            files=RunFolder(tmp_path / "run", []),
            alone=False,
            trackers=trackers,
        )
        task = loop.roster.task("evaluate", 0, {}, split="test")
        assert task.params == {"split": "test"} | ({TRACKERS: "wandb"} if trackers else {})


def test_a_simulation_permits_any_and_a_hospital_none_unless_its_file_says_so():
    rules = {"minimum_persons": 50, "minimum_cell": 5}
    assert Policy.read("kings", rules).trackers is None
    assert Policy.read("kings", rules, deployed=True).trackers == ()
    assert Policy.read("kings", rules | {"trackers": None}, deployed=True).trackers is None
    for wrong in ("wandb", [1], 3):
        with pytest.raises(UserError, match="must be a list of names"):
            Policy.read("kings", rules | {"trackers": wrong}, deployed=True)
