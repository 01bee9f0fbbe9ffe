"""A hospital's machine that somebody else controls: its own processes do what they should not, from inside.

`compromise` makes a folder for the PYTHONPATH of a site's start command. Every Python of that site then begins by
bending the engine's own `Steps`, and the functions with which that site's process sends. What it does wrong is what the
file `misdeed` in that folder says when a fit begins, or a task comes; nothing while there is no such file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.federation.faulty_site import SPOIL

MARKER = "MARKER-OF-A-PATIENT-AT-THE-COMPROMISED-SITE"

STARTS = '''
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from flip.federation.silo_process import SiloProcess
from flip.site.steps import Steps

PLACE = Path(__file__).parent
honest, first, handed_on = Steps.fit, [], SiloProcess.answer


def wanted():
    try:
        return (PLACE / "misdeed").read_text()
    except FileNotFoundError:
        return None


def fit(self, task):
    misdeed = wanted()
    if misdeed == "raise":
        raise RuntimeError("MARKER")
    while misdeed == "slow" and wanted() == "slow":
        time.sleep(0.05)
    reply = honest(self, task)
    first.append(reply)
    del first[1:]
    weights = dict(reply.weights)
    spoil(weights, misdeed)
    return first[0] if misdeed == "old" else replace(reply, weights=weights)


def send_twice():
    """From here on this process sends every reply twice, as long as it is to."""
    if "nvflare.private.fed.client.communicator" in sys.modules:
        place, name = sys.modules["nvflare.private.fed.client.communicator"].Communicator, "submit_update"
    else:
        place, name = sys.modules["flip.federation.flower.fleet"].Link, "send"
    once = getattr(place, name)
    if once.__name__ == "again":
        return

    def again(*arguments, **named):
        sent = once(*arguments, **named)
        if wanted() == "twice":
            once(*arguments, **named)
            with (PLACE / "sent twice").open("a") as file:
                file.write("x")
        return sent

    setattr(place, name, again)


def announce_alone():
    """From here on this process announces its replies to Flower's server without sending them, as long as it is to."""
    from flwr.supercore.inflatable import inflatable_utils

    send = inflatable_utils.push_objects
    if send.__name__ != "announced":

        def announced(*arguments, **named):
            return None if wanted() == "half" else send(*arguments, **named)

        inflatable_utils.push_objects = announced


def answer(self, task):
    if wanted() == "twice":
        send_twice()
    if wanted() == "half":
        announce_alone()
    return handed_on(self, task)


Steps.fit = fit
SiloProcess.answer = answer
'''


@dataclass(frozen=True)
class Compromised:
    """What controls the site, from outside."""

    folder: Path

    @contextmanager
    def doing(self, misdeed: str) -> Iterator[None]:
        """Have the site do something wrong in each fit that begins during the block."""
        file = self.folder / "misdeed"
        written = file.with_suffix(".new")
        written.write_text(misdeed)
        written.rename(file)
        try:
            yield
        finally:
            file.unlink()

    def sent_twice(self) -> int:
        """How many replies it has sent twice."""
        file = self.folder / "sent twice"
        return file.stat().st_size if file.exists() else 0


def compromise(folder: Path) -> Compromised:
    """Make the folder."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STARTS.replace("MARKER", MARKER) + SPOIL)
    return Compromised(folder)
