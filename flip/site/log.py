"""The site's own log: its details are for the site's eyes alone."""

import logging
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from flip.text import LONGEST_LINE, printable

Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Lines(logging.Formatter):
    """One line a record, then its traceback indented: nothing that a task or a cohort holds can pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's line."""
        record.message = printable(record.message, LONGEST_LINE)
        return super().formatMessage(record)

    def formatException(self, ei: Raised) -> str:
        """The traceback, each line of it indented and printable."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {printable(line, LONGEST_LINE)}" for line in lines)


class SiteFile(logging.FileHandler):
    """The log's file. What a full disk has no room for is lost: Python would print it where others read it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a file that cannot be made is no reason to stop the site."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing of a record that could not be written."""


def site_log(name: str, home: Path) -> logging.Logger:
    """The site's own log, a file in its home that is made with its first line; nothing of it goes anywhere else."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = logging.Logger(f"flip.site.{name}")
    handler = SiteFile(home / "site.log", delay=True)
    handler.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return log
