"""What a study may take of a hospital: refused before it has taken it, by a rule that the site's log names."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flip.config.policy import Policy
from flip.messages import Fault, Task
from flip.site.bounds import ENDED, bounded_numbers, is_linear, refuse_batches, refuse_steps
from flip.site.refusal import Refusal
from tests.site.chosen_weights import ask, hospital, study_of
from tests.site.test_received_weights import GENTLE, log_of, start

STRICT = Policy(5, 5, maximum_parameters=10_000, maximum_steps=10, minimum_batch=3)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"maximum_rounds": 4}, "policy.maximum_rounds=4: the study has 5 rounds"),
        ({"maximum_parameters": 13}, "policy.maximum_parameters=13: "),
        ({"persons_per_parameter": 6}, "policy.persons_per_parameter=6: a linear model of 14 parameters on 79 persons"),
        ({"minimum_batch": 80}, "policy.minimum_batch=80: half of the batches were of 79 persons or fewer"),
    ],
)
def test_each_bound_refuses_what_is_beyond_and_the_log_names_it(tmp_path, rules, words):
    study = study_of(tmp_path / "data", GENTLE)
    allowed, strict = hospital(study, tmp_path / "allowed"), hospital(study, tmp_path / "strict", **rules)
    assert ask(allowed, study, "fit", start(study)).fault is None
    task = Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text)
    reply = ask(strict, study, "fit", start(study)) if "minimum_batch" in rules else strict.answer(task)
    assert reply.fault is Fault.REFUSED_RULE
    assert words in log_of(strict)


def test_more_steps_than_the_policy_permits_are_refused(tmp_path):
    study = study_of(tmp_path / "data", GENTLE, "trainer.steps=3")
    assert ask(hospital(study, tmp_path / "a", maximum_steps=3), study, "fit", start(study)).fault is None
    silo = hospital(study, tmp_path / "b", maximum_steps=2)
    assert ask(silo, study, "fit", start(study)).fault is Fault.REFUSED_RULE
    with pytest.raises(Refusal, match="21 steps in 2 rounds"):
        refuse_steps(STRICT, 21, rounds=2)


@pytest.mark.parametrize("build", [lambda: torch.nn.Linear(10**6, 10**6), lambda: torch.zeros(10**12)])
def test_a_layer_of_a_million_million_numbers_is_counted_before_it_takes_memory(build):
    with pytest.raises(Refusal, match="array of 1000000000000 numbers"), bounded_numbers(STRICT):
        build()


def test_many_small_layers_are_counted_together():
    with pytest.raises(Refusal), bounded_numbers(STRICT):
        torch.nn.ModuleList([torch.nn.Linear(90, 90) for _ in range(100)])


def test_counting_changes_no_initial_weight():
    torch.manual_seed(0)
    plain = torch.nn.Linear(50, 50)
    torch.manual_seed(0)
    with bounded_numbers(STRICT):
        counted = torch.nn.Linear(50, 50)
    assert torch.equal(plain.weight, counted.weight)


def test_the_last_small_batch_of_a_pass_counts_for_nothing_and_small_batches_do():
    refuse_batches(STRICT, [4, 4, 1, 4, 4, 1])
    refuse_batches(STRICT, [])
    with pytest.raises(Refusal, match="minimum_batch=3"):
        refuse_batches(STRICT, [2, 2, 40])


def test_only_a_model_of_one_linear_layer_is_linear():
    linear = torch.nn.Linear(3, 1)
    assert is_linear(torch.nn.Sequential(torch.nn.Dropout(), linear))
    assert not is_linear(torch.nn.Sequential(linear, torch.nn.ReLU(), torch.nn.Linear(1, 1)))
    assert not is_linear(torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1), linear))


HANGS = """
import re, sys, time
from pathlib import Path
from flip.site import bounds
from flip.site.log import site_log

bounds.GRACE = 0.5
home = Path(sys.argv[1])
with bounds.time_limit(0.3, site_log("kings", home), home):
    if sys.argv[2] == "sleeps":
        time.sleep(60)
    re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter's lock
"""


GREEDY = """
import sys, time
from pathlib import Path

from flip.site import bounds
from flip.site.log import site_log

now = bounds.held_memory() / bounds.GIGABYTE
with bounds.memory_limit(now + 0.3, site_log("kings", Path(sys.argv[1]))):
    taken = bytes(range(256)) * (1_000_000 if sys.argv[2] == "little" else 2_000_000)
    time.sleep(10 if sys.argv[2] == "much" else 0.3)
"""


@pytest.mark.parametrize(("how", "status"), [("little", 0), ("much", ENDED)])
def test_a_task_that_takes_too_much_memory_ends_the_sites_process_and_the_log_says_so(tmp_path, how, status):
    ended = subprocess.run([sys.executable, "-c", GREEDY, str(tmp_path), how], timeout=60, check=False)
    assert ended.returncode == status
    log = tmp_path / "site.log"
    assert (log.exists() and "policy.maximum_memory" in log.read_text()) == bool(status)


@pytest.mark.parametrize(
    ("how", "status", "words"), [("sleeps", ENDED, "maximum_seconds=0.3"), ("matches", 1, "Timeout")]
)
def test_a_task_that_takes_too_long_ends_the_sites_process_and_the_log_says_so(tmp_path, how, status, words):
    ended = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path), how], timeout=60, check=False)
    assert ended.returncode == status
    assert words in (Path(tmp_path) / "site.log").read_text()
