"""From a site's scores to the pooled ones: intervals, subgroups, the threshold, and what stays at the site."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flip.coordinator.check_replies import problem
from flip.coordinator.evaluation import Evaluation
from flip.coordinator.loop import Coordinator
from flip.coordinator.pooled_metrics import merge_scores, threshold_from, wanted_scores
from flip.coordinator.roster import Roster
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.metrics import APART, BOOTSTRAP, TOGETHER, exact_of, gaps, methods_of
from flip.site.bootstrap import bootstrap
from flip.site.disclosure import suppress_levels
from flip.site.evaluate import leaving, score
from flip.site.persons import Persons
from flip.site.trainer import Device
from flip.strategies.fedavg import FedAvg
from models.encoders.tabular import Identity
from models.fusion import Single
from models.heads.classification import Binary
from models.metrics.binned import BinnedAUROC
from models.metrics.exact import AUROC
from models.multimodal import MultimodalModel
from tests.coordinator.test_loop import Notes
from tests.models.suite import Rows

CPU = Device("cpu", None, {})
TASK = Task("run", "study", 0, "evaluate", {}, {}, {"split": "test"}, "{}")


def model(threshold="youden") -> MultimodalModel:
    head = functools.partial(Binary, threshold=threshold)
    made = MultimodalModel({"tabular": Identity(1)}, Single, head, torch.optim.SGD, {"sex": ["female", "male"]})
    made.head.linear.weight.data, made.head.linear.bias.data = torch.ones(1, 1), torch.full((1,), -2.0)
    return made


def cohort(seed: int, rows: int = 60) -> dict[str, torch.Tensor]:
    """One feature, on which the label depends; half the rows are women."""
    draw = torch.Generator().manual_seed(seed)
    feature = torch.randn(rows, 1, generator=draw)
    label = (torch.rand(rows, generator=draw) < (2 * feature[:, 0]).sigmoid()).float()
    return {"tabular": feature, "label": label, "subgroup_sex": torch.arange(rows) % 2}


def answer(site: str, rows: dict, *, split="test", cell=1, threshold=None, task=TASK) -> Reply:
    """A site's reply, made as a silo makes it."""
    module, size = model(), len(rows["label"])
    module.decide_at(threshold)
    loader = DataLoader(Rows(rows), 16)
    persons = Persons.of(rows.get("person", torch.arange(size)).numpy())
    least = persons.examples_of(cell)
    repeats = persons.number < size
    own, again = score(module, loader, split=split, device=CPU, cell=least, seed=1, repeats=repeats)
    kept, summaries, withheld = leaving(persons, module, own, again, split=split, cell=cell)
    return Reply(site, task.digest, size, kept, summaries=summaries, withheld=withheld)


def merged(*replies: Reply, split="test"):
    return merge_scores(replies, model(), split, {reply.site: True for reply in replies})


def test_a_site_scores_exactly_with_intervals_and_the_pooled_area_is_binned():
    replies = [answer(name, cohort(seed)) for seed, name in enumerate("ab")]
    found = replies[0].metrics
    assert found["auroc/low"] < found["auroc"] < found["auroc/high"]
    pooled = merged(*replies).pooled
    assert "auroc" not in pooled
    assert pooled["auroc_binned/low"] < pooled["auroc_binned"] < pooled["auroc_binned/high"]
    assert pooled["accuracy/low"] < pooled["accuracy"] < pooled["accuracy/high"]


def test_pooled_scores_are_those_of_all_rows_together():
    sites = [cohort(seed) for seed in range(3)]
    together = {name: torch.cat([each[name] for each in sites]) for name in sites[0]}
    pooled = merged(*(answer(str(k), rows) for k, rows in enumerate(sites))).pooled
    whole = answer("all", together).metrics
    for name in ("accuracy", "brier", "auroc_binned", "calibration_error_binned", "sex/male/auroc_binned"):
        assert pooled[name] == pytest.approx(whole[name], abs=1e-5)
    assert pooled["auroc_binned"] == pytest.approx(whole["auroc"], abs=1 / 200)
    assert pooled["calibration_slope_binned"] == pytest.approx(whole["calibration_slope"], rel=0.05)


