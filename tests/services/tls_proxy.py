"""A proxy that ends TLS before a server that speaks none, as hospitals put one before their PACS."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.installed import free_port


@contextmanager
def running(certificate: Path, behind: int) -> Iterator[int]:
    """The port at which it listens; what arrives goes to the loopback port `behind`, and back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),  # a client that does not trust us hangs up
                context.wrap_socket(self.request, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", behind)) as inside,
            ):
                back = threading.Thread(target=_copy, args=(inside, outside))
                back.start()
                _copy(outside, inside)
                back.join()

    port = free_port()
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Relay) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield port
        finally:
            server.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
