"""Statistics and edges that a coordinator sends are held against what sums and edges can be, before any use."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.harmonize import ComBat
from datamodules.multimodal import Multimodal
from datamodules.records import Records
from datamodules.splits import ByColumn
from datamodules.tabular import Tabular
from datamodules.targets import Binary, MultiClass
from flip.messages import Fault
from flip.site import admission
from flip.site.agreed import refuse_made_up, refuse_weighed
from flip.site.protocol import _impossible
from flip.site.refusal import Refusal
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
    sent = {NAME: np.array([row] + [[100.0, 0.0, 1e7]] * 12)}
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


def test_edges_of_more_numbers_than_any_study_has_are_refused_as_fast_as_they_came(hospital):
    sent = {f"edges/x{number}": np.arange(65.0) for number in range(20_000)}
    started = time.process_time()
    reply = hospital.silo.answer(replace(hospital.edges(0.0, "many"), state={**MOMENTS, **sent}))
    assert reply.fault is Fault.REFUSED_PROTOCOL
    assert time.process_time() - started < 10  # were each name held against all others, minutes


def test_workers_and_threads_of_a_study_are_bounded(hospital):
    manifest = json.loads(hospital.study.manifest_text)
    manifest["dataset"]["workers"] = 10**6
    reply = hospital.silo.answer(replace(hospital.task(run="workers"), manifest=json.dumps(manifest)))
    assert reply.fault is Fault.REFUSED_MANIFEST
    last = (hospital.folder / "home" / "site.log").read_text().splitlines()[-1]
    assert "dataset.workers: 1000000 must be at most 256" in last


def test_sums_that_a_column_of_one_value_has_are_taken():
    assert not _impossible(NAME, np.array([[3.0, 0.3, 0.03]]))


@pytest.mark.parametrize(("mean", "deviation"), [(54.0, 0.01), (1e6, 1.0)], ids=["tiny deviation", "mean elsewhere"])
def test_consistent_sums_that_would_blow_a_row_up_are_refused_and_no_value_of_the_site_is_told(
    hospital, mean, deviation
):
    column = 100.0 * np.array([1.0, mean, mean**2 + deviation**2])
    sent = {NAME: np.array([column] + [[100.0, 0.0, 1e7]] * 12)}
    task = hospital.task(run=f"{mean} {deviation}")
    reply = hospital.silo.answer(replace(task, state=sent))
    assert (reply.fault, dict(reply.weights)) == (Fault.REFUSED_PROTOCOL, {})
    log = (hospital.folder / "home" / "site.log").read_text().splitlines()
    assert "'moments/features': a deviation below 1/100 of this site's own" in log[-1]
    assert hospital.silo.answer(replace(task, run=f"{mean} after")).fault is None  # the module is as it was


class OneColumn:
    """Rows of one person each."""

    binned = ("sum/bins",)

    def __init__(self, values: list[float], bins: list[float] | None = None) -> None:
        self.values, self.bins = np.array(values), bins

    def statistics(self) -> dict[str, np.ndarray]:
        x = self.values
        moments = np.array([float(len(x)), x.sum(), (x**2).sum()])
        return {"moments/x": moments} | ({} if self.bins is None else {"sum/bins": np.array(self.bins)})

    def agree(self, agreed: object) -> None:
        """Nothing to do."""

    def whose(self, split: str) -> np.ndarray:
        return np.arange(len(self.values))


MANY = [float(each) for each in range(40)]
WIDER = [1000.0 * each for each in MANY]  # another unit
CONSTANT = [7.0] * 40


@pytest.mark.parametrize("own", [MANY, WIDER, CONSTANT, [1e6 + each for each in MANY]])
@pytest.mark.parametrize("other", [MANY, CONSTANT, CONSTANT * 5000, [], [-1e9] * 40], ids=len)
def test_what_an_honest_federation_agrees_on_is_never_refused(own, other):
    sums = OneColumn(own).statistics()["moments/x"] + OneColumn(other).statistics()["moments/x"]
    refuse_made_up({"moments/x": sums}, OneColumn(own))


def test_a_column_that_the_site_withheld_may_be_of_one_value_elsewhere_and_not_of_nearly_one():
    few = OneColumn([1.0] * 3)
    refuse_made_up({"moments/x": np.array([100.0, 0.0, 0.0])}, few)
    with pytest.raises(Refusal):
        refuse_made_up({"moments/x": np.array([100.0, 0.0, 1e-4])}, few)


@pytest.mark.parametrize("sums", [[1.0, 1e8, 2e16], [1e-200, 1e54, 1e308]], ids=["of one row", "no number"])
def test_sums_that_are_read_otherwise_than_they_look_are_refused(sums):
    with pytest.raises(Refusal):
        refuse_made_up({"moments/x": np.array(sums)}, OneColumn(MANY))


OTHERS = {NAME: np.array([[100.0, 0.0, 1e7]] * 12 + [[101.0, 0.0, 1e7]])}  # one person more, as a newcomer would give


@pytest.mark.parametrize("state", [OTHERS, {}], ids=["others", "none"])
@pytest.mark.parametrize("step", ["fit", "evaluate", "describe"])
def test_a_run_has_one_set_of_agreed_statistics(hospital, state, step):
    run, params = f"{step} {len(state)}", {"split": "test"} if step == "evaluate" else {}
    first = hospital.task("describe", run=run, tries=True)
    assert hospital.silo.answer(first).fault is None
    task = hospital.task(step, run=run, **params)
    other = hospital.silo.answer(replace(task, state=state))
    assert (other.fault, dict(other.weights), dict(other.summaries)) == (Fault.REFUSED_PROTOCOL, {}, {})
    assert "statistics/agreed" in (hospital.folder / "home" / "site.log").read_text().splitlines()[-1]
    hospital.open()  # also by a site that was started anew
    assert hospital.silo.answer(replace(task, state=state)).fault is Fault.REFUSED_PROTOCOL
    assert hospital.silo.answer(task).fault is None  # the first set goes on
    assert (
        hospital.silo.answer(replace(task, run=f"{run} again", state=OTHERS)).fault is None
    )  # another run has its own


def test_statistics_of_a_model_trained_elsewhere_are_held_against_the_rows_before_a_fit(hospital):
    column = 100.0 * np.array([1.0, 54.0, 54.0**2 + 0.01**2])
    state = {NAME: np.array([column] + [[100.0, 0.0, 1e7]] * 12)}
    assert hospital.silo.answer(hospital.task()).fault is None
    (loaded,) = hospital.silo._loaded.values()
    loaded.agree(replace(hospital.task("evaluate"), stage="applied", state=state))
    for sent in (state, {}):
        with pytest.raises(Refusal):
            loaded.agree(replace(hospital.task(), state=sent))
    loaded.agree(hospital.task())


def test_a_wide_column_that_is_left_out_would_stay_as_it_is_and_is_refused():
    with pytest.raises(Refusal):
        refuse_made_up({}, OneColumn(WIDER))
    refuse_made_up({}, OneColumn(MANY))


@pytest.mark.parametrize("bins", [[0.0] * 500 + [1.0] + [0.0] * 499, [1.0] * 999 + [-1.0]], ids=["one bin", "below 0"])
def test_shares_in_one_bin_or_below_0_are_refused(bins):
    site = OneColumn(MANY, [0.04] * 1000)
    sent = {"moments/x": site.statistics()["moments/x"]}
    with pytest.raises(Refusal, match="sum/bins"):
        refuse_made_up({**sent, "sum/bins": np.array(bins)}, site)
    refuse_made_up({**sent, "sum/bins": np.array([0.08] * 500 + [0.0] * 500)}, site)


class Harmonised:
    """Rows of one person each, of which what differs between sites is taken out."""

    def __init__(self, seed: int, shift: float) -> None:
        rng = np.random.default_rng(seed)
        age = rng.normal(60 + shift, 9, 40)
        columns = {name: 0.1 * age + shift + rng.normal(0, 1, 40) for name in "ab"}
        self.table, self.person = pd.DataFrame({**columns, "age": age}), np.arange(40)
        self.tabular = Tabular(["a", "b", "age"], harmonize=ComBat(["a", "b"], ["age"]))

    def statistics(self) -> dict[str, np.ndarray]:
        return self.tabular.statistics(self.table, self.person)[0]

    def agree(self, agreed: object) -> None:
        """Nothing to do."""

    def adjusted(self, agreed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.tabular.adjusted(self.table, agreed)

    def whose(self, split: str) -> np.ndarray:
        return self.person


def of_both() -> dict[str, np.ndarray]:
    one, other = Harmonised(0, 0.0).statistics(), Harmonised(1, 4.0).statistics()
    return {name: one[name] + other[name] for name in one}


def test_harmonised_rows_of_an_honest_federation_are_never_refused():
    for site in (Harmonised(0, 0.0), Harmonised(1, 4.0)):
        refuse_made_up(of_both(), site)


@pytest.mark.parametrize(("name", "by"), [("xy", 1e6), ("xx", 1e-6), ("y", 1e5), ("x", 1e5), ("xy", 1e305)])
def test_sums_by_which_harmonised_columns_become_large_are_refused(name, by):
    sums, place = of_both(), f"sum/harmonize/{name}"
    with pytest.raises(Refusal, match="moments/tabular/a"):
        refuse_made_up({**sums, place: sums[place] * by}, Harmonised(0, 0.0))


def test_sums_of_another_shape_are_refused():
    with pytest.raises(Refusal, match="sum/harmonize/xy"):
        refuse_made_up({**of_both(), "sum/harmonize/xy": np.ones((2, 2))}, Harmonised(0, 0.0))


def test_a_cohort_of_tables_holds_its_harmonised_rows_against_what_scales_them(tmp_path):
    site, root = Harmonised(0, 0.0), tmp_path / "cohort.csv"
    site.table.assign(person=[f"p{n}" for n in range(40)], ill=[n % 2 for n in range(40)]).to_csv(root, index=False)
    data = Multimodal(
        str(root), target=Binary("ill", positive=[1]), records=Records(person="person"), tabular=site.tabular
    )
    honest = data.statistics()
    refuse_made_up(honest, data)
    with pytest.raises(Refusal, match="moments/tabular/a"):
        refuse_made_up({**honest, "sum/harmonize/xy": honest["sum/harmonize/xy"] * 1e6}, data)


class Classes:
    """One row a person, of classes a, b and c."""

    def __init__(self, folder: Path, *persons: int) -> None:
        kind = np.repeat(list("abc"), persons)
        table = pd.DataFrame({"person": [f"p{n}" for n in range(len(kind))], "kind": kind, "age": range(len(kind))})
        table.assign(split="train").to_csv(folder / "cohort.csv", index=False)
        self.data = Multimodal(
            str(folder / "cohort.csv"),
            target=MultiClass("kind", list("abc")),
            records=Records(person="person"),
            tabular=Tabular(["age"]),
            split=ByColumn("split"),
        )
        self.honest = self.data.statistics()

    def sent(self, *persons: float) -> dict[str, np.ndarray]:
        """Agreed sums with these persons by class."""
        return {**self.honest, "count/label": np.array(persons)}


@pytest.mark.parametrize("persons", [(37, 2, 1), (38, 1, 1), (40, 0, 0), (4, 4, 4)], ids=str)
@pytest.mark.parametrize("all_sites", [(37.0, 0.0, 0.0), (400.0, 200.0, 100.0), (1e4, 50.0, 900.0), (0.0, 0.0, 0.0)])
def test_classes_are_weighed_by_what_an_honest_federation_has(tmp_path, persons, all_sites):
    site = Classes(tmp_path, *persons)
    refuse_weighed(site.sent(*all_sites), site.data, 5)


@pytest.mark.parametrize(
    ("persons", "all_sites"),
    [
        ((38, 1, 1), (1e9, 1.0, 1e9)),
        ((37, 2, 1), (1e9, 1.0, 1.0)),
        ((36, 4, 0), (1e6, 1.0, 0.0)),
        ((4, 4, 4), (1e6, 1, 1e6)),
    ],
)
def test_classes_by_which_the_rows_of_few_persons_would_be_nearly_all_of_the_loss_are_refused(
    tmp_path, persons, all_sites
):
    site = Classes(tmp_path, *persons)
    refuse_weighed(site.sent(*all_sites), site.data, 1)  # of public data
    with pytest.raises(Refusal, match="minimum_cell=5"):
        refuse_weighed(site.sent(*all_sites), site.data, 5)


def test_what_is_agreed_is_held_against_the_persons_of_each_class_before_it_is_taken(hospital, monkeypatch):
    def refuse(agreed: object, data: object, cell: int) -> None:
        raise Refusal(Fault.REFUSED_PROTOCOL, f"of {cell}")

    monkeypatch.setattr(admission, "refuse_weighed", refuse)
    hospital.open()
    assert hospital.silo.answer(hospital.task(run="weighed")).fault is Fault.REFUSED_PROTOCOL
