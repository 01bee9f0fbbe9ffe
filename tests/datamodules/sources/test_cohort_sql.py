"""A cohort query comes from outside: only one harmless SELECT over OMOP's tables reaches a hospital's database."""

import pytest

from datamodules.sources import cohort_sql
from datamodules.sources.connection import database
from tests.datamodules.sources.omop_files import COHORT, export, person, visit

REALISTIC = """
  WITH stay AS (
    SELECT v.person_id, v.visit_occurrence_id, v.visit_start_datetime AS began, v.visit_end_datetime AS ended,
           ROW_NUMBER() OVER (PARTITION BY v.person_id ORDER BY v.visit_start_datetime DESC) AS nth
    FROM visit_occurrence v JOIN concept c ON c.concept_id = v.visit_concept_id
    WHERE v.visit_concept_id IN (9201, 262) AND LOWER(c.concept_name) LIKE '%inpatient%'),
  dead AS (SELECT person_id, COALESCE(death_datetime, CAST(death_date AS TIMESTAMP)) AS died FROM death)
  SELECT s.person_id, s.visit_occurrence_id AS accession, s.began + INTERVAL '24 hours' AS index_date,
         CASE WHEN d.died BETWEEN s.began AND s.ended THEN 1 ELSE 0 END AS label, EXTRACT(YEAR FROM s.began) AS year
  FROM stay s LEFT JOIN dead d ON d.person_id = s.person_id
  WHERE s.nth = 1 AND NOT EXISTS (SELECT 1 FROM condition_occurrence c WHERE c.person_id = s.person_id)
"""


@pytest.mark.parametrize(
    "query", [COHORT, REALISTIC, "SELECT person_id FROM person UNION SELECT person_id FROM death;"]
)
def test_what_cohorts_need_is_allowed(query):
    assert cohort_sql.parse(query)


def test_the_tables_that_a_query_reads_are_known_before_it_runs():
    assert cohort_sql.tables_of(cohort_sql.parse(REALISTIC)) == {
        "visit_occurrence",
        "concept",
        "death",
        "condition_occurrence",
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; DELETE FROM person", "single SELECT"),
        ("DELETE FROM person", "single SELECT"),
        ("UPDATE person SET person_id = 1", "single SELECT"),
        ("COPY person TO '/tmp/x'", "single SELECT"),
        ("EXPLAIN ANALYZE SELECT 1", "single SELECT"),
        ("", "single SELECT"),
        ("SELECT FROM WHERE", "not SQL that can be read"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "not SQL that can be read"),
        ("SELECT 1 -- " + "x" * 20_000, "characters"),
        ("WITH x AS (DELETE FROM person RETURNING *) SELECT * FROM x", "uses Delete"),
        ("SELECT * INTO mine FROM person", "uses Into"),
        ("SELECT * FROM person FOR UPDATE", "uses Lock"),
        ("SELECT PG_SLEEP(1000)", "the function PG_SLEEP"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "the function set_config"),
        ("SELECT pg_read_file('/etc/passwd')", "the function pg_read_file"),
        ("SELECT * FROM read_csv('/etc/passwd')", "uses ReadCSV"),
        ("SELECT * FROM '/etc/passwd'", "no table of OMOP's"),
        ("SELECT * FROM generate_series(1, 1000000000)", "uses"),
        ("SELECT * FROM pg_authid", "pg_authid"),
        ("SELECT * FROM information_schema.tables", "leave the schema out"),
        ("SELECT * FROM other.person", "leave the schema out"),
        ("WITH secret AS (SELECT * FROM secret) SELECT * FROM secret", "reads secret"),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "reads b"),
        ("SELECT * FROM (WITH q AS (SELECT 1) SELECT * FROM q) AS x, q", "one WITH, at its top"),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION SELECT n + 1 FROM r) SELECT * FROM r", "not recursive"),
        ("WITH person AS (SELECT 1) SELECT * FROM person", "name of a table"),
        ("SELECT 'pg_authid'::regclass", "uses"),
        ("SELECT $1", "uses Parameter"),
        ("SELECT Literal('x') FROM person", "uses the function Literal"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_before_it_reaches_the_database(query, message):
    with pytest.raises(ValueError, match=message):
        cohort_sql.parse(query)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM person_file", "CREATE TABLE mine AS SELECT 1", "COPY person TO 'stolen.csv'", "SET threads = 8",
        "SELECT * FROM read_csv('{folder}/person.csv')", "SELECT * FROM '{folder}/person.csv'", "ATTACH 'other.db'",
        "INSTALL httpfs",
    ],
)  # fmt: skip
def test_an_export_is_read_only_and_closed_to_files_even_for_a_statement_that_passed(tmp_path, statement):
    folder = export(tmp_path / "cdm", {"person": [person(1)], "visit_occurrence": [visit(1, 1)]})
    with database(str(folder), tmp_path).open({"person"}) as session:
        assert session.rows(cohort_sql.parse("SELECT person_id FROM person"), {}, 10)[1] == [(1,)]
        with pytest.raises(ValueError, match="cannot answer"):
            session.rows(_Raw(statement.format(folder=folder)), {}, 10)


def test_a_query_of_an_export_has_bounded_memory_and_loads_no_extension(tmp_path):
    folder = export(tmp_path / "cdm", {"person": [person(1)]})
    with database(str(folder), tmp_path).open({"person"}) as session:
        names = "'memory_limit', 'threads', 'autoload_known_extensions', 'autoinstall_known_extensions', "
        names += "'enable_external_access', 'lock_configuration'"
        query = _Raw(f"SELECT name, value FROM duckdb_settings() WHERE name IN ({names})")
        assert dict(session.rows(query, {}, 10)[1]) == {
            "memory_limit": "1.8 GiB", "threads": "1", "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false", "enable_external_access": "false", "lock_configuration": "true",
        }  # fmt: skip


class _Raw:
    """A statement that went round the check."""

    def __init__(self, text: str) -> None:
        self.text = text

    def sql(self, *_: object, **__: object) -> str:
        return self.text
