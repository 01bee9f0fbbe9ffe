"""Runs a study that has been settled and checked, and leaves its run folder."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from flip.cli.closing import begin, close, last_words, rerun_words, show_logs, show_result
from flip.cli.given import applied, bring
from flip.cli.redirect import to_log
from flip.config import build
from flip.config.jobs import JOBS
from flip.config.online_trackers import online
from flip.config.schema import SIMULATED
from flip.config.targets import TARGET
from flip.coordinator.cohorts import agree
from flip.coordinator.jobs import coordinator, program
from flip.coordinator.loop import Coordinator
from flip.coordinator.result import INTERRUPTED, Ending, ResultFile, no_result, why
from flip.coordinator.serve import Submission
from flip.errors import StudyFailed, UserError, disk_full
from flip.federation.inprocess import ask_silos, open_silos
from flip.federation.live import LiveTransport, followed
from flip.files import only_process_in, relative
from flip.messages import Payload, Transport
from flip.processes import nothing_left
from flip.runs.folder import RunFolder
from flip.runs.missing_sites import never_in
from flip.runs.provenance import provenance
from flip.runs.rerun import PRIVATE, run_files
from flip.runs.untouched import OtherData, untouched
from flip.signals import Interrupted, deferred, ending_signals, interruptible

if TYPE_CHECKING:
    from flip.cli.display import Display
    from flip.config.study import Study
    from flip.tracking import Tracker


def execute(study: "Study", folder: Path, resumes: str | None = None) -> ResultFile:
    """Run a study into `folder`; returns what it wrote to `result.json`.

    The study has passed `flip.config.checks.study.check`. `resumes` is the identifier of the run in that folder, which
    then goes on from its last complete round. Raises UserError for a folder that holds a run otherwise, or that another
    process works in, and Interrupted again once the folder tells of it.
    """
    if resumes is None and (folder / "run.yaml").exists():
        raise UserError(f"hydra.run.dir={relative(folder)}: holds a run already; choose another folder")
    study = with_secrets(study)
    transport, trackers = build.transport(study), build.trackers(study)
    run = resumes or run_identifier(study)
    with ending_signals(), deferred():
        with opened(study, folder, run, trackers, resumes=resumes is not None) as (files, display):
            result, asked = to_result(study, files, transport, run, lambda: begin(study, folder, trackers, display))
            report, asked = close(folder, trackers, result, display=display, asked=asked)
        trains = JOBS[study.job].trains
        if not asked:
            show_result(folder, scores=JOBS[study.job].scores)
            if study.again and study.again != folder and result["status"] == "ok":
                print(f"rerun   {rerun_words(study.again, folder)}")
            show_logs(folder, never_in(files.lines()) if trains and result["status"] == "ok" else None)
        print(last_words(result, folder, report, study=study), flush=True)
        if asked is not None:
            asked.told = True
            raise asked
    return result


@contextmanager
def opened(
    study: "Study", folder: Path, run: str, trackers: "Sequence[Tracker]", *, resumes: bool
) -> "Iterator[tuple[RunFolder, Display]]":
    """A folder that holds the run, which so can be resumed, and the display; nothing of the run is left afterwards.

    A run that is not resumed after all, since its data are others, leaves the folder as it was: UserError.
    """
    with ExitStack() as stack:
        stack.enter_context(only_process_in(folder))
        if resumes:
            stack.enter_context(untouched(folder))
        stack.enter_context(room_for_result(folder))
        stack.enter_context(nothing_left())
        display = stack.enter_context(open_display(study, stack.enter_context(to_log(folder / "log.txt"))))
        files = RunFolder(folder, [display, *trackers])
        files.mend()
        (folder / "result.json").unlink(missing_ok=True)
        files.json("provenance.json", provenance(study, folder, run))
        write_run_files(study, files)
        for words in bring(study, folder):
            display.note(words)
        try:
            yield files, display
        except OtherData as other:
            for tracker in trackers:
                tracker.finish(folder, no_result(str(other), 0.0, status=other.status))
            raise


def to_result(
    study: "Study", files: RunFolder, transport: Transport | None, run: str, begin: Callable[[], None]
) -> tuple[ResultFile, Interrupted | None]:
    """The run's result, and the signal that has ended it before."""
    started = time.perf_counter()
    try:
        with interruptible():
            begin()
            if study.live:
                return run_live(study, files, cast(LiveTransport, transport), run), None
            return run_here(study, files, transport, run).reach(started), None
    except Interrupted as asked:
        return ended(files, started, asked.words, INTERRUPTED), asked
    except OtherData:
        raise
    except Exception as error:  # before the loop began; its traceback is in the log
        return ended(files, started, why(error, files, relative(files.folder)), "failed"), None


def ended(files: RunFolder, started: float, reason: str, status: str) -> ResultFile:
    """The result that the run has, else one that says why; a server that we interrupt may say first that it failed."""
    result = files.result()
    if result is None or (status == INTERRUPTED and result["status"] == "failed"):
        seconds, rounds = time.perf_counter() - started, files.last_round() + 1
        result = no_result(reason, seconds, rounds=rounds, status=status)
        files.json("result.json", result)
    return result


