"""`flip report RUN...`: write the page of a run again, or compare runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def report(arguments: Sequence[str]) -> int:
    """Rewrite the report of one run, or compare several. Returns the exit status. Raises UserError."""
    parser = argparse.ArgumentParser("flip report", description="Write a run's report, or compare several runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as runs/<name>/<time>")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison.html"), help="where a comparison goes (%(default)s)"
    )
    chosen = parser.parse_args(list(arguments))
    from flip.report.page import render, write

    if len(chosen.runs) == 1:
        print(write(chosen.runs[0]))
        return 0
    from rich.console import Console

    from flip.files import write_atomic
    from flip.report.compare import Comparison
    from flip.runs.identity import difference
    from flip.runs.record import RunRecord

    comparison = Comparison.of([RunRecord.read(run) for run in chosen.runs])
    console = Console()
    console.print(comparison.table(console.width))
    if len(chosen.runs) == 2:
        print(difference(*chosen.runs))
    write_atomic(chosen.out, render("comparison.html.j2", {"comparison": comparison}).encode())
    print(chosen.out)
    return 0
