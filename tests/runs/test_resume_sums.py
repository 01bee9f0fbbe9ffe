"""A coordinator that is killed in the midst of a secure sum: the round is asked again, under fresh masks."""

import os
from pathlib import Path

import pytest

from flip.cli.execute import execute
from flip.privacy.secure.at_coordinator import Sum
from tests.cohorts.heart import write_tiny_heart
from tests.runs.test_resume import FORK, resumed, study_of

SECURE = ("privacy=secure_aggregation", "strategy.rounds=2", "trainer.steps=2")


def killed_before_unmasking(data: Path, folder: Path) -> None:
    """The run, dead once the masked numbers of its second round are there."""
    unmask = Sum._unmask

    def dies(self, present, lost):
        return os._exit(9) if self.task.round == 1 else unmask(self, present, lost)

    Sum._unmask = dies
    execute(study_of(data, *SECURE), folder)


@pytest.mark.slow
def test_a_round_whose_sum_was_open_is_summed_again_and_the_run_ends_with_the_same_weights(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    whole = execute(study_of(data, *SECURE), tmp_path / "whole")
    process = FORK.Process(target=killed_before_unmasking, args=(data, tmp_path / "killed"))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert resumed(tmp_path / "killed", data)["digest"] == whole["digest"]
