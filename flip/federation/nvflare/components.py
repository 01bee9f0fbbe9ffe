"""What FLARE runs of ours, in its simulator and provisioned: a controller, and an executor at each site.

The controller (`relay_over`) has FLARE carry what the loop asks through a bridge (`bridge.py`), and hands back what the
sites answer. The executor (`answer_with`) answers through a `Silo`, which keeps what it has loaded for the whole run.

A message is one blob of bytes in a Shareable, or a file that the other side fetches (`files.py`). An idle
client looks for work twice a second; so that no round waits for this, the controller tells it that there is some (an
auxiliary message of FLARE's). Contract: nvflare 2.9.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.federation.nvflare.files import BLOB, offered, packed, received
from flip.files import mapped
from flip.messages import Fault
from flip.messages.wire import reply_parts, unpack_task

if TYPE_CHECKING:
    from flip.site.silo import Silo

TASK, WORK = "flip", "flip_work"  # FLARE's names of our task, and of the word that there is one
SERVER = "server"  # the name of FLARE's server among its cells
POLL = 0.05  # seconds between a client's answer and its next look for work
SECOND = 1.0  # seconds between looks at what is not asked over the bridge
SETTLING = 15.0  # seconds from the beginning of a job for which a question waits for its client to be there
IDLE = 5.0  # seconds after which a client looks for work that nobody told it of


def server_settings() -> dict[str, Any]:
    """What a job tells FLARE's server, beside its workflow."""
    return {"format_version": 2, "server": {"task_request_interval": POLL}}


