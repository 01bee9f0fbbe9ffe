"""Statistics and edges that a coordinator sends are held against what sums and edges can be, before any use."""

from dataclasses import replace

import numpy as np
import pytest

from flip.messages import Fault
from tests.site.test_gate import MOMENTS, Hospital

NAME = "statistics/moments/features"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize(
    "row",
    [
        [100.0, np.nan, 100.0],
        [100.0, 0.0, np.inf],
        [-100.0, 0.0, 100.0],
        [100.0, 0.0, -1.0],
        [100.0, 5000.0, 100.0],  # a mean of 50 whose squares would be 250,000: a deviation of 0
    ],
)
def test_sums_that_no_numbers_have_are_refused(hospital, row):
    sent = {NAME: np.array([row] + [[100.0, 0.0, 100.0]] * 12)}
    reply = hospital.silo.answer(replace(hospital.task(run=str(row)), state=sent))
    assert (reply.fault, dict(reply.weights)) == (Fault.REFUSED_PROTOCOL, {})


def test_persons_by_outcome_cannot_be_below_0(hospital):
    sent = {**MOMENTS, "statistics/count/label": np.array([-1.0, 5.0])}
    assert hospital.silo.answer(replace(hospital.task(), state=sent)).fault is Fault.REFUSED_PROTOCOL


@pytest.mark.parametrize("edges", [[30.0, 30.0, 80.0], [80.0, 30.0], [30.0, np.nan], [-np.inf, 30.0, np.inf]])
def test_edges_that_do_not_increase_or_are_no_numbers_are_refused(hospital, edges):
    task = hospital.edges(0.0)
    sent = replace(task, state={**MOMENTS, "edges/age": np.array(edges)})
    assert hospital.silo.answer(sent).fault is Fault.REFUSED_PROTOCOL


def test_sums_that_a_column_of_one_value_has_are_taken(hospital):
    sent = {NAME: np.array([[3.0, 0.3, 0.03]] + [[100.0, 0.0, 100.0]] * 12)}
    assert hospital.silo.answer(replace(hospital.task(), state=sent)).fault is None
