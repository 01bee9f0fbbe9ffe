"""Standard output and error that never end the program: what cannot be written is lost, and the run goes on."""

import errno
import io
import os
import sys
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # who read it has gone: `| head`, a closed terminal


class Tolerant(io.FileIO):
    """A file descriptor to write to; from the first error on, what is written to it is lost.

    Attributes:
        lost: that error.
    """

    lost: OSError | None = None

    def write(self, data: object, /) -> int:
        """Write some bytes; returns how many are done with."""
        if self.lost is None:
            try:
                return super().write(data) or 0  # type: ignore[arg-type]
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes  # type: ignore[arg-type]


def tolerant(descriptor: int, like: TextIO | None = None, *, own: bool = False) -> TextIO:
    """A text stream over a descriptor, closed with it where it is its own; encoded as another stream is.

    What that encoding lacks, as ASCII and Latin-1 lack the dash of an interval, is written as `?`.
    """
    raw = Tolerant(descriptor, "w", closefd=own)
    encoding, errors = (like.encoding, like.errors) if like else ("utf-8", "backslashreplace")
    errors = "replace" if errors == "strict" else errors
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=os.isatty(descriptor))


def tolerate() -> None:
    """Make this process's standard streams tolerant, and open where they were closed.

    Otherwise the next file that is opened would get the descriptor 1, and all that is printed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = tolerant(1, sys.stdout)
    sys.stderr = tolerant(2, sys.stderr)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[attr-defined]


def complain() -> None:
    """Say on standard error that standard output could not be written, unless its reader has gone."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Tolerant) and raw.lost is not None and raw.lost.errno not in GONE:
        print(f"standard output could not be written: {os.strerror(raw.lost.errno or 0)}", file=sys.stderr)
