"""Studies with a rule that looks at each reply apart: what is refused before any site is asked, and its memory."""

import tracemalloc

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.config.demands import largest_share
from flip.errors import UserError
from flip.federation.spool import in_order
from flip.messages.wire import pack_reply
from flip.strategies.krum import Krum
from flip.strategies.median import Median
from flip.strategies.trimmed_mean import TrimmedMean
from tests.cohorts.heart import write_tiny_heart
from tests.strategies.fake_sites import reply, task
from tests.studies import tiny_heart_study

LARGE = 1 << 22  # numbers of a model
SITES = [f"site{place}" for place in range(5)]


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["strategy=median", "strategy.min_sites=2"], "strategy.min_sites.*Median as declared needs 3 sites.* and 2"),
        (["strategy=median", "strategy.fraction=0.5"], "Median as declared needs 3 sites in a round, which asks 2"),
        (["strategy=trimmed_mean", "strategy.hostile=2"], "TrimmedMean as declared needs 5 sites"),
        (["strategy=krum"], "Krum as declared needs 5 sites in a round, which asks 4"),
    ],
)
def test_rounds_of_too_few_sites_are_refused(tmp_path, overrides, why):
    data = write_tiny_heart(tmp_path / "data")
    with pytest.raises(UserError, match=why):
        check(tiny_heart_study(data, "federation=inprocess", *overrides))


def test_rounds_of_just_enough_sites_run(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    study = tiny_heart_study(data, "federation=inprocess", "strategy=trimmed_mean", "strategy.min_sites=3")
    check(study)
    assert execute(study, tmp_path / "run")["status"] == "ok"


def test_a_hospital_bounds_the_part_that_one_site_can_have():
    """Each number of a median is one site's, and Krum's model is one site's whole: as much as cyclic training shows."""
    assert [largest_share(each) for each in (Median(rounds=1), Krum(rounds=1), Krum(rounds=1, keep=3))] == [1, 1, 1 / 3]
    assert largest_share(TrimmedMean(rounds=1, min_sites=6)) == 1 / 4
    assert largest_share(TrimmedMean(rounds=1)) == 1


@pytest.mark.parametrize("strategy", [Median(rounds=1), Krum(rounds=1)], ids=["median", "krum"])
def test_the_sites_models_are_never_in_memory_together(strategy):
    sent = task({"w": np.zeros(LARGE, np.float32)})
    packed = ((site, pack_reply(reply(site, {"w": np.full(LARGE, site[-1], np.float32)}))) for site in SITES)
    tracemalloc.start()
    replies = list(in_order(packed, sent, SITES))
    del packed
    tracemalloc.reset_peak()
    after, _ = strategy.combine(sent.weights, iter(replies), {}, len(SITES))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after["w"] == 2).all() or isinstance(strategy, Krum)
    assert peak < 4 * sent.weights["w"].nbytes  # those sent, the new ones, and blocks; the five replies would be 5 more
