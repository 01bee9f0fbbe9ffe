"""The single entrypoint, `python -m flip [overrides]`; answers help and version before anything heavy is imported."""

import sys
from collections.abc import Sequence

from flip.processes import leave_working_folder


def main(arguments: Sequence[str]) -> int:
    """Answer one command line; returns the exit status: 0 done, 1 the run failed, 2 a mistake of the user."""
    from flip.cli import help

    if not arguments:
        print(help.start_text())
        return 0
    if {"--help", "-h"} & set(arguments):
        print(help.help_text(arguments))
        return 0
    if "--version" in arguments:
        print(help.version_text())
        return 0
    from flip.cli.launch import launch
    from flip.errors import UserError, mistakes_text

    try:
        return launch(arguments)
    except UserError as error:
        print(mistakes_text(error.problems), file=sys.stderr)
        return 2


if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main(sys.argv[1:]))
