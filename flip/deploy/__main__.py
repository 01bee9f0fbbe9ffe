"""`python -m flip.deploy`: prepare the folders of a live federation, and start a server or a site."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from flip.processes import leave_working_folder

HELP = """\
python -m flip.deploy flower  sites=heart out=kits/ [key=value ...]   folders for server, researcher and each site
python -m flip.deploy nvflare sites=heart out=kits/ [key=value ...]   the same for NVIDIA FLARE
python -m flip.deploy start kits/server                               at the server; ctrl-c or SIGTERM ends it
python -m flip.deploy start kits/kings                                at the site kings, once its site.yaml is filled in

sites takes what the command line of a study takes: a roster file, or [kings,guys]; --config-dir names a folder of your
own. The README.md of flip/deploy tells the whole story."""
COMMANDS = ("flower", "nvflare", "start")


def main(arguments: Sequence[str]) -> int:
    """Answer one command line; returns the exit status: 0 done, 1 ended by an error, 2 a mistake of the user."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP)
        return 0
    from flip.errors import UserError, mistakes_text

    try:
        return run(arguments[0], arguments[1:])
    except UserError as error:
        print(mistakes_text(error.problems), file=sys.stderr)
        return 2


def run(command: str, arguments: Sequence[str]) -> int:
    """Do what the command says. Raises UserError."""
    from flip.errors import UserError, nearest

    if command not in COMMANDS:
        raise UserError(f"{command}: no such command; {nearest(command, COMMANDS)}")
    if command == "start":
        from flip.federation.supervise import start

        if len(arguments) != 1:
            raise UserError("start: takes one folder, as in: python -m flip.deploy start kits/server")
        return start(Path(arguments[0]))
    parser = argparse.ArgumentParser(f"python -m flip.deploy {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--config-dir", "-cd", type=Path)
    given = parser.parse_args(list(arguments))
    prepare = import_module(f"flip.federation.{command}.provision").prepare
    settings = parse(given.settings, inspect.signature(prepare).parameters)
    prepare(roster(settings.pop("sites"), given.config_dir), **settings)
    return 0


def parse(arguments: Sequence[str], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """`key=value` arguments in the types that the backend's `prepare` declares. Raises UserError with every mistake."""
    from flip.errors import UserError, nearest

    problems, settings = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in known or not equals or not value:
            problems.append(f"{argument}: must be key=value; {nearest(key, known)}")
            continue
        declared = known[key].annotation
        kind: Callable[[str], Any] = next(
            (each for each in (Path, int) if each in (declared, *get_args(declared))), str
        )
        try:
            settings[key] = kind(value)
        except ValueError:
            problems.append(f"{argument}: must be a whole number")
    problems += [
        f"{key}: has no value; set it, as in {key}={'heart' if key == 'sites' else 'kits/'}"
        for key, parameter in known.items()
        if parameter.default is inspect.Parameter.empty and key not in settings
    ]
    if problems:
        raise UserError(problems)
    return settings


def roster(chosen: str, config_dir: Path | None) -> list[str]:
    """The names of the sites that `sites=...` chooses, sorted. Raises UserError."""
    from flip.cli.compose import Composer
    from flip.cli.hydra_errors import composed
    from flip.errors import UserError
    from flip.federation.kit import check_names

    try:
        names = sorted(str(name) for name in composed(Composer([f"sites={chosen}"], config_dir=config_dir)).sites)
    except UserError as error:  # there is no study here: that its keys are unset is no mistake
        raise UserError([each for each in error.problems if each.startswith("sites")] or error.problems) from error
    check_names(names)
    return names


if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main(sys.argv[1:]))
