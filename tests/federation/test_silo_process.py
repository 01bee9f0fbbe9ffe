"""A deployed site's process that hangs or crashes in a library's C: it is ended, the site says so, and goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flip.federation import silo_process
from flip.federation.flower.supernode import answer
from flip.federation.nvflare.components import Answer
from flip.federation.nvflare.files import BLOB
from flip.federation.silo_process import SiloProcess
from flip.messages import Fault, Reply, Task
from flip.messages.wire import pack_task, unpack_reply

SILO = """
import ctypes, os, signal, sys
from pathlib import Path

from flip.federation.silo_process import opened, serve
from flip.messages import Fault, Reply
from flip.site import bounds
from flip.site.log import site_log

bounds.GRACE = 0.2


class Silo:
    name, home = sys.argv[1], Path(sys.argv[2]).with_suffix("")
    log = site_log(name, home)

    def answer(self, task):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() if task.round else ())
        with bounds.time_limit(0.2, self.log, self.home):
            match task.stage:
                case "C that holds Python's lock":
                    ctypes.PyDLL(None).pause()
                case "C":
                    ctypes.CDLL(None).pause()
                case "crash":
                    ctypes.string_at(0)
        if task.stage == "cannot end itself":
            os.kill(os.getpid(), signal.SIGSTOP)
        return Reply(self.name, task.digest, os.getpid())

    def ended(self, task, how):
        self.log.error(how)
        return Reply(self.name, task.digest, fault=Fault.ENDED)


pipe = opened(sys.argv[3])
pipe.send_bytes(b"ready")
serve(pipe, Silo())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiloProcess]:
    """A site whose process does in C what a task's stage says."""
    file = tmp_path_factory.mktemp("kit") / "site.yaml"
    file.write_text("root: .\npolicy: {minimum_persons: 5, minimum_cell: 5, maximum_seconds: 1.0}\n")
    process = SiloProcess("kings", file, ["-c", SILO])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(silo_process, "GRACE", 1.0)
        yield process
    process.running.stop()


def over_flower(site: SiloProcess, stage: str) -> Reply:
    """The site's half of Flower."""
    return unpack_reply(answer(site, pack_task(Task("run", stage, 1, "fit", {}, {}, {}, "{}"))))


def over_nvflare(site: SiloProcess, stage: str) -> Reply:
    """The site's half of FLARE."""
    at_site = Answer(lambda _: site.answer)
    found = at_site.execute("flip", {BLOB: pack_task(Task("run", stage, 1, "fit", {}, {}, {}, "{}"))}, None, None)
    return unpack_reply(found[BLOB])


@pytest.mark.parametrize("stage", ["C that holds Python's lock", "C", "crash", "cannot end itself"])
@pytest.mark.parametrize("ask", [over_flower, over_nvflare])
def test_a_site_whose_process_hangs_or_crashes_in_c_says_so_and_answers_the_next_task(site, ask, stage):
    before = ask(site, "well").examples
    assert ask(site, stage).fault is Fault.ENDED
    after = ask(site, "well")
    assert (after.fault, after.examples == before) == (None, False)
    assert "its process ended (status " in Path(site.file.with_suffix(""), "site.log").read_text()
