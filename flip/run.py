"""Runs a study that has been settled and checked, and leaves its run folder."""

import time
import traceback
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flip import build
from flip.chatter import to_log
from flip.errors import StudyFailed, UserError
from flip.federation import Payload, Transport
from flip.federation.loop import Coordinator
from flip.noise_key import SIMULATED
from flip.run_folder import RunFolder, provenance, relative
from flip.targets import resolve
from flip.weights import digest, save_file

if TYPE_CHECKING:
    from flip.config import Study
    from flip.display import Display


def execute(study: "Study", folder: Path) -> dict[str, Any]:
    """Run a study into `folder`; returns what it wrote to `result.json`.

    The study has passed `checking.check`. Raises UserError for a folder that holds a run already, and KeyboardInterrupt
    again once the folder tells of it.
    """
    from flip.silo import initial_module

    if (folder / "run.yaml").exists():
        raise UserError(f"hydra.run.dir={relative(folder)}: holds a run already; choose another folder")
    study = with_secrets(study)
    module, strategy = initial_module(study.manifest), build.strategy(study.manifest)
    outcomes, transport, trackers = build.outcomes(study.manifest), build.transport(study), build.trackers(study)
    started = time.perf_counter()
    rounds = strategy.rounds if transport else study.manifest["trainer"]["centralized"]["max_epochs"]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        display = stack.enter_context(open_display(study, stack.enter_context(to_log(folder / "log.txt")), rounds))
        files = RunFolder(folder, [display, *trackers])
        for path, text in study.run_files().items():
            files.text(path, text, mode=0o600 if path.startswith("sites/") else 0o644)
        files.json("provenance.json", provenance(study, folder))
        for tracker in trackers:
            tracker.start(folder)
        coordinator = Coordinator(
            run=run_identifier(study),
            manifest=study.manifest_text,
            seed=study.manifest["seed"],
            module=module,
            strategy=strategy,
            trains={name: site.trains for name, site in study.sites.items()},
            recorder=files,
            outcomes=outcomes,
            mechanisms=build.mechanisms(study.manifest),
            reasons=getattr(resolve(study.manifest["dataset"]["_target_"]), "REASONS", frozenset()),
            alone=study.baselines.alone and transport is not None,
        )
        result = Run(study, files, coordinator, transport).finish(started)
        report = write_report(folder, display)
        for tracker in trackers:
            tracker.finish(folder, result)
    print(last_words(result, folder, report), flush=True)
    if result["reason"] == INTERRUPTED:
        raise KeyboardInterrupt
    return result


INTERRUPTED = "interrupted from the keyboard"


@dataclass
class Run:
    """One run from its first task to its result."""

    study: "Study"
    files: RunFolder
    coordinator: Coordinator
    transport: Transport | None

    def finish(self, started: float) -> dict[str, Any]:
        """Train, test, and write `result.json`: the only sign of success. An error of ours is written to the log."""
        status, reason, final = "ok", "", None
        try:
            final = self._weights()
        except StudyFailed as failed:
            status, reason = failed.status, str(failed)
        except KeyboardInterrupt:
            status, reason = "failed", INTERRUPTED
        except Exception as error:  # an error of the engine or of a backend: the run ends, its traceback is in the log
            traceback.print_exc()
            status, reason = "failed", f"{type(error).__name__}; the traceback is in log.txt of the run folder"
        if final is not None:
            save_file(self.files.folder / "weights" / "last.safetensors", final)
        result = {
            "status": status,
            "reason": reason,
            "digest": digest(final) if final is not None else None,
            "rounds": self.coordinator.rounds_done,
            "seconds": round(time.perf_counter() - started, 3),
            "privacy": self._privacy(),
            "monitor": self.coordinator.module.monitor,
            "higher_is_better": self.coordinator.module.higher_is_better,
            "metrics": self.coordinator.metrics,
        }
        self.files.json("result.json", result)
        return result

    def _weights(self) -> Payload:
        """The study's final weights: federated, or trained on the pooled (or only) site; then the pooled baseline."""
        homes = {name: self.files.folder / "sites" / f"{name}.yaml" for name in self.study.sites}
        if self.transport is not None:
            final = self.transport.run(self.coordinator, homes)
            if self.study.baselines.pooled:
                self._pooled(homes, "baseline/pooled/test", self.files.folder / "baseline")
            return final
        return self._pooled(homes, "test", self.files.folder)

    def _pooled(self, homes: dict[str, Path], prefix: str, folder: Path) -> Payload:
        from flip.centralized import train_pooled
        from flip.federation.inprocess import ask_silos, open_silos

        silos = open_silos(homes)
        ask = ask_silos(silos)
        if prefix == "test":
            self.coordinator.statistics(ask)
        resume = self.study.resume_from if prefix == "test" else None
        return train_pooled(self.coordinator, ask, silos, folder=folder, prefix=prefix, resume=resume)

    def _privacy(self) -> dict[str, Any] | None:
        """The largest epsilon over sites, and each site's."""
        spent = self.coordinator.privacy
        if not spent:
            return None
        worst = max(spent.values(), key=lambda entry: entry["epsilon"])
        return {"unit": "record", **worst, "by_site": spent}


def last_words(result: dict[str, Any], folder: Path, report: float) -> str:
    """How the run ended, and where to look."""
    place = relative(folder)
    if result["status"] == "ok":
        return (
            f"ok  {result['seconds']:.1f} s, report {report:.1f} s  digest {result['digest'][:12]}\n"
            f"report  {place}/report.html"
        )
    return f"{result['status']}  {result['reason']}\nreport  {place}/report.html\nlog     {place}/log.txt"


def with_secrets(study: "Study") -> "Study":
    """In simulation a site without a secret of its own says so in its file; a hospital's is made in its home."""
    if study.site_file:
        return study
    sites = {name: replace(site, secret=site.secret or SIMULATED) for name, site in study.sites.items()}
    return replace(study, sites=sites)


def run_identifier(study: "Study") -> str:
    """New in every run of a hospital's, so that noise is fresh; in simulation the study's, so that a rerun is equal."""
    return uuid.uuid4().hex if study.site_file else f"simulated-{study.manifest_sha256}"


def open_display(study: "Study", screen: TextIO, rounds: int) -> "Display":
    """The live display on the real screen."""
    from rich.console import Console

    from flip.display import Display

    console = Console(file=screen)
    return Display(
        study=study.manifest["name"], backend=study.backend, rounds=rounds, sites=sorted(study.sites), console=console
    )


def write_report(folder: Path, display: "Display") -> float:
    """Write the report, and return its seconds; one that cannot be drawn does not take the results with it."""
    from flip.report import write

    started = time.perf_counter()
    try:
        write(folder)
    except Exception:  # the results are on disk already; the report can be made again from the folder
        traceback.print_exc()
        display.note(
            f"the report could not be drawn (see {folder}/log.txt); python -m flip.report {folder} tries again"
        )
    return time.perf_counter() - started
