# ruff: noqa: E501 (queries read better whole)
"""A row of an OMOP cohort is made of its own person's records, whatever the study's query says."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from datamodules.sources import cohort_sql, one_person
from datamodules.sources.omop import OMOP, Cohorts
from tests.datamodules.sources.omop_files import COHORT, death, measurement, note, person, visit
from tests.datamodules.sources.test_cohort_sql import REALISTIC

SECRET = "Mr Jones, of 4 Elm Row"
PERSONS = range(1, 9)
TABLES = {
    "person": [person(each, sex=8507 + 25 * (each % 2), location_id=each) for each in PERSONS],
    "location": [{"location_id": each, "zip": f"zip {each}"} for each in (*PERSONS, 99)],
    "visit_occurrence": [
        visit(10 * each + nth, each, f"2020-0{nth}-0{each}", visit_end_date=f"2020-0{nth}-1{each}",
              visit_end_datetime=f"2020-0{nth}-1{each}")
        for each in PERSONS for nth in (1, 2, 3)
    ],
    "measurement": [measurement(10 * each + nth, each, f"2020-01-0{nth}", each * nth) for each in PERSONS for nth in (1, 2)],
    "condition_occurrence": [{"condition_occurrence_id": 1, "person_id": 3, "condition_concept_id": 4}],
    "death": [death(2, "2020-03-12"), death(5, "2020-01-02")],
    "note": [note(each, each, "2020-01-01", SECRET if each == 4 else f"note of {each}") for each in PERSONS],
    "concept": [{"concept_id": 9201, "concept_name": "Inpatient Visit"}, {"concept_id": 1, "concept_name": "Else"}],
    "concept_ancestor": [{"ancestor_concept_id": 9, "descendant_concept_id": 9201}],
    "cost": [{"cost_id": 1, "total_cost": 3}],
}  # fmt: skip
DAY = "DATE '2020-03-10' AS index_date"
ICU = yaml.safe_load((Path(__file__).parents[3] / "conf/dataset/icu.yaml").read_text())["records"]["query"]["cohort"]

ATTACKS = {
    "a note by its person": f"SELECT person_id, {DAY}, (SELECT MAX(note_text) FROM note WHERE person_id = 4) AS a FROM person",
    "a join": f"SELECT p.person_id, {DAY}, n.note_text AS a FROM person p JOIN note n ON n.person_id = 4",
    "a comma": f"SELECT p.person_id, {DAY}, n.note_text AS a FROM person p, note n WHERE n.person_id = 4",
    "joins in brackets": f"SELECT p.person_id, {DAY}, n.note_text AS a FROM (person p JOIN note n ON n.person_id = 4)",
    "a WITH": f"WITH n AS (SELECT note_text FROM note WHERE person_id = 4) SELECT p.person_id, {DAY}, n.note_text AS a FROM person p, n",
    "a union": f"SELECT p.person_id, 1 AS accession, {DAY}, 'x' AS a FROM person p UNION ALL "
               f"SELECT p.person_id, 2, {DAY}, n.note_text FROM person p JOIN note n ON n.person_id = 4",
    "a condition": f"SELECT person_id, {DAY}, CASE WHEN EXISTS (SELECT 1 FROM note WHERE person_id = 4) "
                   f"THEN '{SECRET}' END AS a FROM person",
    "names of columns": f"SELECT p.person_id, {DAY}, n.c AS a FROM person p JOIN (SELECT note_text, person_id FROM note) AS n(c, d) ON n.d = 4",
    "a deep query": f"SELECT person_id, {DAY}, (SELECT x FROM (SELECT note_text AS x FROM note WHERE note_id = 4) AS y) AS a FROM person",
    "a window": f"SELECT person_id, {DAY}, MAX(note_text) OVER (PARTITION BY note_type_concept_id) AS a FROM note",
    "upper case": f"SELECT PERSON_ID, {DAY}, (SELECT MAX(NOTE_TEXT) FROM NOTE WHERE NOTE_ID = 4) AS A FROM PERSON",
}  # fmt: skip


@pytest.mark.parametrize("query", ATTACKS.values(), ids=ATTACKS.keys())
def test_the_note_of_one_person_is_in_the_rows_of_no_other(connect, query):
    table = OMOP(connect(TABLES), cohort=query).read()
    assert set(table["person"][table["a"] == SECRET]) <= {"4"}


def test_one_person_cannot_be_many(connect):
    query = f"SELECT ROW_NUMBER() OVER (PARTITION BY 1) AS person_id, visit_occurrence_id AS accession, {DAY} FROM visit_occurrence"
    assert set(OMOP(connect(TABLES), cohort=query).read()["person"]) == set(map(str, PERSONS))
    one = {**TABLES, "person": TABLES["person"][:1]}
    assert OMOP(connect(one, name="one"), cohort=query).read()["person"].tolist() == ["1"] * 3


def test_an_address_is_that_of_the_person(connect):
    query = f"SELECT p.person_id, {DAY}, l.zip AS a FROM person p, location l"
    table = OMOP(connect(TABLES), cohort=query).read()
    assert dict(zip(table["person"], table["a"], strict=True)) == {str(each): f"zip {each}" for each in PERSONS}


def test_a_table_that_says_of_nobody_whose_its_rows_are_is_refused(connect):
    query = f"SELECT p.person_id, {DAY}, c.total_cost FROM person p, cost c"
    with pytest.raises(ValueError, match="reads cost, which does not say whose its rows are"):
        OMOP(connect(TABLES), cohort=query).read()


def test_the_names_that_a_query_would_have_to_know_are_new_each_time():
    query, columns = cohort_sql.parse(COHORT), {"visit_occurrence": {"person_id"}, "person": {"person_id"}}
    told = [one_person.alone(query, columns).sql("postgres") for _ in range(2)]
    assert told[0] != told[1]
    assert query.sql() == cohort_sql.parse(COHORT).sql()  # the study's own tree stays


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"SELECT person_id, {DAY} FROM person LIMIT 5", "LIMIT, which counts rows of all persons"),
        (f"SELECT person_id, {DAY} FROM person OFFSET 5", "OFFSET, which counts rows of all persons"),
        (f"SELECT x.person_id, {DAY} FROM (SELECT * FROM person LIMIT 5) AS x", "LIMIT"),
        (f"SELECT person_id, {DAY}, ROW_NUMBER() OVER (ORDER BY person_id) AS n FROM person", "PARTITION BY person_id"),
        (f"WITH m AS (SELECT AVG(value_as_number) AS a FROM measurement) SELECT person_id, {DAY}, a FROM person, m",
         "AVG over all persons: write GROUP BY person_id"),
        (f"SELECT MAX(person_id) AS person_id, {DAY} FROM person", "MAX over all persons"),
    ],
)  # fmt: skip
def test_what_is_about_all_persons_is_refused_by_name(connect, query, message):
    with pytest.raises(ValueError, match=message):
        OMOP(connect(TABLES), cohort=query).read()


HONEST = {
    "first stays": COHORT,
    "realistic": REALISTIC,
    "icu": ICU.replace("32037", "9201"),
    "window": "SELECT person_id, visit_occurrence_id AS accession, visit_start_date AS index_date, "
              "LAG(visit_start_date) OVER (PARTITION BY person_id ORDER BY visit_start_date) AS before FROM visit_occurrence",
    "concepts": "SELECT v.person_id, v.visit_occurrence_id AS accession, v.visit_start_date AS index_date, c.concept_name "
                "FROM visit_occurrence v JOIN concept c ON c.concept_id = v.visit_concept_id "
                "WHERE v.visit_concept_id IN (SELECT descendant_concept_id FROM concept_ancestor WHERE ancestor_concept_id = 9)",
    "aggregates": f"SELECT person_id, {DAY}, AVG(value_as_number) AS mean, COUNT(*) AS n FROM measurement GROUP BY person_id HAVING MAX(value_as_number) > 4",
    "dates": "SELECT v.person_id, v.visit_occurrence_id AS accession, v.visit_start_date + INTERVAL '1 day' AS index_date, "
             "EXTRACT(MONTH FROM v.visit_start_date) AS month FROM visit_occurrence v WHERE v.visit_start_date >= DATE '2020-02-01'",
    "left join": f"SELECT p.person_id, {DAY}, d.death_date AS died FROM person p LEFT JOIN death d USING (person_id)",
    "not exists": f"SELECT p.person_id, {DAY} FROM person p WHERE NOT EXISTS (SELECT 1 FROM death d WHERE d.person_id = p.person_id)",
    "in": f"SELECT person_id, {DAY} FROM person WHERE person_id IN (SELECT person_id FROM measurement WHERE value_as_number > 6)",
    "last value": f"SELECT p.person_id, {DAY}, (SELECT m.value_as_number FROM measurement m WHERE m.person_id = p.person_id "
                  "ORDER BY m.measurement_date DESC LIMIT 1) AS last FROM person p",
    "union": f"SELECT person_id, {DAY} FROM death UNION SELECT person_id, {DAY} FROM condition_occurrence",
    "except": f"SELECT person_id, {DAY} FROM person EXCEPT SELECT person_id, {DAY} FROM death",
    "a table of groups": "SELECT x.person_id, x.began AS index_date, g.word FROM (SELECT person_id, MIN(visit_start_date) AS began "
                         "FROM visit_occurrence GROUP BY person_id) AS x JOIN person p ON p.person_id = x.person_id "
                         "JOIN (VALUES (8507, 'm'), (8532, 'f')) AS g(sex, word) ON g.sex = p.gender_concept_id",
    "full join": f"SELECT p.person_id, {DAY}, c.condition_concept_id AS c FROM person p FULL JOIN condition_occurrence c "
                 "ON c.person_id = p.person_id",
    "distinct": "SELECT DISTINCT v.person_id, (SELECT MAX(visit_start_date) FROM visit_occurrence w "
                "WHERE w.person_id = v.person_id) AS index_date FROM visit_occurrence v ORDER BY v.person_id",
}  # fmt: skip


@pytest.mark.parametrize("query", HONEST.values(), ids=HONEST.keys())
def test_an_honest_query_finds_the_same_rows_as_asked_for_all_at_once(connect, query):
    with Cohorts(connect(TABLES), query, ".", seconds=60, rows=10_000).open(None, {"visit_occurrence"}) as opened:
        names = cohort_sql.spelling(opened._session.columns)
        _, plain = opened._session.rows(cohort_sql.spell(opened.query, names), {}, 60)
        asked = one_person.alone(opened.query, opened.columns)
        columns, rows = opened._session.rows(cohort_sql.spell(asked, names), {}, 60)
    at = columns.index("person_id")
    assert Counter(row[1:] for row in rows) == Counter(plain)
    assert plain
    assert all(row[0] == row[at] for row in rows)


def test_features_and_notes_are_of_the_persons_of_the_rows(connect):
    features = {"x": {"domain": "measurement", "aggregate": "max"}}
    table = OMOP(connect(TABLES), cohort=COHORT.replace("MIN", "MAX"), features=features).read()
    assert table["x"].tolist() == [2.0 * each for each in PERSONS]
    assert isinstance(table, pd.DataFrame)


def test_the_turn_of_a_person_who_opted_out_never_comes(connect, monkeypatch):
    connection, given, seen = connect(TABLES), {"4", "5", "5.5", "no number", "01", "9" * 30}, []
    query = f"SELECT person_id, {DAY}, (SELECT MAX(note_text) FROM note WHERE note_id = 4) AS a FROM person"
    opened = Cohorts.open

    def watched(self, *arguments):
        found = opened(self, *arguments)
        enter = found.__enter__

        def entered():
            inside = enter()
            rows = inside._session.rows
            monkeypatch.setattr(inside._session, "rows", lambda *each: seen.append(rows(*each)) or seen[-1])
            return inside

        monkeypatch.setattr(type(found), "__enter__", lambda _: entered())
        return found

    whole = OMOP(connection, cohort=query).read()
    monkeypatch.setattr(Cohorts, "open", watched)
    table = OMOP(connection, cohort=query).read(opt_out=given)
    assert sorted(table["person"]) == [str(each) for each in PERSONS if each not in (4, 5)]
    assert SECRET not in str(seen) and seen
    kept = whole[~whole["person"].isin(["4", "5"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(table.reset_index(drop=True), kept)


def test_a_query_that_speaks_of_opting_out_changes_nothing_of_it(connect):
    query = f"SELECT person_id, {DAY}, 4 AS opted_out FROM person"
    assert "4" not in set(OMOP(connect(TABLES), cohort=query).read(opt_out={"4"})["person"])