def client_settings(executor: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What a job tells FLARE's client: our executor, and seconds that a message may take (FLARE's 5 cut it off)."""
    return {
        "format_version": 2,
        "get_task_timeout": timeout,
        "submit_task_result_timeout": timeout,
        "executors": [{"tasks": [TASK], "executor": executor}],
    }


def relay_over(bridge: Connection) -> Any:
    """The class of FLARE's controller: it has FLARE carry what the loop asks over the bridge, and hands answers back.

    Only `control_flow` reads the bridge, and it never writes there: a full bridge cannot stop it.
    """
    from nvflare.apis.controller_spec import Task, TaskCompletionStatus
    from nvflare.apis.event_type import EventType
    from nvflare.apis.fl_constant import FLContextKey
    from nvflare.apis.impl.controller import Controller
    from nvflare.apis.shareable import Shareable

    standing = dict[str, Task]()

    class Relay(Controller):  # type: ignore[misc]
        def start_controller(self, fl_ctx: Any) -> None:
            """FLARE wants it, as it wants `stop_controller`; there is nothing to prepare or to put away."""

        stop_controller = start_controller

        def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
            """For each question a task for its client, in place of one that the loop has given up, and a word of it.

            When a job begins, a client may still be busy with the end of the one before, and joins a little later.
            """
            engine, looked, began = fl_ctx.get_engine(), -SECOND, time.monotonic()
            early = dict[str, tuple[int, str]]()
            while not abort_signal.triggered:
                if time.monotonic() - looked >= SECOND:
                    self.each_second(engine)
                    looked = time.monotonic()
                if bridge.poll(POLL if early else SECOND):
                    try:
                        number, client, task = json.loads(bridge.recv_bytes())
                    except (EOFError, OSError):
                        return
                    early[client] = number, task
                for client, (number, task) in list(early.items()):
                    if engine.get_client_from_name(client) or time.monotonic() - began > SETTLING:
                        del early[client]
                        self.ask(number, client, task, fl_ctx)

        def ask(self, number: int, client: str, task: str, fl_ctx: Any) -> None:
            """Have FLARE carry one question."""
            engine = fl_ctx.get_engine()
            if client in standing:
                self.cancel_task(standing.pop(client))
            if engine.get_client_from_name(client) is None or self.get_client_disconnect_time(client):
                lose(number, client)
                return
            try:
                data = Shareable(offered(Path(task), fl_ctx) if task else {})
            except FileNotFoundError:  # the loop has given the question up
                return
            standing[client] = Task(TASK, data, props={"number": number}, result_received_cb=self.answered)
            self.send(standing[client], fl_ctx, targets=[client])
            engine.send_aux_request([client], WORK, Shareable(), 0.0, fl_ctx, optional=True)

        def each_second(self, engine: Any) -> None:
            """What there is to do about once a second, between questions."""

        def handle_event(self, event_type: str, fl_ctx: Any) -> None:
            """A client that FLARE has lost answers nothing more."""
            if event_type == EventType.CLIENT_DISCONNECTED:
                client = fl_ctx.get_prop(FLContextKey.DISCONNECTED_CLIENT_NAME)
                if client in standing:
                    lose(standing[client].props["number"], client)

        def answered(self, client_task: Any, fl_ctx: Any) -> None:
            """One answer."""
            about = client_task.task.props["number"], client_task.client.name, client_task.result
            client_task.result = None
            self.cancel_task(client_task.task, completion_status=TaskCompletionStatus.OK)
            threading.Thread(target=self.fetch, args=[*about, fl_ctx], daemon=True).start()

        def fetch(self, number: int, client: str, result: Any, fl_ctx: Any) -> None:
            """The answer itself, which may take its time to come, beside what FLARE does meanwhile."""
            try:
                answer = received(result, fl_ctx, client)
            except Exception as error:  # whatever a client sent: it is no answer, and the loop must hear of it
                self.logger.warning(f"{error}")
                answer = b""
            hand_back(number, client, answer)

    turn = threading.Lock()  # two answers never mix on the bridge

    def hand_back(number: int, client: str, answer: bytes | Path, fault: Fault | None = None) -> None:
        file = str(answer) if isinstance(answer, Path) else None
        with turn, suppress(OSError):
            bridge.send_bytes(json.dumps([number, client, fault.name if fault else None, file]).encode())
            bridge.send_bytes(b"" if isinstance(answer, Path) else answer)

    def lose(number: int, client: str) -> None:
        threading.Thread(target=hand_back, args=[number, client, b"", Fault.LOST], daemon=True).start()

    return Relay


def answer_with(open_silo: Callable[[Any], "Silo"]) -> Any:
    """FLARE's executor at a site: answers through the silo that is opened with FLARE's context at the first task.

    What it raises, FLARE turns into no answer.
    """
    from nvflare.apis.event_type import EventType
    from nvflare.apis.executor import Executor
    from nvflare.apis.shareable import ReturnCode, Shareable, make_reply

    from flip.site.silo import load_libraries

    work, silos = threading.Event(), list["Silo"]()
    work.set()  # the first look for work needs no word

    class Answer(Executor):  # type: ignore[misc]
        def handle_event(self, event_type: str, fl_ctx: Any) -> None:
            """Before FLARE looks for work, wait until there is some."""
            if event_type == EventType.START_RUN:
                fl_ctx.get_engine().register_aux_message_handler(WORK, self.told)
            if event_type == EventType.BEFORE_PULL_TASK:
                work.wait(IDLE)
                work.clear()

        def told(self, topic: str, request: Any, fl_ctx: Any) -> Any:
            """The controller's word."""
            work.set()
            return make_reply(ReturnCode.OK)

        def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
            """Answer a task; to an empty one, say which process this is."""
            load_libraries()  # when the sites are met, so before their time counts
            blob = received(shareable, fl_ctx, SERVER)
            if not blob:
                return Shareable({BLOB: str(os.getpid()).encode()})
            if not silos:
                silos.append(open_silo(fl_ctx))
            if isinstance(blob, bytes):
                task = unpack_task(blob)
            else:
                task = unpack_task(mapped(blob))
                blob.unlink()
            return Shareable(packed(reply_parts(silos[0].answer(task)), fl_ctx))

    return Answer()
