"""A sweep: the same study once for each combination of values, by whichever launcher and sweeper of Hydra.

A launcher may run it in other processes, so what becomes of each run is kept on disk (`flip.cli.sweep_notes`).
"""

import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from flip.cli import sweep_plugins
from flip.cli.calls import run
from flip.cli.compose import MISTAKES, Composer, split
from flip.cli.hydra_errors import explain_sweep
from flip.cli.study import study_of
from flip.cli.sweep_notes import Note, Notes, objective, record_of
from flip.cli.sweep_same import without_effect
from flip.errors import UserError, unique
from flip.signals import Interrupted, handing_on

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

NO_OBJECTIVE = (
    "the sweeper looks for the best main metric on validation data, and this study has none; declare a validation split"
)


@dataclass
class Sweep:
    """Several runs; a mistake in one, or its failure, does not end the others."""

    composer: Composer
    typed: tuple[str, ...]
    parent: int = field(default_factory=os.getpid)

    def run(self) -> int:
        """Run them all and print the table of results; returns 1 unless every run succeeded.

        Raises UserError where none could begin, and Interrupted again once the table is there.
        """
        composer, failure = self.composer, ""
        with composer.session() as hydra, sweep_plugins.importing_nothing_here():
            cfg = self._composed(hydra)
            notes = Notes(Path(str(cfg.hydra.sweep.dir)).absolute())
            try:
                with handing_on(notes.end_others):
                    sweep_plugins.sweeper(cfg, hydra, self.job, composer).sweep(list(cfg.hydra.overrides.task))
            except MISTAKES as error:
                clear(notes.folder)
                raise UserError(explain_sweep(composer, error)) from error
            except Interrupted:
                if notes.read():
                    self.show(notes)
                raise
            except UserError:
                raise
            except Exception as error:  # of a launcher or sweeper: what has run is there all the same
                traceback.print_exc()
                failure = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if failure:
            print(f"the sweep has ended early: {failure}", file=sys.stderr)
        return self.show(notes) or int(bool(failure))

    def _composed(self, hydra: "Hydra") -> DictConfig:
        """The configuration of the sweep. Raises UserError."""
        composer = self.composer
        try:
            cfg: DictConfig = hydra.compose_config(
                composer.config_name, composer.arguments, RunMode.MULTIRUN, with_log_configuration=False
            )
            return cfg
        except MISTAKES as error:
            raise UserError(explain_sweep(composer, error)) from error

    def job(self, cfg: DictConfig) -> float:
        """One run of the sweep; returns its objective, the study's main metric on the validation data."""
        hydra = HydraConfig.get()
        folder, overrides = Path(hydra.runtime.output_dir), [str(each) for each in hydra.overrides.task]
        notes, number = Notes(Path(str(hydra.sweep.dir)).absolute()), int(hydra.job.num)
        note = Note(number, folder, tuple(each.lstrip("+") for each in overrides), process=os.getpid())
        if notes.stopped():
            return float("nan")
        composer = Composer(overrides, self.composer.config_name, self.composer.config_dir, self._varied(overrides))
        elsewhere = os.getpid() != self.parent
        print(f"{'' if elsewhere else chr(10)}[{number}] {' '.join(note.overrides)}", flush=True)
        notes.write(note)
        try:
            with silent() if elsewhere else nullcontext():
                study = study_of(cfg, hydra.runtime.choices, composer)
                ended = run(replace(study, typed=self.typed), folder)
        except UserError as error:
            self._not_run(notes, note, error.problems)
            clear(folder)
        except Interrupted:
            notes.write(replace(note, ended=True))
            if not elsewhere:
                raise
        except Exception as error:  # an error of the engine itself ends this run, not the others
            traceback.print_exc()
            self._not_run(notes, note, [f"{type(error).__name__}, an error of the engine"])
        else:
            notes.write(replace(note, ended=True))
            if elsewhere:
                print(f"[{number}] {ended.status}  {ended.reason}".rstrip(), flush=True)
        notes.table()
        found = objective(record_of(folder))
        if math.isnan(found) and "direction" in hydra.sweeper and note.status == "ok":
            notes.stop()
            self._not_run(notes, note, [NO_OBJECTIVE])
        return found

    def _not_run(self, notes: Notes, note: Note, problems: Sequence[str]) -> None:
        """Keep why a run was not run, and say it where the screen is this process's."""
        note = replace(note, mistakes=tuple(problems), ended=True)
        notes.write(note)
        if note.process == self.parent:
            say_not_run(note)

    def _varied(self, overrides: Sequence[str]) -> frozenset[str]:
        """The keys of one run's overrides whose values are not those of every run."""
        same = {(key, value) for _, key, value in map(split, self.composer.overrides)}
        return frozenset(key for _, key, value in map(split, overrides) if (key, value) not in same)

    def show(self, notes: Notes) -> int:
        """Print the table of results, and under it what was not run at all; returns 1 unless all succeeded."""
        from rich.console import Console

        known = notes.close()
        if folders := [note.folder for note in known if (note.folder / "result.json").is_file()]:
            from flip.report.compare import compare_table

            console = Console()
            table: Any = compare_table(folders, console.width)
            console.print(table)
            for said in without_effect(known):
                print(said)
            print(f"sweep   {notes.shown}")
        else:
            clear(notes.folder)
        for note in known:
            if note.process != self.parent:  # a process that has no screen of its own
                say_not_run(note)
        return int(not known or any(note.mistakes or note.status != "ok" for note in known))


def say_not_run(note: Note) -> None:
    """One line for each reason for which a run of the sweep was not run."""
    for problem in unique(note.mistakes):
        print(f"not run: [{note.number}] {problem}", file=sys.stderr, flush=True)


@contextmanager
def silent() -> Iterator[None]:
    """In a process beside others nothing is shown: their lines would be mixed."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def clear(folder: Path) -> None:
    """Remove what Hydra made for runs that never started: empty folders, its note of the sweep, nothing else."""
    note = folder / "multirun.yaml"
    if note.is_file() and list(folder.iterdir()) == [note]:
        note.unlink()
    for each in (folder, folder.parent):
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()
