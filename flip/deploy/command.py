"""`flip deploy` prepares the folders of a live federation; `flip start` starts its server or a site."""

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

HELP = """\
flip deploy flower sites=heart out=kits/    a folder for the server, the researcher, each site
flip deploy nvflare sites=heart out=kits/   the same for NVIDIA FLARE
flip deploy add kits/authority kings.csr out=added/   one more site, by its request; no other folder changes
flip start kits/server                      at the server; ctrl-c or SIGTERM ends it
flip start kits/kings                       at the site kings, with its site.yaml filled in

sites takes what the command line of a study takes: a roster file, or [kings,guys].
--config-dir names a folder of your own. flip/deploy/README.md has the other keys."""
BACKENDS = ("flower", "nvflare")
COMMANDS = (*BACKENDS, "add")


def deploy(arguments: Sequence[str]) -> int:
    """Make the folders of a live federation, one for each party. Returns the exit status. Raises UserError."""
    from flip.errors import UserError, nearest

    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP)
        return 0
    backend = arguments[0]
    if backend == "add":
        from flip.deploy.admit import add

        add(arguments[1:])
        return 0
    if backend not in BACKENDS:
        raise UserError(f"deploy {backend}: there is no such backend; {nearest(backend, COMMANDS)}")
    parser = argparse.ArgumentParser(f"flip deploy {backend}", add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--config-dir", "-cd", type=Path)
    given = parser.parse_args(list(arguments[1:]))
    prepare = import_module(f"flip.federation.{backend}.provision").prepare
    settings = parse(given.settings, inspect.signature(prepare).parameters)
    prepare(roster(settings.pop("sites"), given.config_dir), **settings)
    return 0


def start(arguments: Sequence[str]) -> int:
    """Start the party whose folder is named, until it is ended. Returns the exit status. Raises UserError."""
    from flip.errors import UserError

    if {"--help", "-h"} & set(arguments):
        print(HELP)
        return 0
    if len(arguments) != 1:
        raise UserError("start: takes one folder, as in: flip start kits/server")
    from flip.federation import supervise

    return supervise.start(Path(arguments[0]))


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
