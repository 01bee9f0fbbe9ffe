"""The researcher's end of FLARE's session with a provisioned server. Contract checked against nvflare 2.9."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flip.errors import StudyFailed

LINGER = 60.0  # seconds more that FLARE has to begin and to end a job; it takes 5 and 10 on a machine at rest
TRY = 5.0  # seconds that FLARE has to connect, each time that we try
USER = "researcher@flip.org"  # FLARE's name of the researcher; FLARE wants the form of an address
Answer = TypeVar("Answer")


@dataclass
class Session:
    """FLARE's session, opened again when it breaks, for at most `timeout` seconds.

    Raises StudyFailed when the server cannot be reached, or refuses us.
    """

    kit: Path
    timeout: float
    session: Any = None
    since: Any = None  # when the server was started, as it says

    def connect(self) -> None:
        """Open a session; one with a server that was restarted since the last has lost the job."""
        place, deadline = self.address(), time.monotonic() + self.timeout
        while (started := self.opened(place)) is None:
            if time.monotonic() > deadline:
                raise StudyFailed(
                    f"FLARE's server at {place} did not answer within federation.timeout={self.timeout:g} s; is it "
                    "started (python -m flip start kits/server), and does it know this kit? Kits work "
                    "together only if they were made together"
                )
        if self.since not in (None, started):
            raise StudyFailed(
                "FLARE's server was restarted, and the job with it has ended; python -m flip resume=RUN goes on from "
                "the last complete round"
            )
        self.since = started

    def address(self) -> str:
        """Host and port of the server, as the kit names them."""
        file = self.kit / "startup" / "fed_admin.json"
        if not file.is_file():
            raise StudyFailed(
                f"federation.kit={self.kit}: holds no researcher's kit; python -m flip deploy nvflare sites=... "
                "out=kits/ makes one, kits/admin"
            )
        server = json.loads(file.read_text())["admin"]
        return f"{server['host']}:{server['port']}"

    def opened(self, place: str) -> Any:
        """Try once; gives the time of the server's start, None when it does not answer."""
        from nvflare.apis.fl_exception import FLCommunicationError
        from nvflare.fuel.flare_api.api_spec import (
            AuthenticationError,
            AuthorizationError,
            InternalError,
            NoReply,
            SessionClosed,
        )
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        away = (ConnectionError, InternalError, NoReply, SessionClosed, FLCommunicationError, RuntimeError)
        try:
            self.session = new_secure_session(USER, str(self.kit), timeout=min(TRY, self.timeout))
            return self.session.get_system_info().server_info.start_time
        except (AuthenticationError, AuthorizationError) as error:
            raise StudyFailed(f"FLARE's server at {place} refuses the kit {self.kit}: {error}") from error
        except away:
            self.close()
            return None

    def call(self, command: Callable[[Any], Answer]) -> Answer:
        """Give the session a command; where the session is gone, open another.

        Raises StudyFailed where the server takes each session, and does not answer this command within `timeout` and
        `LINGER`: as where it waits itself for a job's process that stands still.
        """
        from nvflare.fuel.flare_api.api_spec import NoConnection, SessionClosed

        deadline = time.monotonic() + self.timeout + LINGER
        while True:
            try:
                return command(self.session)
            except (NoConnection, SessionClosed) as error:
                self.close()
                if time.monotonic() > deadline:
                    raise StudyFailed(
                        f"FLARE's server at {self.address()} takes a session and has not answered within "
                        f"{self.timeout + LINGER:g} s; see the log in its kit"
                    ) from error
                self.connect()

    def close(self) -> None:
        """Leave the server."""
        if self.session is not None:
            with suppress(Exception):  # a server that has gone cannot be told
                self.session.close()
            self.session = None
