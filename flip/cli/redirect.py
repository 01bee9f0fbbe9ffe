"""Keeps what libraries print (Flower, Ray, Lightning) off the screen: it goes to a log file in the run folder."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from flip.cli.output import tolerant


@contextmanager
def to_log(path: Path) -> Iterator[TextIO]:
    """Send file descriptors 1 and 2 (also those of child processes) to a log; yields the real standard output."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    handler = logging.FileHandler(path)
    logging.getLogger().addHandler(handler)
    screen = tolerant(os.dup(kept[0]), own=True)
    try:
        yield screen
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a full disk takes no more of the log; the result says so
                stream.flush()
        screen.close()
        logging.getLogger().removeHandler(handler)
        handler.close()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
