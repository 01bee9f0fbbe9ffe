"""The gate before everything of a SuperLink's: who may reach which of its interfaces, told by the headers alone.

Flower checks a site's key and signature too, but after it has taken the whole body into memory: anybody could fill the
server's. Here the body of a request is not read before its sender is known, and of a site's no more than it can need.
Contract checked against flwr 1.41.
"""

import hmac
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Scope = MutableMapping[str, Any]  # ASGI's, as are the next three
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
OPEN, GUARDED = "/v1/fleet/", "/v1/control/"  # what a site's key opens, and what our token does
PART = "/v1/fleet/push-object"
SHORT, LARGEST = 1 << 16, 1 << 31  # bytes of a site's request; of all at a time, and of a part, as protobuf has it
KEY = b"flwr-public-key"


@dataclass
class Body:
    """The body of a site's request: `most` bytes of it are read, and `LARGEST` of all that its key sends at a time."""

    receive: Receive
    most: int
    key: bytes
    reading: Counter[bytes]
    size: int = 0

    async def next(self) -> Scope:
        """The next piece; of too large a body it is said that who sends it has gone."""
        message = await self.receive()
        piece = len(message.get("body", b""))
        self.size += piece
        self.reading[self.key] += piece
        fits = self.size <= self.most and self.reading[self.key] <= LARGEST
        return message if fits else {"type": "http.disconnect"}


class Gate:
    """Middleware (ASGI).

    Args:
        app: what it stands before.
        token: what opens the interface for submitting studies.
        roster: the site that each public key, as Flower writes it, belongs to.
    """

    def __init__(self, app: App, token: str, roster: Mapping[bytes, str]) -> None:
        self.app, self.token, self.roster = app, f"Bearer {token}".encode(), roster
        self.reading = Counter[bytes]()  # bytes of the requests of each key that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or answer it with 403, its body unread."""
        if scope["type"] == "http" and not self.lets_in(scope):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b"not for you"})
            return
        if scope["type"] != "http" or not scope["path"].startswith(OPEN):
            await self.app(scope, receive, send)
            return
        most = LARGEST if scope["path"] == PART else SHORT
        body = Body(receive, most, dict(scope["headers"])[KEY], self.reading)
        try:
            await self.app(scope, body.next, send)
        finally:
            self.reading[body.key] -= body.size

    def lets_in(self, scope: Scope) -> bool:
        """Whether a request may come in: a site's, one with the token, or one of this machine's own processes."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["path"].startswith(OPEN):
            return self.signed(headers)
        if scope["path"].startswith(GUARDED):
            return hmac.compare_digest(headers.get(b"authorization", b""), self.token)
        client, server = (scope[end][0] if scope.get(end) else None for end in ("client", "server"))
        return client is not None and (client == server or client in ("127.0.0.1", "::1"))

    def signed(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a key of the roster has signed the time of a request, a few minutes ago at most: as Flower checks.

        Whom a node's number belongs to stands in the body, and is for Flower to check.
        """
        from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
        from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
        from flwr.supercore.date import now
        from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

        names = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
        key, signature, time = (headers.get(name.encode(), b"") for name in names)
        try:
            public = b64decode(key, validate=True)
            age = (now() - datetime.fromisoformat(time.decode("ascii"))).total_seconds()
            recent = -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
            return (
                recent
                and public in self.roster
                and verify_signature(bytes_to_public_key(public), time, b64decode(signature, validate=True))
            )
        except (ValueError, TypeError):  # no base64, no time, or one without a zone
            return False
