"""`python -m flip --help`, `--version`, and what it says when nothing is asked of it. Imports nothing of weight."""

import os
from collections.abc import Sequence
from pathlib import Path

import flip
from flip.files import conf_folder

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
USAGE = """\
    python -m flip experiment=NAME                        the study on this machine
    python -m flip experiment=NAME federation=flower      the same study, federated
    python -m flip experiment=NAME strategy.rounds=5      with another value of a key
    python -m flip -m experiment=NAME seed=1,2,3          a sweep
    python -m flip experiment=NAME job=check              what each site would bring, without training
    python -m flip experiment=NAME job=statistics         the same with plots: means, histograms, what does not fit
    python -m flip experiment=NAME --cfg job              show the configuration, run nothing
    python -m flip experiment=NAME site_file=site.yaml    one hospital, its own file
    python -m flip experiment=NAME resume_from=last.ckpt  go on from a checkpoint, without federation
    python -m flip --config-dir DIR experiment=NAME       with your own configuration beside the engine's
    python -m flip --config-dir RUN --config-name run     a finished run again
    python -m flip resume=RUN                             a run that was cut off, from its last complete round
    python -m flip.report RUN [RUN ...]                   compare finished runs
    python -m flip.measure RUN OUT experiment=NAME        apply its model to whole cohorts"""


def version_text() -> str:
    """The engine's name and version."""
    return f"flip-engine {flip.__version__}"


def start_text() -> str:
    """What the engine is, and what to type next."""
    experiments = options([conf_folder()], "experiment")
    name = next(iter(experiments), "NAME")
    lines = [
        WHAT,
        "",
        "Type next:",
        f"    python -m flip experiment={name}",
        "    python -m flip --help",
        "",
        "Experiments:",
    ]
    return "\n".join(lines + _table(experiments))


def help_text(arguments: Sequence[str]) -> str:
    """Usage, and the options of every group, of the engine and of a `--config-dir` among the arguments."""
    folders = [conf_folder()] + ([Path(given)] if (given := value_of("--config-dir", "-cd", arguments)) else [])
    found = {
        group for folder in folders if folder.is_dir() for group in os.listdir(folder) if (folder / group).is_dir()
    }
    groups = [group for group in GROUPS if group in found] + sorted(found - set(GROUPS))
    lines = [WHAT, "", "Usage:", USAGE, ""]
    for group in groups:
        choices = options(folders, group)
        if choices:
            lines += [f"{group}=", *_table(choices), ""]
    lines += [
        "Each option is a file, conf/GROUP/OPTION.yaml, whose comments explain its keys.",
        f"conf: {conf_folder()}",
    ]
    return "\n".join(lines)


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
