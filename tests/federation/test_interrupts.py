"""A signal ends a run, wherever it meets it, with a result, one line and its own exit status; nothing else does so.

Sites and loops hang inside a fit of Lightning's Trainer, which makes something else of ctrl-c and SIGTERM.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from flip.__main__ import main
from flip.cli.output import tolerate
from tests.commands import run_flip
from tests.federation.backends import FLARE, FLOWER, FORKED, ONE, Backend
from tests.federation.faulty_site import Faulty
from tests.federation.live import until

SLOW = ("model._target_=faulty.parts.Slow", "tracking.diary._target_=faulty.parts.Diary")


def interrupted(study: Faulty, number: signal.Signals, *overrides: str, hangs: str = "fit") -> list[str]:
    """The lines that a study prints last which hangs, and gets a signal there; its result says `interrupted`."""
    with study.running(*SLOW, *overrides, HANGS=hangs) as running:
        running.wait(study.hangs)
        running.process.send_signal(number)
        assert running.end() == 128 + number, running.text("out") + running.err
        assert running.family.left() == []
        assert running.err == ""
        assert running.result["status"] == "interrupted"
        assert (study.run / "diary").read_text() == "interrupted"
    assert study.temporary_files() == []
    return running.text("out").splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "number"),
    [
        pytest.param(ONE, signal.SIGINT, id="inprocess-int"),
        pytest.param(FORKED, signal.SIGTERM, id="workers-term", marks=pytest.mark.slow),
        pytest.param(FLOWER, signal.SIGHUP, id="flower-hup", marks=pytest.mark.long),
        pytest.param(FLARE, signal.SIGTERM, id="nvflare-term", marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_a_fit_of_lightning_ends_the_run_with_a_result(
    backend: Backend, number: signal.Signals, tmp_path: Path, short: Path
) -> None:
    study = Faulty(tmp_path, short / f"f-{backend.id}-{number}", {"a": {}, "b": {}})
    lines = interrupted(study, number, *backend.overrides)
    assert lines[-1].startswith("interrupted  ")
    assert lines[-1].endswith("go on: python -m flip resume=run 'allow_targets=[faulty.]'")
    assert [line for line in lines if "Traceback" in line] == []
    if backend is not ONE:
        return
    words, packages = ("resume=run", "allow_targets=[faulty.]"), str(study.folder / "packages")  # a run allows nothing
    resumed = run_flip(study.folder, *words, seconds=400, PYTHONPATH=packages)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    result = json.loads((study.run / "result.json").read_text())
    assert (result["status"], result["rounds"]) == ("ok", 2)


# Phases, in a fork of this process, which has loaded what a run loads.


def forked(study: Faulty, number: signal.Signals, *overrides: str, hangs: str, **environment: str) -> int:
    """The exit status of a study that hangs somewhere, and gets a signal there."""

    def run() -> None:
        os.chdir(study.folder)
        os.environ |= {"HANGS": hangs, "TMPDIR": str(study.temporary), **environment}
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(study.folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
        tempfile.tempdir = None
        tolerate()
        status = main(study.arguments(*SLOW, *overrides))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    sys.path.insert(0, str(study.folder / "packages"))
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    try:
        until(lambda: study.hangs() or process.exitcode is not None, 60, "it does not hang")
        os.kill(process.pid or 0, number)
        process.join(60)
        assert study.temporary_files() == []
        return process.exitcode or 0
    finally:
        process.kill()
        process.join()
        sys.path.remove(str(study.folder / "packages"))


@pytest.mark.parametrize(
    ("backend", "phase"),
    [("none", "fit"), *(("inprocess", each) for each in ("tracker", "statistics", "test"))],
)
def test_a_signal_in_any_phase_ends_the_run_with_a_result(
    backend: str, phase: str, tmp_path: Path, short: Path
) -> None:
    study = Faulty(tmp_path, short / f"{backend}-{phase}", {"a": {}, "b": {}})
    number = signal.SIGTERM if backend == "none" else signal.SIGHUP
    assert forked(study, number, f"federation={backend}", hangs=phase) == 128 + number
    assert json.loads((study.run / "result.json").read_text())["status"] == "interrupted"
    assert (study.folder / "err").read_text() == ""
    last = (study.folder / "out").read_text().splitlines()[-1]
    assert last.startswith("interrupted  ")
    command = "--config-dir run --config-name run" if backend == "none" else "resume=run"
    assert last.endswith(f"{command} 'allow_targets=[faulty.]'")


def test_a_signal_before_there_is_a_run_leaves_none(tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / "check", {"a": {}, "b": {}})
    assert forked(study, signal.SIGTERM, hangs="check") == 143
    assert (study.folder / "err").read_text() == "interrupted  told to end (SIGTERM)\n"
    assert not (study.run / "run.yaml").exists()


def test_a_signal_after_the_result_leaves_it_as_it_is(tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / "end", {"a": {}, "b": {}})
    assert forked(study, signal.SIGINT, "strategy.rounds=1", *ONE.overrides, hangs="end") == 130
    assert json.loads((study.run / "result.json").read_text())["status"] == "ok"
    assert (study.folder / "err").read_text() == ""
