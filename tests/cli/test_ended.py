"""What a run's result says once a signal has ended it, whatever a server has written meanwhile."""

import time
from pathlib import Path

import pytest

from flip.cli.execute import ended
from flip.coordinator.result import INTERRUPTED, no_result
from flip.runs.folder import RunFolder


@pytest.mark.parametrize(("written", "kept"), [("failed", INTERRUPTED), ("ok", "ok"), (None, INTERRUPTED)])
def test_an_interrupted_run_has_not_failed_and_one_that_is_done_stays_so(written, kept, tmp_path: Path) -> None:
    files = RunFolder(tmp_path, [])
    if written:
        files.json("result.json", no_result("a call of the stopped server", 1.0, status=written))
    assert ended(files, time.perf_counter(), "by ctrl-c", INTERRUPTED)["status"] == kept
    assert (files.result() or {})["status"] == kept
