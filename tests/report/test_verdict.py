"""What a run came to: the main metric beside the baselines, who took part, what was used, and what warns a reader."""

import json
from pathlib import Path
from typing import Any

import pytest

from flip.report import page as report
from flip.report.differences import Difference, paired
from flip.report.notices import notices
from flip.report.verdict import Verdict
from flip.runs.record import RunRecord
from tests.report.fixture import Page, line, write_json, write_run


def verdict(run: Path) -> Verdict:
    return Verdict(RunRecord.read(run))


def scores(own: list[float], other: list[float], prefix: str) -> dict[str, float]:
    """Accuracy of this run and of a baseline at the four sites of the fixture."""
    sites = ("cleveland", "hungarian", "switzerland", "va")
    found = {f"test/site/{site}/accuracy": value for site, value in zip(sites, own, strict=True)}
    return found | {
        f"{prefix.format(site=site)}test/site/{site}/accuracy": value for site, value in zip(sites, other, strict=True)
    }


def test_the_difference_is_the_mean_over_sites_by_their_test_examples_with_a_paired_interval() -> None:
    # By hand: weights 2, 1, 1; mean (2 * .1 + .2 + 0) / 4 = .1; residuals 0, .1, -.1, so the sum's variance is
    # 3 / 2 * (.1^2 + .1^2) = .03, the standard error sqrt(.03) / 4 = .0433, and t(.975, 2) = 4.303.
    value, ends = paired([0.1, 0.2, 0.0], [2, 1, 1])
    assert value == pytest.approx(0.1)
    assert ends == pytest.approx((0.1 - 4.3027 * 0.0433, 0.1 + 4.3027 * 0.0433), abs=1e-4)


def test_two_sites_have_a_difference_and_no_interval() -> None:
    assert paired([0.1, 0.3], [1, 1]) == (pytest.approx(0.2), None)


def test_a_run_below_centralized_training_everywhere_says_so(tmp_path: Path) -> None:
    metrics = scores([0.70, 0.60, 0.65, 0.60], [0.75, 0.66, 0.70, 0.66], "baseline/centralized/")
    [against] = verdict(write_run(tmp_path, result={"metrics": metrics, "monitor": "accuracy"})).differences
    assert against.against == "centralized training"
    assert against.interval is not None
    assert against.interval[1] < 0
    assert "worse at 4 of 4 sites" in against.words


@pytest.mark.parametrize(
    ("interval", "higher", "said"),
    [
        ((-0.08, -0.02), True, "worse than"),
        ((0.02, 0.08), True, "better than"),
        ((0.02, 0.08), False, "worse than"),
        ((-0.02, 0.08), True, "not clearly different from"),
    ],
)
def test_the_sentence_says_what_the_interval_does(interval: tuple[float, float], higher: bool, said: str) -> None:
    gap = Difference("centralized training", 0.0, interval, ["a", "b", "c"], [])
    assert gap.says(higher) == f"{said} centralized training"
    assert Difference("centralized training", 0.0, None, ["a"], []).says(higher) == ""


def test_a_run_is_held_against_each_sites_own_model_on_that_sites_data(tmp_path: Path) -> None:
    metrics = scores([0.7, 0.6, 0.6, 0.6], [0.6, 0.7, 0.7, 0.7], "baseline/alone/{site}/")
    [against] = verdict(write_run(tmp_path, result={"metrics": metrics, "monitor": "accuracy"})).differences
    assert against.words.endswith("worse at 3 of 4 sites: hungarian, switzerland, va")


def test_of_an_error_more_is_worse(tmp_path: Path) -> None:
    named = scores([2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 3.0, 3.0], "baseline/centralized/")
    metrics = {name.replace("accuracy", "mae"): value for name, value in named.items()}
    [against] = verdict(write_run(tmp_path, result={"metrics": metrics})).differences
    assert list(against.worse) == ["cleveland"]


def test_a_site_that_refused_or_failed_in_every_round_is_named_with_its_reason(tmp_path: Path) -> None:
    faults = {("va", number): "TIMEOUT" for number in range(3)}
    run = write_run(tmp_path, rounds=3, refused={"switzerland": "REFUSED_COHORT"}, faults=faults)
    found = verdict(run)
    assert found.roles == {
        "cleveland": "took part", "hungarian": "took part", "switzerland": "refused", "va": "lost",
    }  # fmt: skip
    assert found.sites[0] == "2 of 4 sites trained."
    assert any(said.startswith("switzerland: refused by the site's policy") for said in found.sites)
    assert any(said.startswith("va: lost, the site did not answer") for said in found.sites)