def write_run_files(study: "Study", files: RunFolder) -> None:
    """Write what the run can be run again from; the sites' files are the owner's alone."""
    again = run_files(study)
    for path in sorted(again, key=lambda path: path == "run.yaml"):  # the last: with it the folder holds a run
        files.text(path, again[path], mode=0o600 if path.startswith(PRIVATE) else 0o644)


def run_here(study: "Study", files: RunFolder, transport: Transport | None, run: str) -> Ending:
    """A run whose loop is in this process."""
    loop = coordinator(
        run,
        study.manifest,
        text=study.manifest_text,
        trains={name: site.trains for name, site in study.sites.items()},
        files=files,
        alone=study.baselines.alone and transport is not None,
        fine_tuned=study.baselines.fine_tuned if transport is not None else None,
        trackers=online(study.tracking),
    )
    if JOBS[study.job].applies == 1:
        loop.applied = applied(study, loop.given[0])
    return Ending(files, loop, partial(train_here, study, files.folder, loop, transport), relative(files.folder))


def train_here(study: "Study", folder: Path, loop: Coordinator, transport: Transport | None) -> Payload | None:
    """The study's final weights: federated, or centralized; then the centralized baseline.

    None for a job that trains nothing.
    """
    homes = {name: folder / "sites" / f"{name}.yaml" for name in study.sites}
    if not JOBS[study.job].trains:
        job = program(study.job, loop)
        return transport.run(job, homes) if transport else job(ask_silos(open_silos(homes)))
    if transport is None:
        return pooled(study, loop, homes, "test", folder)
    final = transport.run(loop, homes)
    if study.baselines.centralized:
        pooled(study, loop, homes, "baseline/centralized/test", folder / "baseline")
    return final


def pooled(study: "Study", loop: Coordinator, homes: dict[str, Path], prefix: str, folder: Path) -> Payload:
    """Train on the sites' data together."""
    from flip.federation.none import train_pooled

    silos = open_silos(homes)
    ask = ask_silos(silos)
    if prefix == "test":
        agree(loop.roster, ask, loop.reasons)
    resume = study.resume_from if prefix == "test" else None
    return train_pooled(loop, ask, silos, folder=folder, prefix=prefix, resume=resume)


def run_live(study: "Study", files: RunFolder, live: LiveTransport, run: str) -> ResultFile:
    """A run whose loop is in the backend's server; this process follows it."""
    trains = {name: site.trains for name, site in study.sites.items()}
    timeout = float(study.federation["timeout"])
    told = online(study.tracking)
    asked = (study.baselines.alone, timeout, study.job, told, study.baselines.fine_tuned)
    submission = Submission(run, study.manifest_text, trains, *asked)
    started = time.perf_counter()
    reason = "the server's app ended without a result; its log has the cause"
    try:
        files.reserve()
        with followed(files.folder, files.listeners):
            live.submit(submission, files.folder)
    except StudyFailed as failed:
        reason = str(failed)
    except (Exception, SystemExit) as error:  # of the engine, a backend or a library: its traceback is in the log
        reason = why(error, files, relative(files.folder))
    finally:
        files.release()
    result = files.result()
    if result is None:
        result = no_result(reason, time.perf_counter() - started, rounds=files.last_round() + 1)
        files.json("result.json", result)
    return result


@contextmanager
def room_for_result(folder: Path) -> Iterator[None]:
    """Turn what is left of a full disk into a word to the user: there is no room for `run.yaml`, or `result.json`."""
    try:
        yield
    except OSError as error:
        if not disk_full(error):
            raise
        raise UserError(
            f"{relative(folder)}: no space is left on its disk, not even for result.json; free some"
        ) from error


def with_secrets(study: "Study") -> "Study":
    """In simulation a site without a secret of its own says so in its file; a hospital's is made in its home."""
    if study.site_file or study.live:
        return study
    sites = {name: replace(site, secret=site.secret or SIMULATED) for name, site in study.sites.items()}
    return replace(study, sites=sites)


def run_identifier(study: "Study") -> str:
    """New in every run of a hospital's, so that noise is fresh; in simulation the study's, so that a rerun is equal."""
    return uuid.uuid4().hex if study.site_file or study.live else f"simulated-{study.manifest_sha256}"


def open_display(study: "Study", screen: TextIO) -> "Display":
    """The live display on the real screen."""
    from rich.console import Console

    from flip.cli.display import Display

    federated = study.federation.get(TARGET) is not None
    passes = study.manifest["trainer"]["centralized"]["max_epochs"]
    rounds = build.strategy(study.manifest).rounds if federated else passes
    rounds = rounds if JOBS[study.job].trains else 0
    console = Console(file=screen)
    return Display(
        study=study.manifest["name"], backend=study.backend, rounds=rounds, sites=sorted(study.sites), console=console
    )
