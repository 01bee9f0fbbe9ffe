"""The single entrypoint, `python -m flip [overrides]`; answers help and version before anything heavy is imported."""

import sys
from collections.abc import Sequence
from pathlib import Path


def leave_working_folder() -> None:
    """Take the working folder off the import path, where `python -m` puts it, unless the engine itself lies there.

    Somebody's own `models/` in the working folder would otherwise run in place of the engine's.
    """
    root = Path(__file__).resolve().parent.parent
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd().resolve() != root:
        del sys.path[0]


def main(arguments: Sequence[str]) -> int:
    """Answer one command line; returns the exit status: 0 done, 1 the run failed, 2 a mistake of the user."""
    from flip import help

    if not arguments:
        print(help.start_text())
        return 0
    if {"--help", "-h"} & set(arguments):
        print(help.help_text(arguments))
        return 0
    if "--version" in arguments:
        print(help.version_text())
        return 0
    from flip.errors import UserError
    from flip.launch import launch

    try:
        return launch(arguments)
    except UserError as error:
        print(help.mistakes_text(error.problems), file=sys.stderr)
        return 2


if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main(sys.argv[1:]))
