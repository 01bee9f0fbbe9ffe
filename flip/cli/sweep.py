"""A sweep: the same study once for each combination of values, and the table that compares the runs."""

import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from flip.cli.calls import run
from flip.cli.compose import MISTAKES, Composer
from flip.cli.hydra_errors import explain_sweep
from flip.cli.study import study_of
from flip.errors import UserError, mistakes_text, unique


@dataclass
class Sweep:
    """Several runs, one after the other; a mistake in one, or its failure, does not end the others."""

    composer: Composer
    typed: tuple[str, ...]
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
            ended = run(replace(study, typed=self.typed), folder)
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
        self.failed = self.failed or ended.status != "ok"

    def show(self) -> None:
        """Print the table of results, and under it what was not run at all."""
        from rich.console import Console

        if self.folders:
            from flip.report.compare import compare_table

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
