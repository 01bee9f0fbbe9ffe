"""A hospital's PostgreSQL: who may connect and how, and that nothing is written there."""

import pytest

from datamodules.sources.omop import OMOP
from datamodules.sources.postgres import PostgreSQL
from tests.datamodules.sources.conftest import load
from tests.datamodules.sources.omop_files import COHORT, CREATININE, measurement, person, visit
from tests.datamodules.sources.test_cohort_sql import _Raw

pytestmark = pytest.mark.slow

TABLES = {"person": [person(1)], "visit_occurrence": [visit(1, 1)], "measurement": [measurement(1, 1, "2020-03-09", 3)]}
LAST = {"x": {"domain": "measurement", "concepts": [CREATININE], "aggregate": "last", "descendants": False}}


@pytest.fixture(scope="module")
def connection(server):
    """A database over its Unix socket."""
    return load(server, "hospital", TABLES, "5.4")


@pytest.fixture
def network(server, connection, tmp_path):
    """The same over TCP with a password and TLS."""
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    (tmp_path / "ca.crt").write_bytes((server.folder / "server.crt").read_bytes())
    return {**connection, "host": "localhost", "password_file": "password", "ca_file": "ca.crt"}


def read(connection, root="."):
    return OMOP(connection, cohort=COHORT, features=LAST, root=str(root)).read()["x"].item()


def test_a_server_is_reached_over_tls_with_a_password_from_a_file(network, tmp_path):
    assert read(network, tmp_path) == 3


def test_a_server_whose_certificate_nobody_vouches_for_is_refused(network, tmp_path):
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        read({**network, "ca_file": None}, tmp_path)


def test_a_password_that_others_can_read_is_refused(network, tmp_path):
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read(network, tmp_path)


def test_a_wrong_password_is_said_and_not_shown(network, tmp_path):
    (tmp_path / "password").write_text("hunter2")
    with pytest.raises(ConnectionError, match="password authentication failed") as raised:
        read(network, tmp_path)
    assert "hunter2" not in str(raised.value)


def test_a_server_that_is_not_there_is_named(network, tmp_path):
    with pytest.raises(ConnectionError, match="postgres at localhost, port 1"):
        read({**network, "port": 1}, tmp_path)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM person", "CREATE TABLE mine (a int)", "CREATE TEMP TABLE mine (a int)"]
)
def test_nothing_is_written_even_by_a_statement_that_passed(connection, server, statement):
    with PostgreSQL(**connection).open({"person"}) as session, pytest.raises(ValueError, match="read-only transaction"):
        session.rows(_Raw(statement), {}, 10)
    assert server.psql("SELECT COUNT(*) FROM hospital.person") == "1\n"


def test_tables_and_columns_may_be_in_upper_case(connection, server):
    server.psql("""
      DROP SCHEMA IF EXISTS loud CASCADE; CREATE SCHEMA loud;
      CREATE TABLE loud."PERSON" AS SELECT person_id AS "PERSON_ID" FROM hospital.person;
      CREATE TABLE loud."VISIT_OCCURRENCE" AS SELECT person_id AS "PERSON_ID", visit_concept_id AS "VISIT_CONCEPT_ID",
        visit_start_date AS "VISIT_START_DATE" FROM hospital.visit_occurrence;
      CREATE TABLE loud."MEASUREMENT" AS SELECT measurement_id AS "MEASUREMENT_ID", person_id AS "PERSON_ID",
        measurement_concept_id AS "MEASUREMENT_CONCEPT_ID", measurement_date AS "MEASUREMENT_DATE",
        value_as_number AS "VALUE_AS_NUMBER" FROM hospital.measurement;""")
    assert read({**connection, "schema": "loud"}) == 3


def test_a_role_sees_only_the_tables_that_it_may_read(connection, server):
    server.psql("""
      DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA hospital TO reader;
      GRANT SELECT ON hospital.person, hospital.visit_occurrence TO reader;""")
    source = OMOP({**connection, "user": "reader"}, cohort=COHORT, features=LAST)
    assert source.read()["x"].tolist() == [None]
    assert [each.words for each in source.remarks] == [
        "feature x is missing in all rows: the database has no table measurement"
    ]
    server.psql("DROP OWNED BY reader; DROP ROLE reader")
