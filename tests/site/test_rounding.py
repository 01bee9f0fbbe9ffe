"""`policy.rounding`: every count that leaves is a multiple of the base, and what is made of counts stays near."""

import numpy as np
import pytest

from flip.messages.summary import Summary, SummaryKind, Topic
from flip.site.rounding import nearest, rounded
from tests.site.test_gate import RULES, Hospital


def test_a_half_goes_upwards():
    assert nearest([0, 2, 2.5, 3, 7, 7.5, 13], 5).tolist() == [0, 0, 5, 5, 5, 10, 15]


def test_a_base_of_one_changes_nothing():
    fields = {"examples": 13, "metrics": {"loss": 0.123456}}
    assert rounded(fields, 1, "fit") == fields


def test_moments_keep_their_mean_and_deviation_and_scores_their_shares():
    moments = Summary(SummaryKind.MOMENTS, np.array([13.0, 130.0, 1313.0]), 13)
    counts = {"loss/total": np.array(13.0), "loss/sum": np.array(6.5), "hit/tp": np.array(8.0)}
    states = {name: Summary(SummaryKind.SUM, each, 13) for name, each in counts.items()}
    summaries = {Topic.DESCRIPTION: {"moments/age": moments}, Topic.METRIC: states}
    told = rounded({"summaries": summaries, "metrics": {"loss": 0.51234}}, 5, "evaluate")
    number, total, squares = told["summaries"][Topic.DESCRIPTION]["moments/age"].values
    assert number == 15
    assert (total / number, squares / number) == pytest.approx((10, 101))
    scores = {name: float(each.values) for name, each in told["summaries"][Topic.METRIC].items()}
    assert scores == pytest.approx({"loss/total": 15, "loss/sum": 7.5, "hit/tp": 10})
    assert told["metrics"] == {"loss": 0.51}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    made = Hospital(tmp_path_factory.mktemp("rounding"))
    made.policy(RULES | {"rounding": 5})
    made.open()
    return made


@pytest.mark.parametrize("step", ["statistics", "describe", "fit", "evaluate"])
def test_every_count_of_every_reply_is_a_multiple(hospital, step):
    task = hospital.task(step, **({"split": "test"} if step == "evaluate" else {}))
    reply = hospital.silo.answer(task if step != "describe" else hospital.edges(0.0))
    assert reply.fault is None
    told = [reply.examples, *(reply.metrics.values() if step == "statistics" else ())]
    for topic, named in reply.summaries.items():
        for name, each in named.items():
            told.append(each.persons)
            if each.kind in (SummaryKind.COUNT, SummaryKind.HISTOGRAM):
                told += each.values.ravel().tolist()
            elif each.kind is SummaryKind.MOMENTS:
                told += each.values[..., 0].ravel().tolist()
            elif topic is Topic.METRIC and name in ("loss/weight", "accuracy/tp"):
                told.append(float(each.values))
    assert any(told)
    assert [each for each in told if each % 5] == []
    if step == "evaluate":
        assert all(round(value, 2) == value for value in reply.metrics.values())
