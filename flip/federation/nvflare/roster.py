"""Whom FLARE's server lets in: who holds a key of its roster, whatever certificate the root has signed.

FLARE believes every certificate of its root, for as long as it is valid, and a token that it gave once for as long as
its own key is the same. Here the server's kit has a public key for each party (`sites/<site>.pub`, `admin.pub`): one
that is removed is out with its next message, one that is put there is let in, and the root's key alone lets nobody in.
A message is of whom its connection's certificate names. What it says of itself is not enough: FLARE signs name and
token as one text, so that a token of `site_10` is one of `site_1`, and the server's own is in every message it sends.
Contract: nvflare 2.9.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flip.config.site_file import SITE_NAME
from flip.federation.kit import ROSTER
from flip.federation.nvflare.session import USER
from flip.federation.requests import PublicKey, fingerprint

GUARD = f"{__name__}.guard"  # a part of the server's own, which no job may name
RESEARCHER = "admin.pub"  # in the server's kit, beside the sites' roster
OWN = "server"  # the name of FLARE's server among its processes; its process of a job is server.JOB
LONGEST = 80  # letters of a name in the log
LOOPBACK = "127.0.0.1:"  # how the other end of an internal connection begins; one that came in by gRPC says ipv4:


class Message(Protocol):
    """FLARE's message."""

    payload: object

    def get_header(self, key: str) -> object:
        """What it says of itself."""

    def get_prop(self, key: str) -> object:
        """What its receiver knows of it."""


class Endpoint(Protocol):
    """Where FLARE got a message from."""

    name: str
    conn_props: Mapping[str, str]


class Server(Protocol):
    """FLARE's server."""

    logger: logging.Logger


def guard(kit: str) -> object:
    """A part of FLARE's server; made before the server listens, it puts the roster before every message."""
    from nvflare.apis.fl_component import FLComponent
    from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessagePropKey, ReturnCode
    from nvflare.fuel.f3.cellnet.utils import make_reply
    from nvflare.private.defs import CellMessageHeaderKeys
    from nvflare.private.fed.server.fed_server import FederatedServer

    roster = Roster(Path(kit))
    registered, checked = FederatedServer.register_client, FederatedServer._validate_auth_headers

    def refused(server: Server, name: object) -> object:
        said = ascii(name)[:LONGEST]
        server.logger.warning(f"{said} is not let in: its key is not in the roster of this server's kit, {ROSTER}/")
        return make_reply(ReturnCode.UNAUTHENTICATED, error=f"its key is not in the server's roster ({ROSTER}/)")

    def register_client(self: Server, request: Message) -> object:
        name = request.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        certificate = request.payload.get(IdentityChallengeKey.CERT) if isinstance(request.payload, dict) else None
        return registered(self, request) if roster.holds(name, certificate) else refused(self, name)

    def validate(self: Server, message: Message) -> object:
        name = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        itself = name == message.get_prop(MessagePropKey.COMMON_NAME) and roster.key(name) is not None
        if name is None or itself or registers(message) or own(message):
            return checked(self, message)
        return refused(self, name)

    FederatedServer.register_client, FederatedServer._validate_auth_headers = register_client, validate
    return FLComponent()


def registers(message: Message) -> bool:
    """Whether a message asks the server to be let in, which is answered, so that who is refused hears why."""
    from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
    from nvflare.private.defs import CellChannel, CellChannelTopic

    keys = MessageHeaderKey.DESTINATION, MessageHeaderKey.CHANNEL, MessageHeaderKey.TOPIC
    return [message.get_header(key) for key in keys] == [OWN, CellChannel.SERVER_MAIN, CellChannelTopic.Register]


def own(message: Message) -> bool:
    """Whether a message is of the server itself or of its process of a job.

    What such a message says of itself shows nothing: the server's token is in every message that it sends.
    """
    from nvflare.fuel.f3.cellnet.defs import MessagePropKey
    from nvflare.fuel.f3.drivers.driver_params import DriverParams

    came = cast(Endpoint, message.get_prop(MessagePropKey.ENDPOINT))
    if came.name == OWN:  # FLARE lets no connection have it
        return True
    inside = str(came.conn_props.get(DriverParams.PEER_ADDR.value)).startswith(LOOPBACK)
    return came.name.startswith(f"{OWN}.") and inside and message.get_prop(MessagePropKey.COMMON_NAME) == OWN


class Roster:
    """The public keys in a server's kit, read each time."""

    def __init__(self, kit: Path) -> None:
        self.kit = kit

    def key(self, name: object) -> bytes | None:
        """The public key (PEM) of a site or of the researcher; None of anybody else."""
        if name == USER:
            path = self.kit / RESEARCHER
        elif isinstance(name, str) and SITE_NAME.fullmatch(name):
            path = self.kit / ROSTER / f"{name}.pub"
        else:
            return None
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def holds(self, name: object, certificate: object) -> bool:
        """Whether a certificate (PEM) is of the key of that name; that its holder has the key, FLARE asks next."""
        known = self.key(name)
        if known is None or not isinstance(certificate, bytes):
            return False
        try:
            shown, mine = x509.load_pem_x509_certificate(certificate).public_key(), load_pem_public_key(known)
        except ValueError:
            return False
        return isinstance(shown, PublicKey) and isinstance(mine, PublicKey) and fingerprint(shown) == fingerprint(mine)
