"""FLARE's controller of ours: it has FLARE carry what the loop asks over the bridge, and hands back what sites answer.

An idle client looks for work twice a second; so that no round waits for this, the controller tells it that there is
some (an auxiliary message of FLARE's). Contract: nvflare 2.9.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.federation.nvflare.components import POLL, TASK, WORK
from flip.federation.nvflare.files import Limits, offered, received
from flip.messages import Fault

if TYPE_CHECKING:
    from nvflare.apis.signal import Signal

SECOND = 1.0  # seconds between looks at what is not asked over the bridge
SETTLING = 15.0  # seconds from the beginning of a job for which a question waits for its client to be there


def relay_over(bridge: Connection) -> Any:
    """The class of FLARE's controller over a bridge."""
    from nvflare.apis.impl.controller import Controller

    class RelayController(Relay, Controller):  # type: ignore[misc]
        def __init__(self) -> None:
            Controller.__init__(self)
            Relay.__init__(self, bridge)

    return RelayController


class Answers:
    """What goes back over the bridge: answers and losses, from threads of their own, never mixed."""

    def __init__(self, bridge: Connection) -> None:
        self.bridge = bridge
        self.turn = threading.Lock()

    def hand_back(self, number: int, client: str, answer: bytes | Path, fault: Fault | None = None) -> None:
        """One answer to a question, as bytes or as the file that holds it, or why there is none."""
        file = str(answer) if isinstance(answer, Path) else None
        with self.turn, suppress(OSError):
            self.bridge.send_bytes(json.dumps([number, client, fault.name if fault else None, file]).encode())
            self.bridge.send_bytes(b"" if isinstance(answer, Path) else answer)

    def lose(self, number: int, client: str) -> None:
        """There will be no answer to a question. A full bridge does not hold up who says so."""
        threading.Thread(target=self.hand_back, args=[number, client, b"", Fault.LOST], daemon=True).start()


class Relay:
    """The controller's part that is ours; FLARE's `Controller` is its other base.

    Only `control_flow` reads the bridge, and it never writes there: a full bridge cannot stop it.
    """

    logger: logging.Logger  # this and the next three are FLARE's
    send: Callable[..., None]
    cancel_task: Callable[..., None]
    get_client_disconnect_time: Callable[[str], float | None]

    def __init__(self, bridge: Connection) -> None:
        self.questions = bridge
        self.answers = Answers(bridge)
        self.standing: dict[str, Any] = {}  # FLARE's task of each client that has a question
        self.fetching: dict[str, Signal] = {}  # by client, what ends the fetching of its last answer

    def start_controller(self, fl_ctx: object) -> None:
        """FLARE wants it, as it wants `stop_controller`; there is nothing to prepare or to put away."""

    stop_controller = start_controller

    def control_flow(self, abort_signal: "Signal", fl_ctx: Any) -> None:
        """For each question a task for its client, in place of one that the loop has given up, and a word of it.

        When a job begins, a client may still be busy with the end of the one before, and joins a little later.
        """
        engine, looked, began = fl_ctx.get_engine(), -SECOND, time.monotonic()
        early = dict[str, tuple[int, str, int]]()
        while not abort_signal.triggered:
            if time.monotonic() - looked >= SECOND:
                self.each_second(engine)
                looked = time.monotonic()
            if self.questions.poll(POLL if early else SECOND):
                try:
                    number, client, task, most = json.loads(self.questions.recv_bytes())
                except (EOFError, OSError):
                    return
                early[client] = number, task, most
            for client, question in list(early.items()):
                if engine.get_client_from_name(client) or time.monotonic() - began > SETTLING:
                    del early[client]
                    self.ask(client, question, fl_ctx)

    def ask(self, client: str, question: tuple[int, str, int], fl_ctx: Any) -> None:
        """Have FLARE carry one question. What still comes of the client's answer to the one before is not wanted."""
        from nvflare.apis.controller_spec import Task
        from nvflare.apis.shareable import Shareable

        engine, (number, task, most) = fl_ctx.get_engine(), question
        if client in self.standing:
            self.cancel_task(self.standing.pop(client))
        if client in self.fetching:
            self.fetching.pop(client).trigger(True)
        if engine.get_client_from_name(client) is None or self.get_client_disconnect_time(client):
            self.answers.lose(number, client)
            return
        try:
            data = Shareable(offered(Path(task), fl_ctx) if task else {})
        except FileNotFoundError:  # the loop has given the question up
            return
        self.standing[client] = Task(
            TASK, data, props={"number": number, "most": most}, result_received_cb=self.answered
        )
        self.send(self.standing[client], fl_ctx, targets=[client])
        engine.send_aux_request([client], WORK, Shareable(), 0.0, fl_ctx, optional=True)

    def each_second(self, engine: Any) -> None:
        """What there is to do about once a second, between questions."""

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """A client that FLARE has lost answers nothing more."""
        from nvflare.apis.event_type import EventType
        from nvflare.apis.fl_constant import FLContextKey

        if event_type == EventType.CLIENT_DISCONNECTED:
            client = fl_ctx.get_prop(FLContextKey.DISCONNECTED_CLIENT_NAME)
            if client in self.standing:
                self.answers.lose(self.standing[client].props["number"], client)

    def answered(self, client_task: Any, fl_ctx: object) -> None:
        """One answer."""
        from nvflare.apis.controller_spec import TaskCompletionStatus
        from nvflare.apis.signal import Signal

        props, client, result = client_task.task.props, client_task.client.name, client_task.result
        client_task.result = None
        self.cancel_task(client_task.task, completion_status=TaskCompletionStatus.OK)
        self.fetching[client] = Signal()
        limits = Limits(props["most"], self.fetching[client])
        threading.Thread(target=self.fetch, args=[props["number"], client, result, limits, fl_ctx], daemon=True).start()

    def fetch(self, number: int, client: str, result: Any, limits: Limits, fl_ctx: Any) -> None:
        """The answer itself, which may take its time to come, beside what FLARE does meanwhile."""
        try:
            answer = received(result, fl_ctx, client, limits)
        except Exception as error:  # whatever a client sent: it is no answer, and the loop must hear of it
            self.logger.warning(f"{error}")
            answer = b""
        self.answers.hand_back(number, client, answer)
