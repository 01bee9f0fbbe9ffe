"""Sites that cannot learn together, as in other units, end the study before the first round, by name; no others do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from tests.coordinator.test_unlearnable import STRICT, WAYS
from tests.datamodules.sources.omop_files import COHORT, export, measurement, person, visit
from tests.studies import compose_study

MG_DL, UMOL_L = 8840, 8749
FEATURE = "domain: measurement, concepts: [3016723], descendants: false, window: [null, 0], aggregate: last"
DIED = "{_target_: datamodules.targets.Binary, column: died, positive: [1]}"
CREATININE = "{_target_: datamodules.targets.Regression, column: creatinine}"
HEADS = {
    "Binary": "{_target_: models.heads.classification.Binary, _partial_: true}",
    "Regression": "{_target_: models.heads.regression.Regression, _partial_: true}",
}


def database(folder: Path, units: Sequence[Any], values: Sequence[float] | None = None) -> None:
    """A value of creatinine a person, in these units; every second person died."""
    many = range(len(units))
    values = values or [1.0 + at % 7 if unit == MG_DL else 90.0 + at % 7 for at, unit in enumerate(units)]
    export(
        folder,
        {
            "person": [person(at + 1, 1940 + at % 40) for at in many],
            "visit_occurrence": [visit(at + 1, at + 1) for at in many],
            "measurement": [measurement(at + 1, at + 1, "2020-03-01", values[at], unit=units[at]) for at in many],
        },
    )


def study(
    folder: Path,
    units: Mapping[str, Sequence[Any]],
    *more: str,
    declared: str = "",
    tested: str = "",
    target: str = DIED,
) -> Any:
    """A study of OMOP databases: by site, the unit of each person's value."""
    roster = folder / "conf" / "sites"
    roster.mkdir(parents=True)
    for site, of_persons in units.items():
        if not (folder / site).exists():
            database(folder / site, of_persons)
        own = f"root: {folder / site}\npolicy: {STRICT}\ntrains: {str(site != tested).lower()}\n"
        own += "sources: {table: {_target_: datamodules.sources.omop.OMOP, connection: .}}\n"
        (roster / f"{site}.yaml").write_text(f"# @package sites.{site}\n{own}")
    cohort = COHORT.replace("SELECT person_id,", "SELECT person_id, person_id % 2 AS died,").replace("\n", " ")
    return compose_study(
        "dataset=table",
        f"+dataset.records.query.cohort='{cohort}'",
        f"+dataset.records.query.features.creatinine={{{FEATURE}{declared}}}",
        "dataset.records.person=person",
        f"dataset.target={target}",
        "dataset.tabular.numeric=[creatinine]",
        "model=risk_classifier",
        "model.encoders.text=null",
        "~model.head",
        f"+model.head={HEADS[target.split('targets.')[1].split(',')[0]]}",
        f"sites=[{','.join(units)}]",
        "name=tiny",
        "strategy.rounds=1",
        *more,
        config_dir=folder / "conf",
    )


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]], ids=" ".join)
@pytest.mark.parametrize("other", [UMOL_L, "", 0], ids=["another", "empty", "0"])
def test_a_site_whose_values_are_in_another_unit_is_refused_by_name(way, other, tmp_path):
    made = study(tmp_path, {"a": [MG_DL] * 60, "b": [MG_DL] * 60, "c": [other] * 60}, *way)
    result = execute(made, tmp_path / "run")
    unit = f"unit {other} at c" if other else "no unit at c"
    assert result["status"] == "refused" and result["rounds"] == 0
    assert "feature creatinine is in" in result["reason"] and "declare the unit" in result["reason"]
    assert f"unit {MG_DL} at a and b" in result["reason"] and unit in result["reason"]


def test_a_site_that_is_only_tested_is_compared_too(tmp_path):
    made = study(tmp_path, {"a": [MG_DL] * 60, "c": [UMOL_L] * 60}, *WAYS[0], tested="c")
    result = execute(made, tmp_path / "run")
    assert result["status"] == "refused" and f"unit {UMOL_L} at c" in result["reason"]


ALIKE: dict[str, tuple[dict[str, list[Any]], str]] = {
    "one unit everywhere": ({"a": [MG_DL] * 60, "b": [MG_DL] * 60}, ""),
    "no unit anywhere": ({"a": [0] * 60, "b": [""] * 60}, ""),
    "units that the study declares": ({"a": [MG_DL] * 60, "b": [UMOL_L] * 60}, ", units: {8840: 1.0, 8749: 0.0113}"),
    "a few values in another": ({"a": [MG_DL] * 60, "b": [MG_DL] * 52 + [UMOL_L] * 8}, ""),
}


@pytest.mark.parametrize("name", ALIKE)
def test_sites_that_do_not_differ_in_units_train(name, tmp_path):
    units, declared = ALIKE[name]
    result = execute(study(tmp_path, units, *WAYS[0], declared=declared), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]


def test_a_site_that_converts_the_column_itself_does_not_differ(tmp_path):
    columns = "+sites.b.columns={creatinine: {name: creatinine, factor: 0.0113}}"
    made = study(tmp_path, {"a": [MG_DL] * 60, "b": [UMOL_L] * 60}, *WAYS[0], columns)
    assert execute(made, tmp_path / "run")["status"] == "ok"


def test_a_unit_of_few_persons_does_not_leave_its_site(tmp_path):
    from flip.messages import Task
    from flip.messages.summary import Topic
    from flip.site.silo import Silo

    made = study(tmp_path, {"a": [MG_DL] * 57 + [UMOL_L] * 3})
    reply = Silo("a", made.sites["a"], tmp_path / "home").answer(
        Task("r", "study", 0, "statistics", {}, {}, {}, made.manifest_text)
    )
    assert reply.fault is None and not reply.summaries.get(Topic.COMPARED)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]], ids=" ".join)
@pytest.mark.parametrize(("number", "refused"), [(lambda at: 0.1, True), (lambda at: 3.0 + at % 2, False)])
def test_a_number_to_predict_that_is_constant_is_refused(way, number, refused, tmp_path):
    for site in "ab":
        database(tmp_path / site, [MG_DL] * 60, [number(at) for at in range(60)])
    alike = {site: [MG_DL] * 60 for site in "ab"}
    made = study(tmp_path, alike, "dataset.tabular.numeric=[died]", *way, target=CREATININE)
    result = execute(made, tmp_path / "run")
    assert result["status"] == ("refused" if refused else "ok"), result["reason"]
    assert ("creatinine is the same number in every training row" in result["reason"]) == refused
