"""A site's end of a live federation over Flower: its connection to the SuperLink, beside the process that answers.

Both stay: what the site has loaded (data, model, Lightning) is there for the next task. This one speaks to the
SuperLink as Flower's own SuperNode does (`fleet.py`), and does two things otherwise. It runs no code that the server
sends, whereas a SuperNode runs the submitted app. And it looks for work as often as some is likely to come, whereas a
SuperNode sleeps 3 s between looks and starts a process per message.
"""

import os
import signal
import sys
import time
from pathlib import Path

from flip.federation.flower.fleet import RECONNECT, Link, NotLetIn, Unreachable, connection
from flip.federation.flower.messages import blob_of, pause
from flip.federation.kit import SITE_FILE, Kit
from flip.federation.silo_process import SiloProcess
from flip.text import printable

PATIENCE = 90.0  # seconds to be let in: one that was killed counts as present for 60 s, and is not let in twice


def main(folder: Path) -> int:
    """Answer the server's tasks until told to end; returns the exit status. Raises RuntimeError if none can be."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    kit = Kit.read(folder)
    name, address = str(kit.setting("site")), str(kit.setting("address"))
    silo, refused = SiloProcess(name, kit.folder / SITE_FILE), None
    silo.start()  # before the first task waits for it
    print(f"{name}: looking for the server at {address}", flush=True)
    while True:
        try:
            with connection(kit, address) as link:
                print(f"{name}: connected to {address}", flush=True)
                refused = None
                work(link, silo)
        except NotLetIn:
            if refused is None:
                refused = time.monotonic()
                print(
                    f"{name}: the server at {address} does not accept this site's key. If the site was killed within "
                    "the last minute, it is let in soon. Else its public half belongs into the server's kit, as "
                    f"sites/{name}.pub, and the server is to be started again",
                    flush=True,
                )
            elif time.monotonic() - refused > PATIENCE:
                return 1
        except Unreachable as lost:
            print(f"{name}: {lost}", flush=True)
        time.sleep(RECONNECT)


def work(link: Link, silo: SiloProcess) -> None:
    """Answer one task after the other, for ever. Raises Unreachable."""
    idle = time.monotonic()
    while True:
        try:
            if work_once(link, silo):
                idle = time.monotonic()
            else:
                time.sleep(pause(time.monotonic() - idle))
        except Unreachable:
            raise
        except RuntimeError as error:  # of this machine's making
            print(printable(str(error)), flush=True)
            time.sleep(RECONNECT)
        except Exception as error:  # of the server's making: it ends no site's process
            print(f"{silo.name}: a message that cannot be read was ignored: {printable(repr(error))}", flush=True)
            time.sleep(RECONNECT)


def work_once(link: Link, silo: SiloProcess) -> bool:
    """Answer the next task; whether there was one."""
    message = link.receive()
    if message is None:
        return False
    started = time.perf_counter()
    link.send(message, answer(silo, blob_of(message)), started)
    return True


def answer(silo: SiloProcess, blob: bytes) -> bytes:
    """What the site answers; nothing to a message that holds no task."""
    try:
        return b"".join(silo.answer(blob))
    except ValueError as error:
        print(f"{silo.name}: a message that holds no task was ignored: {printable(error)}", flush=True)
        return b""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
