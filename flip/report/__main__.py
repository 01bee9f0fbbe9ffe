"""`python -m flip.report RUN...`: write the page of a run again, or compare runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flip.errors import UserError
from flip.files import write_atomic
from flip.report.page import render, write
from flip.runs.record import RunRecord


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the report of one run, or compare several. Returns the exit status: 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m flip.report", description="Write a run's report, or compare several runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as runs/<name>/<time>")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison.html"), help="where a comparison goes (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    try:
        if len(chosen.runs) == 1:
            print(write(chosen.runs[0]))
            return 0
        from rich.console import Console

        from flip.report.compare import Comparison

        comparison = Comparison.of([RunRecord.read(run) for run in chosen.runs])
        Console().print(comparison.table())
        write_atomic(chosen.out, render("comparison.html.j2", {"comparison": comparison}).encode())
        print(chosen.out)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0
