"""What FLARE runs of ours, in its simulator and provisioned: settings of a job, and an executor at each site.

The controller (`relay.py`) has FLARE carry what the loop asks through a bridge (`bridge.py`), and hands back what the
sites answer. The executor (`answer_with`) answers through a `Silo`, which keeps what it has loaded for the whole run:
in the simulator in its own process, at a provisioned site in another.

A message is one blob of bytes in a Shareable, or a file that the other side fetches (`files.py`).
Contract: nvflare 2.9.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flip.federation.nvflare.files import BLOB, packed, received

Answers = Callable[[bytes | Path], Sequence[object]]
"""How a site answers: a packed task in, or the file that holds it; the buffers of a packed reply out."""

TASK, WORK = "flip", "flip_work"  # FLARE's names of our task, and of the word that there is one
SERVER = "server"  # the name of FLARE's server among its cells
POLL = 0.05  # seconds between a client's answer and its next look for work
MESSAGE = 60.0  # seconds that a message of a megabyte (`files.py`) may take at most, where others use the machine
IDLE = 5.0  # seconds after which a client looks for work that nobody told it of


def server_settings() -> dict[str, Any]:
    """What a job tells FLARE's server, beside its workflow."""
    return {"format_version": 2, "server": {"task_request_interval": POLL}}


def client_settings(executor: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What a job tells FLARE's client: our executor, and seconds that a message may take (FLARE's 5 cut it off).

    A message that was lost on the way costs as many seconds: FLARE then sends it again, and takes none twice.
    """
    return {
        "format_version": 2,
        "get_task_timeout": min(timeout, MESSAGE),
        "submit_task_result_timeout": min(timeout, MESSAGE),
        "executors": [{"tasks": [TASK], "executor": executor}],
    }


def answer_with(open_site: Callable[[Any], Answers]) -> Any:
    """FLARE's executor at a site, which is opened with FLARE's context when the coordinator meets it."""
    from nvflare.apis.executor import Executor

    class AnswerExecutor(Answer, Executor):  # type: ignore[misc]
        def __init__(self) -> None:
            Executor.__init__(self)
            Answer.__init__(self, open_site)

    return AnswerExecutor()


class Answer:
    """The executor's part that is ours; FLARE's `Executor` is its other base.

    What it raises, FLARE turns into no answer.
    """

    def __init__(self, open_site: Callable[[Any], Answers]) -> None:
        self.open_site = open_site
        self.answers: Answers | None = None
        self.work = threading.Event()
        self.work.set()  # the first look for work needs no word

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """Before FLARE looks for work, wait until there is some."""
        from nvflare.apis.event_type import EventType

        if event_type == EventType.START_RUN:
            fl_ctx.get_engine().register_aux_message_handler(WORK, self.told)
        if event_type == EventType.BEFORE_PULL_TASK:
            self.work.wait(IDLE)
            self.work.clear()

    def told(self, topic: str, request: object, fl_ctx: object) -> Any:
        """The controller's word."""
        from nvflare.apis.shareable import ReturnCode, make_reply

        self.work.set()
        return make_reply(ReturnCode.OK)

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        """Answer a task; to an empty one, say which process this is."""
        from nvflare.apis.shareable import Shareable

        if self.answers is None:  # when the sites are met, so before their time counts
            self.answers = self.open_site(fl_ctx)
        blob = received(shareable, fl_ctx, SERVER)
        if not blob:
            return Shareable({BLOB: str(os.getpid()).encode()})
        try:
            parts = self.answers(blob)
        finally:
            if not isinstance(blob, bytes):
                blob.unlink()
        return Shareable(packed(parts, fl_ctx))
