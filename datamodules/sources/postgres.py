"""An OMOP database on a PostgreSQL server. Every statement runs in one read-only transaction, and within a time."""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection
from sqlglot import exp

from datamodules.sources.cohort_sql import CDM_TABLES
from datamodules.sources.database import Records, late, one_line
from datamodules.sources.secret_file import read_secret

CANCELED = "57014"  # PostgreSQL's code for a statement that its timeout stopped
CONNECT_SECONDS = 30
# A server that is gone, or a network that drops what is sent, ends the wait for rows after about a minute.
ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}


class PostgreSQL:
    """Where the database lies.

    Args:
        user: name of the role to connect as; one that may only read is best.
        database: name of the database.
        host: name or address of the server, or the folder of its Unix socket (begins with /).
        port: port of the server.
        schema: schema that holds OMOP's tables.
        password_file: file of mode 600 with the password; None where the server asks for none.
        ca_file: certificate of the authority that signed the server's; None for the system's authorities.
        tls: False only for a server on this machine, or on a network that nobody else can read.
        root: folder that relative paths are below.
    """

    def __init__(
        self,
        *,
        user: str,
        database: str,
        host: str = "localhost",
        port: int = 5432,
        schema: str = "public",
        password_file: str | None = None,
        ca_file: str | None = None,
        tls: bool = True,
        root: Path = Path(),
    ) -> None:
        self.schema, self.password_file, self.ca_file, self.tls, self.root = schema, password_file, ca_file, tls, root
        self.user, self.database, self.host, self.port = user, database, host, port

    @contextmanager
    def open(self, tables: Set[str]) -> Iterator["PostgreSQLSession"]:
        """Connect; raises ConnectionError, naming the server, when that fails."""
        connection = self._connect()
        try:
            connection.run("SET default_transaction_read_only = on")
            connection.run("SET timezone = 'UTC'")
            connection.run("SET search_path = " + exp.to_identifier(self.schema, quoted=True).sql(dialect="postgres"))
            connection.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgreSQLSession(connection, self.schema, tables)
        finally:
            connection.close()

    def _connect(self) -> Connection:
        password = read_secret(self.root / self.password_file) if self.password_file else None
        try:
            opened, encrypted = self._socket()
            trust = ssl.create_default_context(cafile=self.root / self.ca_file if self.ca_file else None)
            return Connection(
                self.user,
                self.host,
                self.database,
                password=password,
                sock=opened,
                ssl_context=trust if encrypted else False,
                application_name="flip",
            )
        except (InterfaceError, DatabaseError, OSError) as error:
            where = f"{self.database} at {self.host}, port {self.port}"
            raise ConnectionError(f"cannot connect to PostgreSQL ({where}): {one_line(error)}") from error

    def _socket(self) -> tuple[socket.socket, bool]:
        """A connected socket, and whether TLS belongs on it. Connecting is bounded, waiting for rows is the query's."""
        if not self.host.startswith("/"):
            opened = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
            opened.settimeout(None)
            for option, value in ALIVE.items():
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return opened, self.tls
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(f"{self.host}/.s.PGSQL.{self.port}")
        return opened, False


class PostgreSQLSession:
    """A read-only transaction."""

    def __init__(self, connection: Connection, schema: str, tables: Set[str]) -> None:
        self._connection = connection
        self.columns: dict[str, set[str]] = {}
        listed = connection.run(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = :schema", schema=schema
        )
        for table, column in listed:
            if table.lower() in CDM_TABLES & tables:
                self.columns.setdefault(table, set()).add(column)

    def rows(self, query: exp.Expr, parameters: Mapping[str, Any], seconds: float) -> tuple[list[str], Records]:
        """Names and rows of a query; see `database.Session`."""
        statement = (
            re.sub(r"%\((\w+)\)s", r":\1", query.sql(dialect="postgres")) if parameters else query.sql("postgres")
        )
        try:
            self._connection.run(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
            rows = self._connection.run(statement, **parameters)
        except DatabaseError as error:
            details = error.args[0] if error.args and isinstance(error.args[0], Mapping) else {}
            if details.get("C") == CANCELED:
                raise late(seconds) from error
            raise ValueError(f"the database cannot answer: {details.get('M', one_line(error))}") from error
        return [each["name"] for each in self._connection.columns or []], [tuple(row) for row in rows or []]
