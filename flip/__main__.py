"""The single entry point: `python -m flip`, and installed the command `flip`.

It answers help and version before anything heavy is imported.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "report": ("flip.report.command", "report"),
    "card": ("flip.report.card_page", "card"),
    "export": ("flip.export.command", "export"),
    "deploy": ("flip.deploy.command", "deploy"),
    "start": ("flip.deploy.command", "start"),
    "site": ("flip.deploy.site_file", "site"),
}
"""By the first word of a command line, the module and the function that answer it; imported when it is called."""


def leave_working_folder() -> None:
    """Take the working folder off the import path, where `python -m` puts it, unless the engine itself lies there.

    Somebody's own `models/` in the working folder would otherwise run in place of the engine's, and a `secrets.py` in
    place of Python's: nothing else of the engine is imported before this.
    """
    root = Path(__file__).resolve().parent.parent
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd().resolve() != root:
        del sys.path[0]


def console() -> int:
    """The command `flip`, and `python -m flip`; returns the exit status."""
    leave_working_folder()
    from flip.cli.output import complain, tolerate

    tolerate()
    status = main(sys.argv[1:])
    complain()
    return status


def main(arguments: Sequence[str]) -> int:
    """Answer a command line; returns the exit status.

    0 done, 1 the run failed, 2 a mistake of the user, 128 and its number a signal: 130 ctrl-c, 143 SIGTERM.
    """
    from flip.errors import UserError, mistakes_text
    from flip.signals import Interrupted, ending_signals

    try:
        with ending_signals():
            return answer(arguments)
    except UserError as error:
        print(mistakes_text(error.problems), file=sys.stderr)
        return 2
    except Interrupted as asked:
        if not asked.told:
            print(f"interrupted  {asked.words}", file=sys.stderr)
        return asked.status


def answer(arguments: Sequence[str]) -> int:
    """Give the word to the command that the first argument names, to help, or else to the study. Raises UserError."""
    from flip.cli import help

    match list(arguments):
        case []:
            print(help.start_text())
            return 0
        case [command, *rest] if command in COMMANDS:
            module, name = COMMANDS[command]
            status: int = getattr(importlib.import_module(module), name)(rest)
            return status
        case words if {"--help", "-h"} & set(words):
            print(help.help_text(words))
            return 0
        case words if "--version" in words:
            print(help.version_text())
            return 0
    from flip.cli.launch import launch

    return launch(arguments)


if __name__ == "__main__":
    sys.exit(console())
