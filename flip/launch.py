"""From the command line to a run, or to a sweep of runs with a table of their results."""

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf

from flip.composing import MISTAKES, Composer
from flip.config import Study
from flip.errors import UserError
from flip.explaining import explain_sweep
from flip.help import mistakes_text
from flip.origin import Origin
from flip.suggest import unique


def launch(arguments: Sequence[str]) -> int:
    """Do what the command line asks; returns the exit status. Raises UserError for mistakes."""
    given = parser().parse_args(list(arguments))
    if any(each.startswith("resume=") for each in given.overrides):
        return resume(given)
    composer = Composer(given.overrides, given.config_name, Path(given.config_dir) if given.config_dir else None)
    if given.cfg:
        print(shown(composer.compose(), given.cfg, given.package, given.resolve), end="")
        return 0
    return Sweep(composer).run() if given.multirun else run(composer)


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
    keys = {"job": [str(key) for key in cfg if key != "hydra"], "hydra": ["hydra"], "all": [str(key) for key in cfg]}[
        part
    ]
    if package:
        found = OmegaConf.select(cfg, package)
        if found is None:
            raise UserError(f"--package {package}: there is no such key")
        return OmegaConf.to_yaml(found, resolve=resolve) if isinstance(found, Container) else f"{found}\n"
    values: DictConfig = OmegaConf.masked_copy(cfg, keys)
    if not resolve:
        return OmegaConf.to_yaml(values)
    try:
        return OmegaConf.to_yaml(values, resolve=True)
    except MISTAKES as error:
        raise UserError(f"--resolve: {str(error).splitlines()[0]}") from error


def study_of(cfg: DictConfig, choices: Mapping[str, Any], composer: Composer) -> Study:
    """The checked study of a composed configuration."""
    from flip.checking import check
    from flip.settling import settle

    if twice := composer.named_twice(choices.get("experiment")):
        raise UserError(twice)
    study = settle(cfg, backend=str(choices.get("federation")), where=Origin(composer))
    check(study)
    return study


def run(composer: Composer) -> int:
    """One run."""
    cfg = composer.compose()
    HydraConfig.instance().set_config(cfg)
    study = study_of(cfg, cfg.hydra.runtime.choices, composer)
    from flip.run import execute

    result = execute(study, Path(str(cfg.hydra.run.dir)).absolute())
    return 0 if result["status"] == "ok" else 1


def resume(given: argparse.Namespace) -> int:
    """Go on with a run that has not ended, in its folder, from its last complete round."""
    from flip.resuming import unfinished

    named = [each.partition("=")[2] for each in given.overrides if each.startswith("resume=")]
    others = [each for each in given.overrides if not each.startswith("resume=")]
    if given.multirun or given.config_dir or len(named) != 1:
        raise UserError(f"resume={named[0]}: takes one run, and neither --multirun nor --config-dir")
    folder = Path(named[0]).expanduser().absolute()
    run = unfinished(folder)
    composer = Composer([*others, f"hydra.run.dir={quoted(folder)}"], "run", folder)
    cfg = composer.compose()
    HydraConfig.instance().set_config(cfg)
    study = study_of(cfg, cfg.hydra.runtime.choices, composer)
    run.refuse_other(study)
    from flip.run import execute

    return 0 if execute(study, folder, resumes=run.identifier)["status"] == "ok" else 1


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever characters it holds."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass
class Sweep:
    """Several runs, one after the other; a mistake in one, or its failure, does not end the others."""

    composer: Composer
    folders: list[Path] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    failed: bool = False

    def run(self) -> int:
        """Run them all and print the table of results; returns 1 unless every run succeeded."""
        from hydra._internal.callbacks import Callbacks
        from hydra.core.plugins import Plugins
        from hydra.types import HydraContext

        composer = self.composer
        with composer.session() as hydra:
            try:
                cfg = hydra.compose_config(
                    composer.config_name, composer.arguments, RunMode.MULTIRUN, with_log_configuration=False
                )
            except MISTAKES as error:
                raise UserError(explain_sweep(composer, error)) from error
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg))
            sweeper = Plugins.instance().instantiate_sweeper(config=cfg, hydra_context=context, task_function=self.job)
            try:
                sweeper.sweep(arguments=list(cfg.hydra.overrides.task))
            except MISTAKES as error:
                clear(Path(str(cfg.hydra.sweep.dir)))
                raise UserError(explain_sweep(composer, error)) from error
        self.show()
        if not self.folders:
            clear(Path(str(cfg.hydra.sweep.dir)))
        return 1 if self.failed else 0

    def job(self, cfg: DictConfig) -> None:
        """One run of the sweep."""
        hydra = HydraConfig.get()
        folder, overrides = Path(hydra.runtime.output_dir), [str(each) for each in hydra.overrides.task]
        composer = Composer(overrides, self.composer.config_name, self.composer.config_dir)
        typed = " ".join(each.lstrip("+") for each in overrides)
        print(f"\n[{hydra.job.num}] {typed}", flush=True)
        try:
            study = study_of(cfg, hydra.runtime.choices, composer)
            from flip.run import execute

            result = execute(study, folder)
        except UserError as error:
            self.failed = True
            self.mistakes += [f"[{hydra.job.num}] {problem}" for problem in error.problems]
            print(mistakes_text(error.problems), file=sys.stderr, flush=True)
            clear(folder)
            return
        except Exception:  # an error of the engine itself ends this run, not the others
            self.failed = True
            traceback.print_exc()
            return
        self.folders.append(folder)
        self.failed = self.failed or result["status"] != "ok"

    def show(self) -> None:
        """Print the table of results, and under it what was not run at all."""
        from rich.console import Console

        if self.folders:
            from flip.report import compare_table

            table: Any = compare_table(self.folders)
            Console().print(table)
        for mistake in unique(self.mistakes):
            print(f"not run: {mistake}", file=sys.stderr)


def clear(folder: Path) -> None:
    """Remove what Hydra made for runs that never started: empty folders, its note of the sweep, nothing else."""
    note = folder / "multirun.yaml"
    if note.is_file() and list(folder.iterdir()) == [note]:
        note.unlink()
    for each in (folder, folder.parent):
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()
