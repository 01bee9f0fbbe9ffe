"""Which of the databases that OMOP sources can read a site's file names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.sources.database import Database
from datamodules.sources.export import Export
from datamodules.sources.postgres import PostgreSQL


def database(connection: str | Mapping[str, Any], root: Path) -> Database:
    """An export for a path, PostgreSQL for a mapping of its connection; relative paths are below `root`."""
    return Export(root / connection) if isinstance(connection, str) else PostgreSQL(root=root, **connection)
