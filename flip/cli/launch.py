"""From the command line to a run, or to a sweep of runs with a table of their results."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import Container, DictConfig, OmegaConf

from flip.cli.calls import compose, run
from flip.cli.compose import MISTAKES, Composer
from flip.cli.hydra_errors import composed
from flip.cli.sweep import Sweep
from flip.errors import EXIT, UserError, nearest
from flip.files import relative
from flip.imports import importing
from flip.signals import Interrupted

COMMANDS = ("report", "deploy", "start", "site")
WORD = re.compile(r"\w+")


def launch(arguments: Sequence[str]) -> int:
    """Do what the command line asks; returns the exit status. Raises UserError for mistakes."""
    given = parser().parse_intermixed_args(list(arguments))
    for word in given.overrides:
        if word in COMMANDS:
            raise UserError(f"{word}: is a command, so it comes first: flip {word} ...")
        if WORD.fullmatch(word):
            raise UserError(f"{word}: is neither a command nor key=value; {nearest(word, COMMANDS)}")
    if any(each.startswith("resume=") for each in given.overrides):
        return resume(given, arguments)
    if given.cfg or given.multirun:
        composer = Composer(given.overrides, given.config_name, Path(given.config_dir) if given.config_dir else None)
        if given.multirun and not given.cfg:
            return Sweep(composer, tuple(arguments)).run()
        print(shown(composed(composer), given.cfg, given.package, given.resolve), end="")
        return 0
    with importing():  # the check of a study imports its classes, and so torch and Lightning
        study = compose(given.overrides, config_name=given.config_name, config_dir=given.config_dir)
    study = replace(study, typed=tuple(arguments))
    return EXIT.get(run(study).status, 1)


def parser() -> argparse.ArgumentParser:
    """The flags, named as Hydra names them."""
    flags = argparse.ArgumentParser("python -m flip", add_help=False, allow_abbrev=False)
    flags.add_argument("overrides", nargs="*")
    flags.add_argument("--multirun", "-m", action="store_true")
    flags.add_argument("--config-name", "-cn", default="config")
    flags.add_argument("--config-dir", "-cd")
    flags.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    flags.add_argument("--package", "-p")
    flags.add_argument("--resolve", action="store_true")
    return flags


def shown(cfg: DictConfig, part: str, package: str | None, resolve: bool) -> str:
    """The composed configuration as text: the study's part (`job`), Hydra's own, or `all`."""
    if not resolve:
        return _text(cfg, part, package, resolve=False)
    import flip.config.resolve  # noqa: F401  it registers ${size:...} and ${bundle:...}

    try:
        return _text(cfg, part, package, resolve=True)
    except MISTAKES as error:
        reason = str(error).splitlines()[0].removeprefix("UserError raised while resolving interpolation: ")
        raise UserError(f"--resolve: {reason}") from error


def _text(cfg: DictConfig, part: str, package: str | None, *, resolve: bool) -> str:
    keys = {"job": [str(key) for key in cfg if key != "hydra"], "hydra": ["hydra"], "all": [str(key) for key in cfg]}[
        part
    ]
    if package:
        found = OmegaConf.select(cfg, package)
        if found is None:
            raise UserError(f"--package {package}: there is no such key")
        return OmegaConf.to_yaml(found, resolve=resolve) if isinstance(found, Container) else f"{found}\n"
    values: DictConfig = OmegaConf.masked_copy(cfg, keys)
    return OmegaConf.to_yaml(values, resolve=resolve)


def resume(given: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Go on with a run that has not ended, in its folder, from its last complete round."""
    from flip.runs.models import start_file
    from flip.runs.resume import unfinished

    named = [each.partition("=")[2] for each in given.overrides if each.startswith("resume=")]
    others = [each for each in given.overrides if not each.startswith("resume=")]
    if given.multirun or given.config_dir or len(named) != 1:
        raise UserError(f"resume={named[0]}: takes one run, and neither --multirun nor --config-dir")
    folder = Path(named[0]).expanduser().absolute()
    begun, start = unfinished(folder), start_file(folder)
    own = [f"init={quoted(start)}"] if start.is_file() else []  # the file that it was read from may be gone by now
    try:
        with importing():
            study = compose([*own, *others, f"hydra.run.dir={quoted(folder)}"], config_name="run", config_dir=folder)
        begun.refuse_other(study)
        if begun.damaged:
            print(f"{begun.damaged}; the run goes on from the round before", file=sys.stderr)
        study = replace(study, typed=tuple(arguments))
        return EXIT.get(run(study, folder, resumes=begun.identifier).status, 1)
    except Interrupted as asked:
        if not asked.told:
            command = shlex.join(["python", "-m", "flip", f"resume={relative(folder)}", *others])
            print(f"interrupted  {asked.words}; go on: {command}", file=sys.stderr)
            asked.told = True
        raise


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever characters it holds."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