def test_no_row_is_in_a_reply():
    """What leaves is as large for a thousand rows as for sixty, and nothing of it is an exact metric's state."""
    small, large = (answer("a", cohort(0, rows)) for rows in (60, 1000))
    states = [reply.summaries[Topic.METRIC] for reply in (small, large)]
    shapes = [{name: summary.values.shape for name, summary in named.items()} for named in states]
    assert shapes[0] == shapes[1]
    assert not {name for name in shapes[0] if name.split("/")[0] in exact_of(model())}


def test_a_reply_to_an_evaluation_passes_the_check_and_other_names_do_not():
    reply, wanted = answer("a", cohort(0)), wanted_scores(model(), "test")
    assert problem(reply, TASK, wanted) is None
    forged = Reply("a", TASK.digest, 60, {"patient 7": 1.0})
    assert problem(forged, TASK, wanted) is Fault.INVALID


def test_validation_has_no_subgroups_exact_scores_or_intervals():
    assert set(answer("a", cohort(0), split="validate").metrics) == set(model().metrics)


def test_the_gap_between_subgroups_is_told():
    values = {"sex/female/auroc": 0.7, "sex/male/auroc": 0.9, "sex/female/examples": 3.0, "sex/male/auroc/low": 0.8}
    assert gaps(values, {"sex": ["female", "male"]}) == {"sex/gap/auroc": pytest.approx(0.2)}
    pooled = merged(answer("a", cohort(0))).pooled
    assert pooled["sex/gap/brier"] == pytest.approx(abs(pooled["sex/female/brier"] - pooled["sex/male/brier"]))


def test_thin_bins_leave_a_strict_site_merged():
    reply = answer("a", cohort(0, 120), cell=5)
    counts = reply.summaries[Topic.METRIC]["auroc_binned/ends"].values
    assert not ((counts > 0) & (counts < 5)).any()
    assert {"auroc", "auroc_binned"} <= reply.metrics.keys()


def test_counts_that_give_no_unbiased_curve_stay_at_the_site_and_its_own_exact_area_does_not():
    """Between one minimum cell of a class and five."""
    reply = answer("a", cohort(0, 40), cell=5)
    assert not {name for name in [*reply.metrics, *reply.summaries[Topic.METRIC]] if "auroc_binned" in name}
    assert {"auroc", "auroc/low"} <= reply.metrics.keys()
    assert "auroc_binned" not in merged(reply, answer("b", cohort(1))).pooled


def test_an_exact_score_stays_with_the_counts_that_are_too_few():
    rows = cohort(0)
    rows["label"] = torch.zeros(60)
    rows["label"][:3] = 1  # three cases
    reply = answer("a", rows, cell=5)
    assert not {name for name in reply.metrics if name.startswith(("auroc", "auprc", "sensitivity", "calibration"))}
    assert "auroc_binned/ends" not in reply.summaries[Topic.METRIC]
    assert "brier" in reply.metrics  # of all sixty


@pytest.mark.parametrize(
    ("counts", "total", "kept"),
    [
        ({"f": 20, "m": 30}, 50, set()),
        ({"f": 2, "m": 30}, 32, {"f", "m"}),  # the men's number would tell the women's
        ({"a": 2, "b": 9, "c": 30}, 41, {"a", "b"}),
        ({"f": 20, "m": 30}, 53, {"f"}),  # three rows whose level is not known
        ({"f": 0, "m": 30}, 30, set()),
    ],
)
def test_a_small_subgroup_cannot_be_told_from_the_others(counts, total, kept):
    assert suppress_levels(Persons.of(np.arange(total)), counts, 5) == kept


def test_a_strict_site_keeps_small_subgroups_back():
    rows = cohort(0)
    rows["subgroup_sex"] = (torch.arange(60) > 2).long()  # three women
    reply = answer("a", rows, cell=5)
    assert not {name for name in [*reply.metrics, *reply.summaries[Topic.METRIC]] if "sex/" in name}
    assert not {name for name in merged(reply).pooled if name.startswith("sex/")}


