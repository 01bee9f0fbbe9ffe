"""The published results of Fed-Heart-Disease (FLamby, NeurIPS 2022), reproduced by configuration alone."""

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from tests.commands import Finished, flip
from tests.conf.stated import TOLERANCE as STATED
from tests.conf.stated import stated, stated_all

STRATEGIES = ("fedavg", "fedyogi")  # in every test of the whole: what README.md states
OTHERS = (
    "fedprox",
    "scaffold",
    "fedadam",
    "fedadagrad",
    "cyclic, handed on",
)  # four more processor minutes: `make published`
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
SEEDS = "seed=42,43,44,45,46"
# Mean accuracy over seeds 42 to 46: pooled test, then the four hospitals.
PUBLISHED = {
    "pooled": (0.795, 0.783, 0.764, 0.750, 0.644),
    "fedavg": (0.748, 0.731, 0.719, 0.650, 0.640),
    "fedprox": (0.748, 0.731, 0.719, 0.650, 0.640),
    "scaffold": (0.748, 0.727, 0.719, 0.650, 0.640),
    "fedadam": (0.779, 0.752, 0.746, 0.738, 0.667),
    "fedyogi": (0.779, 0.760, 0.753, 0.738, 0.676),
    "fedadagrad": (0.779, 0.760, 0.753, 0.738, 0.676),
    "cyclic": (0.785, 0.758, 0.762, 0.713, 0.640),
    "cyclic, handed on": (
        0.733,
        0.692,
        0.645,
        0.800,
        0.751,
    ),  # `strategy=cyclic`: no article's, but what our page states
}
# What is no option of `strategy`. The benchmark's cyclic code hands no weights on: what it scores is the model of the
# first hospital, trained alone for the four stops that it gets in 15 rounds. `strategy=cyclic` here does hand them on.
AS_PUBLISHED: dict[str, list[str]] = {
    "pooled": [],
    "cyclic": [
        "federation=inprocess", "strategy=fedavg", "strategy.rounds=4", "model.optimizer.lr=0.01",
        "strategy.site_weights={cleveland: 1, hungarian: 0, switzerland: 0, va: 0}",
        "baselines.alone=true",  # which the strategy, its rounds and the model's optimizer are nothing to
    ],
}  # fmt: skip
TOLERANCE = {"pooled": 0.012, "cleveland": 0.02, "hungarian": 0.02, "switzerland": 0.04, "va": 0.02}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def sweep(data_dir: Path, folder: Path, *strategies: str) -> dict[str, list[Path]]:
    """The runs of each strategy with all seeds, in one sweep."""
    federated = [
        "federation=inprocess",
        "federation.workers=2",
        f"strategy={','.join(name.partition(', ')[0] for name in strategies)}",
        SEEDS,
    ]
    ended = flip(folder, "-m", "experiment=heart_disease", *federated, FLIP_DATA_DIR=str(data_dir))
    assert ended.status == 0, ended.err
    runs = sorted(ended.runs, key=lambda run: int(run.name))  # the last word of the command line varies fastest
    number = len(SEEDS.split(","))
    assert len(runs) == number * len(strategies)
    return {name: runs[at * number : (at + 1) * number] for at, name in enumerate(strategies)}


@pytest.fixture(scope="module")
def swept(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return sweep(data_dir, tmp_path_factory.mktemp("swept"), *STRATEGIES)


@pytest.fixture(scope="module")
def others(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    """A sweep over the seeds for a method that differs from all of the large one, made once."""

    @cache
    def swept_by(method: str) -> Finished:
        words = AS_PUBLISHED[method]
        folder = tmp_path_factory.mktemp(method)
        ended = flip(folder, "-m", "experiment=heart_disease", SEEDS, *words, FLIP_DATA_DIR=str(data_dir))
        assert ended.status == 0, ended.err
        return ended

    return swept_by


def accuracies(runs: Sequence[Path], *, federated: bool = True) -> tuple[float, ...]:
    """Mean accuracy over runs by the benchmark's protocol: pooled, then by hospital.

    Its pooled test is of rows scaled by the mean and deviation of all hospitals, its test by hospital of rows scaled by
    the hospital's own, whatever the model was trained on.
    """
    results = [json.loads((run / "result.json").read_text())["metrics"] for run in runs]
    assert len(results) == len(SEEDS.split(","))
    pooled, own = ("rescaled/", "") if federated else ("", "rescaled/")
    names = [f"test/{pooled}pooled/accuracy", *(f"test/{own}site/{hospital}/accuracy" for hospital in HOSPITALS)]
    return tuple(mean(metrics[name] for metrics in results) for name in names)


def is_met(method: str, means: tuple[float, ...]) -> None:
    """Each mean accuracy is the published one, within its tolerance."""
    print(method, [f"{value:.3f}" for value in means])
    for place, ours, published in zip(("pooled", *HOSPITALS), means, PUBLISHED[method], strict=True):
        assert abs(ours - published) <= TOLERANCE[place], (place, ours, published)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_published_accuracy_of_a_strategy_is_met(swept, strategy):
    is_met(strategy, accuracies(swept[strategy]))


@pytest.mark.long  # three more processor minutes
@pytest.mark.parametrize("method", ["pooled", "cyclic"])
def test_the_published_accuracy_of_a_method_is_met(others, method):
    is_met(method, accuracies(others(method).runs, federated="federation=inprocess" in AS_PUBLISHED[method]))


@pytest.mark.long
def test_the_other_strategies_meet_theirs_in_processor_minutes(data_dir, tmp_path):
    before = os.times()
    for strategy, runs in sweep(data_dir, tmp_path, *OTHERS).items():
        is_met(strategy, accuracies(runs))
    after = os.times()
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    assert user + system < 25 * 17  # 35 runs in five minutes of two processors, whatever else runs there


def test_what_the_hospitals_predict_is_what_the_readme_states(swept):
    found = []
    for strategy in STRATEGIES:
        results = [json.loads((run / "result.json").read_text()) for run in swept[strategy]]
        found.append(mean(each["metrics"]["test/pooled/accuracy"] for each in results))
    assert found == pytest.approx(stated_all("heart_disease"), abs=0.012)


@pytest.mark.long
def test_each_hospital_alone_is_as_good_as_the_readme_states(others):
    results = [each["metrics"] for each in others("cyclic").results]
    name = "baseline/alone/{}/test/pooled/accuracy"
    found = [mean(metrics[name.format(hospital)] for metrics in results) for hospital in HOSPITALS]
    print([f"{value:.3f}" for value in found])
    assert (min(found), max(found)) == pytest.approx(stated("heart_disease").alone, abs=STATED)
