"""Whom a prediction of muscle finds sarcopenic, and whom it misses."""

import numpy as np
import pytest

from models.body_composition import decision, prado_2008

ARRAYS = {
    "count/sarcopenia": np.array([[12.0, 3.0], [5.0, 4.0]]),  # [reference, predicted]
    "moments/index_error": np.array([24.0, 40.0, 90.0]),
}


def test_the_decision_is_told_as_found_and_missed() -> None:
    found = decision.metrics(ARRAYS)
    assert found["sarcopenia_sensitivity"] == pytest.approx(4 / 9)
    assert found["sarcopenia_specificity"] == pytest.approx(12 / 15)
    assert (found["prevalence_predicted"], found["prevalence_reference"]) == (
        pytest.approx(7 / 24),
        pytest.approx(9 / 24),
    )
    assert found["sarcopenia_sensitivity/low"] == pytest.approx(0.1888, abs=1e-3)  # Wilson, by hand


def test_a_row_a_site_says_how_many_of_how_many() -> None:
    [row] = decision.panel([("kings", ARRAYS)], prado_2008())["table"]["rows"]
    assert row[:2] == ["kings", "4 of 9"]
    assert row[4] == "12 of 15"


def test_counts_that_a_site_may_withhold_make_no_sensitivity() -> None:
    told = {**ARRAYS, "count/sarcopenia": np.array([[12.0, 0.0], [0.0, 4.0]])}  # 16 of 24 persons
    assert decision.metrics(told) == {}
    assert decision.panel([("kings", told)], prado_2008())["table"]["rows"][0][1] == "withheld"


def test_a_count_of_none_that_is_whole_is_told() -> None:
    told = {"count/sarcopenia": np.array([[12.0, 0.0], [0.0, 4.0]]), "moments/index_error": np.array([16.0, 1, 1])}
    assert decision.metrics(told)["sarcopenia_sensitivity"] == 1.0
