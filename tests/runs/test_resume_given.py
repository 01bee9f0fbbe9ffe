"""A run that began from given weights, and one with a baseline after the rounds, go on as they would have ended."""

import shutil

import pytest

from tests.cohorts.trained import data, result_of, trained_on
from tests.runs.test_resume import FORK, begin, execute, kill, lines_of, resumed, study_of, wait_for

__all__ = ["data"]  # a fixture
KEYS = ("status", "digest", "rounds", "metrics")


@pytest.mark.slow
def test_a_run_that_began_from_given_weights_goes_on_as_it_would_have_ended(data, tmp_path):
    given = trained_on(data, tmp_path / "trained")
    words = [f"init={given}", "baselines.fine_tuned=1"]
    process = FORK.Process(target=lambda: execute(study_of(data, *words), tmp_path / "whole"))
    process.start()
    process.join()
    killed = begin(data, tmp_path / "killed", *words)
    wait_for(tmp_path / "killed" / "state" / "round.safetensors", killed)
    kill(killed)
    before = (tmp_path / "killed" / "result.json").exists()
    shutil.rmtree(given)  # the run has its own copy
    after = resumed(tmp_path / "killed", data)
    whole = result_of(tmp_path / "whole")
    assert not before
    assert {key: after[key] for key in KEYS} == {key: whole[key] for key in KEYS}
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    assert "baseline/fine_tuned/test/site/va/accuracy" in after["metrics"]