def test_the_bootstrap_is_about_as_wide_as_delongs_interval_of_the_same_rows():
    draw = np.random.default_rng(0)
    label = torch.from_numpy((draw.random(200) < 0.5).astype(int))
    shown = torch.from_numpy(draw.normal(label.numpy(), 1)).sigmoid()
    exact, binned = AUROC(), BinnedAUROC()
    for metric in (exact, binned):
        metric.update(shown, label)
    low, high = bootstrap(exact, draw)
    other = binned.interval()
    assert high - low == pytest.approx(other[1] - other[0], rel=0.2)
    assert low == pytest.approx(other[0], abs=0.03)


def test_the_bootstrap_draws_persons_with_all_their_rows():
    """Four rows of each person that say the same are as sure as one, and not twice as sure."""
    rows = cohort(0)
    widths = {}
    for name, times, named in (("once", 1, True), ("persons", 4, True), ("rows", 4, False)):
        again = {key: value.repeat(times, *[1] * (value.ndim - 1)) for key, value in rows.items()}
        found = answer("a", again | ({"person": torch.arange(60).repeat(times)} if named else {})).metrics
        widths[name] = found["auroc/high"] - found["auroc/low"]
    assert widths["persons"] == pytest.approx(widths["once"], rel=1e-5)
    assert widths["rows"] < 0.7 * widths["once"]


def test_rows_that_hardly_ever_have_a_value_have_no_interval():
    metric = AUROC()
    metric.update(torch.tensor([0.1, 0.9, 0.8]), torch.tensor([0, 1, 1]))
    assert all(np.isnan(bootstrap(metric, np.random.default_rng(0))))


def test_resamples_that_all_have_one_value_are_no_certainty():
    metric = AUROC()
    metric.update(torch.arange(40) / 40, (torch.arange(40) >= 20).long())
    assert float(metric.compute()) == 1
    assert all(np.isnan(bootstrap(metric, np.random.default_rng(0))))


class Sites:
    """Sites that hold a cohort for validation and another for the test, and answer as silos do."""

    def __init__(self, validate: dict[str, dict | None]) -> None:
        self.validate, self.asked = validate, []

    def __call__(self, task, names):
        for name in names:
            self.asked.append((name, task.params["split"], task.params.get("threshold")))
            rows = self.validate[name] if task.params["split"] == "validate" else cohort(9)
            if rows is None:
                yield Reply(name, task.digest)
            else:
                yield answer(name, rows, split=task.params["split"], threshold=task.params.get("threshold"), task=task)


def coordinator(**study) -> Coordinator:
    roster = Roster("r", "{}", {"a": True, "b": True}, 1, Notes())
    return Coordinator(roster, Evaluation(roster, model(**study), None, 1), seed=1, strategy=FedAvg(rounds=1))


def run_test(sites: Sites, stage: str = "test", alone: str = "", **study) -> dict[str, float]:
    made = coordinator(**study)
    made.evaluation.test(sites, stage, {}, "test", alone=alone)
    return made.evaluation.metrics


def test_the_threshold_is_chosen_on_validation_counts_and_applied_to_the_test():
    sites = Sites({"a": cohort(1), "b": cohort(2)})
    metrics = run_test(sites)
    chosen = metrics["test/pooled/threshold"]
    validated = merged(
        answer("a", cohort(1), split="validate"), answer("b", cohort(2), split="validate"), split="validate"
    )
    assert chosen == threshold_from(model(), validated.states) != 0.5
    assert sites.asked == [
        ("a", "validate", None),
        ("b", "validate", None),
        ("a", "test", chosen),
        ("b", "test", chosen),
    ]
    assert metrics["test/site/a/sensitivity"] == answer("a", cohort(9), threshold=chosen).metrics["sensitivity"]
    assert metrics["test/site/a/sensitivity"] != answer("a", cohort(9)).metrics["sensitivity"]


def test_other_test_data_do_not_change_the_threshold(monkeypatch):
    before = run_test(Sites({"a": cohort(1), "b": cohort(2)}))["test/pooled/threshold"]
    flipped = Sites({"a": cohort(1), "b": cohort(2)})
    monkeypatch.setitem(globals(), "cohort", lambda seed, real=cohort: {**real(seed), "label": 1 - real(seed)["label"]})
    assert run_test(flipped)["test/pooled/threshold"] == before