def test_a_site_that_is_only_tested_is_said_to_be_in_no_pooled_number(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["va"]["trains"] = False
    write_json(run / "cohort.json", cohort)
    assert verdict(run).sites == ["3 of 3 sites trained.", "va: tested only, in no pooled number."]


def test_what_was_used_is_told_of_how_much_and_who_lost_much(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    cohort = json.loads((run / "cohort.json").read_text())
    cohort["switzerland"] |= {"persons": 123, "skipped": {"a value is missing": 77}}
    for site in cohort:
        cohort[site]["persons"] = sum(cohort[site][k] for k in ("train", "test")) + sum(
            cohort[site]["skipped"].values()
        )
        cohort[site]["outcomes"] = {"died": 10, "alive": 20}
    write_json(run / "cohort.json", cohort)
    assert verdict(run).cohort == [
        "740 of 835 persons used.", "switzerland leaves out 63% of its own.",
        "Persons trained on, by outcome: died: 40; alive: 80.",
    ]  # fmt: skip


def test_a_site_of_two_test_examples_is_not_the_worst(tmp_path: Path) -> None:
    sites = {"large": (300, 200, 100), "middle": (90, 60, 30), "tiny": (6, 4, 2)}
    metrics = {"test/site/large/c_index": 0.7, "test/site/middle/c_index": 0.6, "test/site/tiny/c_index": 0.0}
    run = RunRecord.read(write_run(tmp_path, sites=sites, result={"metrics": metrics}))
    assert run.worst_site("c_index") == "middle"


def test_a_site_of_few_persons_with_many_examples_is_not_the_worst(tmp_path: Path) -> None:
    sites = {"large": (300, 200, 100), "middle": (90, 60, 30), "many": (10, 80, 40)}  # persons, train, test
    metrics = {"test/site/large/accuracy": 0.7, "test/site/middle/accuracy": 0.6, "test/site/many/accuracy": 0.1}
    run = RunRecord.read(write_run(tmp_path, sites=sites, result={"metrics": metrics}))
    assert run.worst_site("accuracy") == "middle"


def with_validation(run: Path, values: list[float], name: str = "accuracy") -> RunRecord:
    lines = [line(n, "pooled", "validate", examples=50, metrics={name: value}) for n, value in enumerate(values)]
    (run / "rounds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return RunRecord.read(run)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, 0.6, 0.7, 0.75, 0.8], True),
        ([0.5, 0.6, 0.8, 0.75, 0.7], False),
        ([0.5, 0.6, 0.8, 0.8, 0.8], False),  # no better than before
        ([0.5, 0.8], False),  # two rounds say nothing
    ],
)
def test_validation_that_still_improves_at_the_last_round_is_not_converged(
    tmp_path: Path, values: list[float], said: bool
) -> None:
    found = notices(with_validation(write_run(tmp_path, result={"monitor": "accuracy"}), values))
    assert any(text.startswith("Not converged") for text in found) == said


def test_a_loss_that_was_huge_from_the_first_round_is_told_too(tmp_path: Path) -> None:
    run = with_validation(write_run(tmp_path), [2e29, 2e29], "loss")
    assert notices(run)[0].startswith("Diverged: validation loss is 2.0e29")


@pytest.mark.parametrize("loss", [4e29, 25.0])
def test_a_loss_that_grew_past_all_measure_is_told_first(tmp_path: Path, loss: float) -> None:
    run = with_validation(write_run(tmp_path), [0.7, 0.9, loss], "loss")
    assert notices(run)[0].startswith("Diverged: validation loss is ")


def test_a_loss_that_falls_is_not_said_to_diverge(tmp_path: Path) -> None:
    assert notices(with_validation(write_run(tmp_path), [900.0, 0.9, 0.7], "loss")) == []


FIRST = {"test/pooled/accuracy": 0.748, "test/pooled/accuracy/low": 0.691, "test/pooled/accuracy/high": 0.797}


@pytest.mark.parametrize(
    ("about", "pill"), [({"simulated": True}, "simulated federation"), ({"simulated": False}, "live federation")]
)
def test_the_first_screen_holds_the_verdict_and_names_what_was_simulated(
    tmp_path: Path, about: dict[str, Any], pill: str
) -> None:
    run = write_run(tmp_path, result={"metrics": FIRST, "monitor": "accuracy"})
    write_json(run / "provenance.json", json.loads((run / "provenance.json").read_text()) | about)
    text = Page(report.write(run).read_text()).text
    assert f"ok {pill}" in text
    assert text.index("Verdict") < text.index("Learning curves")
    assert "this run 0.748 0.691 to 0.797" in text


def test_what_is_withheld_is_told_on_the_first_screen_and_named_with_its_rule(tmp_path: Path) -> None:
    withheld = {"test/pooled/accuracy": "a count is too small (va)", "test/site/va/accuracy": "a count is too small"}
    run = write_run(tmp_path, result={"metrics": {}, "monitor": "accuracy", "withheld": withheld})
    text = Page(report.write(run).read_text()).text
    assert "withheld: a count is too small (va)" in text
    assert "Withheld by the sites' policies: 2 numbers" in text


def test_the_difference_says_over_what_its_interval_is(tmp_path: Path) -> None:
    metrics = scores([0.70, 0.60, 0.65, 0.60], [0.75, 0.66, 0.70, 0.66], "baseline/centralized/")
    [against] = verdict(write_run(tmp_path, result={"metrics": metrics, "monitor": "accuracy"})).differences
    assert "by the spread of the differences over the 4 sites, not over persons)" in against.words


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("accuracy", ["va alone is better by 0.050 on the test data of all sites",
                      "cleveland alone is better by 0.010 on the test data of all sites"]),
        ("mae", ["hungarian alone is better by 0.100 on the test data of all sites"]),
    ],
)  # fmt: skip
def test_a_site_whose_own_model_beats_the_federation_is_said(tmp_path: Path, metric: str, said: list[str]) -> None:
    alone = {"cleveland": 0.71, "hungarian": 0.6, "va": 0.75}
    metrics = {f"baseline/alone/{site}/test/pooled/{metric}": value for site, value in alone.items()}
    run = write_run(tmp_path, result={"metrics": {f"test/pooled/{metric}": 0.7, **metrics}, "monitor": metric}
                    | {"higher_is_better": metric == "accuracy"})  # fmt: skip
    assert verdict(run).better_alone == said
    assert all(text in Page(report.write(run).read_text()).text for text in said)


