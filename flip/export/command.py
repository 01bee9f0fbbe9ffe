"""`flip export RUN OUT`: a finished run's model as a MONAI Bundle."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def export(arguments: Sequence[str]) -> int:
    """Write a run's model as a bundle. Returns the exit status. Raises UserError."""
    parser = argparse.ArgumentParser("flip export", description="Write a finished run's model as a MONAI Bundle.")
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the folder of a finished training, as runs/<name>/<time>"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the bundle's folder, which is made")
    parser.add_argument("--license", type=Path, metavar="FILE", help="the license of the weights; without it, none")
    chosen = parser.parse_args(list(arguments))
    from flip.export.bundle import write

    for note in write(chosen.run, chosen.out, chosen.license):
        print(note)
    print(chosen.out)
    return 0