def test_a_declared_threshold_asks_for_no_validation():
    sites = Sites({"a": cohort(1), "b": cohort(2)})
    assert "test/pooled/threshold" not in run_test(sites, threshold=0.3)
    assert {split for _, split, _ in sites.asked} == {"test"}


def test_a_site_alone_decides_on_its_own_validation_data():
    sites = Sites({"a": cohort(1), "b": cohort(2)})
    run_test(sites, "alone", "b")
    assert [name for name, split, _ in sites.asked if split == "validate"] == ["b"]


def test_a_threshold_that_cannot_be_chosen_costs_the_decisions_alone():
    made = coordinator()
    made.evaluation.test(Sites({"a": None, "b": None}), "test", {}, "test")
    found = made.evaluation.metrics
    assert not {name for name in found if name.split("/")[-1] in ("threshold", "accuracy", "sensitivity")}
    assert {"test/pooled/auroc_binned", "test/pooled/brier", "test/site/a/auroc"} <= found.keys()
    assert "sex/gap/accuracy" not in str(sorted(found))
    assert Withheld.THRESHOLD.value in made.evaluation.withheld["test/pooled/accuracy"]


def test_one_metric_that_a_site_withholds_does_not_cost_the_threshold():
    replies = [answer(name, cohort(seed), split="validate") for seed, name in enumerate("ab")]
    kept = {n: each for n, each in replies[0].summaries[Topic.METRIC].items() if not n.startswith("brier/")}
    replies[0] = replace(replies[0], summaries={Topic.METRIC: kept}, withheld={"brier": Withheld.CELL})
    scored = merged(*replies, split="validate")
    assert threshold_from(model(), scored.states) is not None
    assert scored.reasons({"a": True, "b": True}, ["brier"])["pooled/brier"] == f"{Withheld.CELL.value} (a)"


def test_a_small_count_cannot_be_told_from_the_total_and_the_other_subgroup():
    rows = cohort(0)
    rows["tabular"] = torch.where(rows["label"][:, None] > 0, 4.0, -4.0)  # every decision is right
    rows["tabular"][[0, 2]] = -rows["tabular"][[0, 2]]  # but of two women
    found = answer("a", rows, cell=5)
    assert {n.split("/")[1] for n in found.withheld if n.startswith("sex/") and n.endswith("/accuracy")} == {
        "female",
        "male",
    }


def test_an_interval_over_sites_is_of_persons_where_they_have_several_rows_and_says_so():
    """The same rows, once of a person each and once of ten persons, whose rows are alike."""
    once, several = cohort(0, 60), cohort(0, 60)
    order = several["label"].argsort(stable=True)
    several = {name: each[order] for name, each in several.items()} | {"person": torch.arange(60) // 6}
    apart, together = merged(answer("a", once)), merged(answer("a", several))
    assert together.pooled["accuracy"] == apart.pooled["accuracy"]
    assert together.pooled["accuracy/low"] < apart.pooled["accuracy/low"] - 0.01
    assert together.replies["a"].metrics["accuracy/low"] == pytest.approx(together.pooled["accuracy/low"])
    assert together.repeats
    assert not apart.repeats
    said = methods_of(model(), repeats=True, together=together.together)
    assert said["accuracy"] == f"Wilson, {TOGETHER}"
    assert said["auroc"] == BOOTSTRAP
    assert said["subgroups"] == APART


def test_a_reply_with_wrong_sums_of_persons_does_not_pass_the_check():
    reply, wanted = answer("a", cohort(0) | {"person": torch.arange(60) // 6}), wanted_scores(model(), "test")
    assert problem(reply, TASK, wanted) is None
    below = {"accuracy": np.array([-1.0, 1, 1, 1])}
    for wrong, fault in (
        ({"accuracy": np.ones(3)}, Fault.INVALID),
        ({"other": np.ones(4)}, Fault.INVALID),
        (below, Fault.IMPLAUSIBLE),
    ):
        sums = {name: Summary(SummaryKind.SUM, each, 10) for name, each in wrong.items()}
        changed = replace(reply, summaries={**reply.summaries, Topic.SPREAD: sums})
        assert problem(changed, TASK, wanted) is fault
