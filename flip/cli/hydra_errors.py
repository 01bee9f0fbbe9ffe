"""Errors of Hydra in our words: the key, where it stands, and what to write instead."""

import re
from collections.abc import Sequence
from dataclasses import replace

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig

from flip.cli.compose import MISTAKES, Composer, short_path, split
from flip.cli.study import checked
from flip.errors import UserError, nearest, unique

OPTION = re.compile(r"Could not (?:find|load) '([^'\n]+)/([^/'\n]+)'")
VALUES = re.compile(r"[\[\],'\" ]+")


def composed(composer: Composer) -> DictConfig:
    """The composed configuration, its `hydra` part included. Raises UserError, with every mistake in our words."""
    with composer.session():
        try:
            return composer.compose()
        except MISTAKES as error:
            raise UserError(explain(composer, error)) from error


def explain(composer: Composer, error: Exception) -> list[str]:
    """Every mistake of a command line: this one, and those that show once it is taken away. Inside a session."""
    problems: list[str] = []
    dropped: list[str] = []
    found: Exception | DictConfig = error
    while isinstance(found, Exception):
        guilty = _guilty(found, composer)
        problems.append(sentence(found, guilty, composer))
        if guilty is None:
            return unique(problems)
        dropped.append(split(guilty)[1])
        composer = replace(composer, overrides=[each for each in composer.overrides if each != guilty])
        found = _attempt(composer)
    return unique(problems + _others(composer, found, dropped))


def explain_sweep(composer: Composer, error: Exception) -> list[str]:
    """The mistakes that kept a sweep from starting: every option that there is not, or else this error."""
    problems = []
    for _, key, value in map(split, composer.overrides):
        if value is not None and composer.is_group(key) and not key.startswith("hydra/"):
            options = composer.options(key)
            names = [name for name in VALUES.split(value) if name and name != "null"]
            problems += [_no_option(key, name, "the command line", options) for name in names if name not in options]
    return problems or [sentence(error, _guilty(error, composer), composer)]


def _guilty(error: Exception, composer: Composer) -> str | None:
    """The override that an error of Hydra is about."""
    pairs = zip(composer.overrides, composer.arguments, strict=True)
    return next((typed for typed, argument in pairs if blames(error, argument)), None)


def _attempt(composer: Composer) -> Exception | DictConfig:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    try:
        return hydra.compose_config(
            composer.config_name,
            composer.arguments,
            run_mode=RunMode.RUN,
            with_log_configuration=False,
            from_shell=False,
        )
    except MISTAKES as error:
        return error


def _others(composer: Composer, cfg: DictConfig, dropped: Sequence[str]) -> list[str]:
    """The mistakes in what could be composed, but for the groups of which no option was found."""
    if "experiment" in dropped:
        return []  # all that it would have set is missing
    try:
        checked(cfg, cfg.hydra.runtime.choices, composer)
    except UserError as error:
        return [problem for problem in error.problems if re.split(r"[.= (:]", problem)[0] not in dropped]
    return []


def blames(error: Exception, argument: str) -> bool:
    """Whether an error of Hydra is about this argument."""
    _, key, value = split(argument)
    if isinstance(error, OverrideParseException):
        return bool(error.override == argument)
    text = str(error)
    if isinstance(error, MissingConfigException):
        option = OPTION.search(text)
        if option is None or value is None:
            return False
        return key.split("@")[0] == option.group(1) and option.group(2) in VALUES.split(value)
    return argument in text or f"'{key}'" in text or f"{key}@" in text


def sentence(error: Exception, guilty: str | None, composer: Composer) -> str:
    """One mistake in one sentence."""
    text = str(error).strip() or str(error.__cause__ or type(error).__name__).strip()
    option = OPTION.search(text)
    origin = "the command line" if guilty else _file_of(text, option.group(2) if option else "", composer)
    if isinstance(error, MissingConfigException) and option:
        group, name = option.groups()
        return _no_option(group, name, origin, composer.options(group))
    if isinstance(error, MissingConfigException):
        names = {path.stem for folder in composer.folders for path in folder.glob("*.yaml")}
        hint = nearest(composer.config_name, names)
        return f"--config-name {composer.config_name}: there is no such file in {composer.folders[0]}; {hint}"
    first = text.splitlines()[0]
    if isinstance(error, OverrideParseException):
        return f"{guilty} (the command line): cannot be read: {first}; write key=value, special characters quoted"
    if isinstance(error, yaml.YAMLError):
        return " ".join(text.split())
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
    detail = "; ".join(dict.fromkeys(filter(None, [first, cause])))
    place = f"{guilty} ({origin})" if guilty else origin or "conf"
    if "@experiment." in detail:
        return f"{place}: an experiment's first line must be `# @package _global_`, or its keys are not the study's"
    return f"{place}: {detail}"


def _no_option(group: str, name: str, origin: str, options: Sequence[str]) -> str:
    return f"{group}={name} ({origin}): there is no such option; {nearest(name, options)}"


def _file_of(text: str, name: str, composer: Composer) -> str:
    """The file that names a missing option, if it is the experiment's; else the one that Hydra says it was reading."""
    experiments = [value for _, key, value in map(split, composer.overrides) if key == "experiment"]
    for path in [folder / "experiment" / f"{each}.yaml" for folder in composer.folders for each in experiments]:
        if name and path.is_file() and re.search(rf"\b{re.escape(name)}\b", path.read_text(encoding="utf-8")):
            return short_path(path)
    match = re.search(r"In '([^']+)'", text)
    file = f"{match.group(1)}.yaml" if match else ""
    return next((short_path(folder / file) for folder in composer.folders if file and (folder / file).is_file()), file)