def test_the_worst_site_has_its_interval_and_its_test_examples(tmp_path: Path) -> None:
    metrics = {"test/site/cleveland/accuracy": 0.8, "test/site/va/accuracy": 0.622,
               "test/site/va/accuracy/low": 0.476, "test/site/va/accuracy/high": 0.749}  # fmt: skip
    run = write_run(tmp_path, result={"metrics": metrics, "monitor": "accuracy"})
    said = "Worst site: va, 0.622 (0.476 to 0.749), 45 test examples."
    assert verdict(run).worst == said
    assert said in Page(report.write(run).read_text()).text


def test_the_benchmarks_protocol_is_a_row_of_its_own_below_what_the_sites_predict(tmp_path: Path) -> None:
    metrics = {"test/pooled/accuracy": 0.705, "test/rescaled/pooled/accuracy": 0.748,
               "test/rescaled/pooled/accuracy/low": 0.691, "test/rescaled/pooled/accuracy/high": 0.797}  # fmt: skip
    run = write_run(tmp_path, result={"metrics": metrics, "monitor": "accuracy"})
    found = [(model.name, model.value, model.interval) for model in verdict(run).models[:2]]
    assert found == [
        ("this run", 0.705, None), ("this run, by the benchmark's protocol", 0.748, (0.691, 0.797)),
    ]  # fmt: skip
    assert "No site predicts so" in Page(report.write(run).read_text()).text


def test_an_interval_of_the_verdict_stands_on_one_line_however_narrow_the_page(tmp_path: Path) -> None:
    html = report.write(write_run(tmp_path, result={"metrics": FIRST, "monitor": "accuracy"})).read_text()
    [rule] = [each for each in html.split("}") if ".models td:last-child" in each]
    assert "white-space: nowrap" in rule
