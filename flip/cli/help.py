"""`python -m flip --help`, `--version`, and what it says when nothing is asked of it. Imports nothing of weight."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from flip.config.data_source import data_source, ready
from flip.config.jobs import JOBS
from flip.errors import UserError, nearest
from flip.files import conf_folder
from flip.version import __version__

WHAT = "FLIP trains one study, written in YAML, on one machine or across hospitals."
GROUPS = (
    "experiment",
    "dataset",
    "model",
    "trainer",
    "strategy",
    "federation",
    "sites",
    "privacy",
    "tracking",
    "debug",
)
SCREEN = """\
flip experiment=NAME [key=value ...]     run a study on this machine
     federation=inprocess                federated; or over flower, nvflare
     strategy.rounds=5                   with another value of a key
     -m seed=1,2,3                       a sweep: a run for each value
     site_file=site.yaml                 one hospital alone, with its own file
{jobs}
     --cfg job                           show the configuration, run nothing
     --config-dir DIR                    with YAML of your own
flip --config-dir RUN --config-name run  a finished run again
flip resume=RUN                          go on with a run that was cut off
flip report|card|export RUN [OUT]        its report, model card, MONAI Bundle
flip deploy flower sites=NAME out=DIR    folders for a live federation
flip start KIT                           start its server, or one of its sites
flip site init|check|review|approve|audit ...  a hospital's file and its say
flip --help GROUP                        the options of a group, or of all"""
WIDTH = 79


def version_text() -> str:
    """The engine's name and version."""
    return f"flip-engine {__version__}"


def start_text() -> str:
    """What the engine is, and what to type next."""
    experiments = options([conf_folder()], "experiment")
    now = {name: text for name, text in experiments.items() if ready(conf_folder() / "experiment" / f"{name}.yaml")}
    later = {name: text for name, text in experiments.items() if name not in now}
    name = next(iter(now), "NAME")
    lines = [
        WHAT,
        "",
        "Type next:",
        f"    python -m flip experiment={name}",
        "    python -m flip --help",
        "",
        "Experiments that run as they are:",
        *_table(now),
        "",
        "With data to get or make first, which flip --help dataset names:",
        *_table(later),
    ]
    return "\n".join(lines)


def help_text(arguments: Sequence[str]) -> str:
    """One screen with every command, or the options of the group that an argument names (`all`: of every group).

    A `--config-dir` among the arguments adds its own options. Raises UserError for a group that there is not.
    """
    own = value_of("--config-dir", "-cd", arguments)
    folders = [conf_folder()] + ([Path(own)] if own else [])
    found = {
        group for folder in folders if folder.is_dir() for group in os.listdir(folder) if (folder / group).is_dir()
    }
    groups = [group for group in GROUPS if group in found] + sorted(found - set(GROUPS))
    wanted = [each for each in arguments if not each.startswith("-") and "=" not in each and each != own]
    if not wanted:
        return _screen(groups)
    for each in wanted:
        if each not in (*groups, "all"):
            raise UserError(f"--help {each}: there is no such group; {nearest(each, [*groups, 'all'])}")
    return _groups(folders, groups if "all" in wanted else wanted)


def _screen(groups: Sequence[str]) -> str:
    named = textwrap.fill(f"Groups: {', '.join(groups)}", WIDTH, subsequent_indent="  ", break_long_words=False)
    jobs = [f"     {f'job={name}':<36}{job.about}" for name, job in JOBS.items() if name != "train"]  # the default
    return "\n".join([WHAT, "", SCREEN.format(jobs="\n".join(jobs)), named])


def _groups(folders: Sequence[Path], groups: Sequence[str]) -> str:
    lines = [line for group in groups for line in (f"{group}=", *_table(_with_data(folders, group)), "")]
    return "\n".join(
        [
            *lines,
            "Each option is a file, conf/GROUP/OPTION.yaml, whose comments explain its keys.",
            f"conf: {conf_folder()}",
        ]
    )


def _with_data(folders: Sequence[Path], group: str) -> dict[str, str]:
    """The options of a group; of a dataset also where its data come from."""
    found = options(folders, group)
    if group == "dataset":
        sources = {name: data_source(f"{name}.yaml", folders) for name in found}
        found = {name: f"{text}. Data: {sources[name]}" if sources[name] else text for name, text in found.items()}
    return found


def options(folders: Sequence[Path], group: str) -> dict[str, str]:
    """Options of a group with the purpose that their first comment gives."""
    files = {path.stem: path for folder in reversed(folders) for path in sorted((folder / group).glob("*.yaml"))}
    return {name: purpose(files[name]) for name in sorted(files)}


def purpose(path: Path) -> str:
    """The first sentence of a YAML file's leading comment, without the command that uses it and Hydra's header."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").strip()
        if text and not text.startswith("@package"):
            text = text.split(": python -m flip")[0]
            if not text.startswith("python -m flip"):
                return text.split(". ")[0].rstrip(".")
    return ""


def value_of(long: str, short: str, arguments: Sequence[str]) -> str | None:
    """The value of a command-line flag, written apart or with `=`."""
    for index, argument in enumerate(arguments):
        if argument in (long, short):
            return arguments[index + 1] if index + 1 < len(arguments) else None
        if argument.startswith(f"{long}="):
            return argument.partition("=")[2]
    return None


def _table(choices: dict[str, str]) -> list[str]:
    width = max((len(name) for name in choices), default=0)
    return [f"    {name.ljust(width)}  {text}".rstrip() for name, text in choices.items()]
