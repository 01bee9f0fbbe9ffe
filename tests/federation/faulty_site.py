"""Studies whose sites misbehave for real: a researcher's own package that runs at every site, and a plan per site.

The package's strategy looks, in its site's half, into the site's own home for `plan.json` ({round: misdeed}). So a site
raises, hangs, or spoils what it sends, in its own process, in the same way on every backend; what a site's own code
cannot do, a compromised process does (`old` and `twice` bend the functions with which that one process sends).
Everything else (signals, full disks, a network that is down) a test does to these processes from outside.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cohorts.heart import HOSPITALS, write_tiny_heart
from tests.own_parts import PARTS
from tests.processes import Family

SPOIL = '''

def spoil(weights, misdeed):
    """Make of weights what no site should send."""
    name = min(weights)
    match misdeed:
        case "nan" | "inf":
            weights[name] = np.full_like(weights[name], float(misdeed))
        case "shape":
            weights[name] = np.zeros((*weights[name].shape, 2), weights[name].dtype)
        case "missing":
            del weights[name]
        case "dtype":
            weights[name] = weights[name].astype(np.float64)
'''
"""What a site's process does to its weights, here and where its machine is compromised (`compromised_site.py`)."""

STRATEGY = '''

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np


class Late(Data):
    """Cannot be read at a site while the file `late` lies beside its table; the coordinator's process is no site."""

    def __init__(self, root: str, columns: dict | None = None, trains: bool = True, *, batch_size: int = 4):
        late = Path(root).parent / "late"  # without a root where the study alone is checked
        while late.exists() and late.read_text() != str(os.getpid()):
            time.sleep(0.05)
        super().__init__(root, columns, trains, batch_size=batch_size)

    def persons(self):
        Slow.hang(self, "check")
        return super().persons()

    def setup(self, stage=None):
        if Path("run/run.yaml").exists():  # not where the study is checked
            Slow.hang(self, "statistics")
        return super().setup(stage)


class Slow(Model):
    """Hangs in a step of Lightning's Trainer, which its hook asks for. `HANGS` is the step."""

    def hang(self, name):
        if os.environ.get("HANGS") == name and Path(os.environ.get("HANGS_ONCE_THERE_IS", "/")).exists():
            (Path(tempfile.gettempdir()) / "hangs").touch()
            while True:
                time.sleep(0.05)

    def on_train_batch_start(self, batch, batch_idx):
        self.hang("fit")

    def test_step(self, batch, batch_idx):
        self.hang("test")
        return super().test_step(batch, batch_idx)


class Diary:
    """A tracker: notes its own beginning and end, or hangs there."""

    def __init__(self):
        self.hang = partial(Slow.hang, self)

    def start(self, run):
        self.hang("tracker")
        (run / "diary").write_text("started")

    def line(self, record):
        pass

    def finish(self, run, result):
        (run / "diary").write_text(result["status"])
        self.hang("end")


class Attempting(Diary):
    """Has the coordinator, in whose process it is, make attempts at the policy of `site`, and tell of them."""

    def __init__(self, site: str, other: str, tells: str):
        super().__init__()
        self.where = (site, other, Path(tells))

    def start(self, run):
        from tests.federation.attempts import bend_loop

        bend_loop(run, *self.where)


@dataclass
class Faulty(FedAvg):
    def before_fit(self, local, task):
        self.home = local.store.folder.parents[1]
        plan = self.home / "plan.json"
        self.misdeed = json.loads(plan.read_text()).get(str(task.round)) if plan.exists() else None
        if self.misdeed == "raise":
            raise RuntimeError("MARKER-OF-THIS-SITE: a patient's name")
        if self.misdeed == "hang":
            (self.home / "hangs").write_text(str(os.getpid()))
            while not (self.home / "released").exists():
                time.sleep(0.05)

    def after_fit(self, local, before, after):
        state = super().after_fit(local, before, after)
        spoil(after, self.misdeed)
        match self.misdeed:
            case "old":
                answer_with(max(self.home.glob("state/*/replies/*"), key=lambda path: path.stat().st_mtime_ns))
            case "twice":
                send_twice(self.home / "sent twice")
        return state


def answer_with(file):
    """This process is compromised: in place of the reply that it has made, it sends an earlier one."""
    from flip.site import silo
    from flip.messages.wire import unpack_reply

    honest = silo.replace

    def replace(reply, **changes):
        silo.replace = honest
        return unpack_reply(file.read_bytes())

    silo.replace = replace


def send_twice(proof):
    """This process is compromised: from here on it sends every message twice."""
    if "nvflare.private.fed.client.communicator" in sys.modules:
        from nvflare.private.fed.client.communicator import Communicator

        once = Communicator.submit_update

        def submit_update(*arguments, **named):
            once(*arguments, **named)
            proof.touch()
            return once(*arguments, **named)

        Communicator.submit_update = submit_update
    else:
        from multiprocessing.connection import Connection

        send = Connection.send_bytes
        sent = []

        def send_bytes(self, part):
            send(self, part)
            sent.append(part)
            if len(sent) == 2:  # the head and the reply
                for each in sent:
                    send(self, each)
                sent.clear()
                proof.touch()

        Connection.send_bytes = send_bytes
'''

EXPERIMENT = """
# @package _global_
# A study whose sites misbehave.
name: faulty
allow_targets: [faulty.]
dataset: {_target_: faulty.parts.Late, batch_size: 4}
model:
  _target_: faulty.parts.Model
  width: 4
  optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}
strategy: {_target_: faulty.parts.Faulty, min_sites: 1, rounds: 2}
trainer: {steps: 3}
baselines: {alone: false, centralized: false}
"""

HANGS = "hangs"  # the file by which what hangs says so

Plan = Mapping[str, Mapping[int, str]]


@dataclass
class Faulty:
    """A study in a folder: its sites' data, its package and its configuration, and the run in `folder/run`.

    Args:
        folder: an empty folder of the test's.
        temporary: where its temporary files go; a short name, for the sockets of Ray.
        plan: by site, the misdeed of each round (from 0).
    """

    folder: Path
    temporary: Path
    plan: Plan

    def __post_init__(self) -> None:
        package, conf = self.folder / "packages" / "faulty", self.folder / "conf"
        for folder in (package, conf / "experiment", conf / "sites", self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "parts.py").write_text(PARTS + STRATEGY + SPOIL)
        (conf / "experiment" / "faulty.yaml").write_text(EXPERIMENT)
        rows = write_tiny_heart(self.folder / "rows") / "uci_heart" / f"processed.{next(iter(HOSPITALS))}.data"
        for site, misdeeds in self.plan.items():
            self.data(site).mkdir(parents=True)
            (self.data(site) / "table.data").write_bytes(rows.read_bytes())
            settings = f"# @package sites.{site}\nroot: {self.data(site) / 'table.data'}\npolicy: public_data\n"
            (conf / "sites" / f"{site}.yaml").write_text(settings)
            self.home(site).mkdir(parents=True)
            (self.home(site) / "plan.json").write_text(json.dumps(misdeeds))

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    def data(self, site: str) -> Path:
        """The folder of a site's table."""
        return self.folder / "data" / site

    def home(self, site: str) -> Path:
        """The folder in which a site keeps its log and state."""
        return self.run / "sites" / site

    def withhold(self, site: str, coordinator: int) -> None:
        """Keep a site's data from being read, except by the process that checks the study."""
        (self.data(site) / "late").write_text(str(coordinator))

    def hand_over(self, site: str) -> None:
        """Let the site read its data."""
        (self.data(site) / "late").unlink()

    def hangs(self) -> bool:
        """Whether something hangs, which says so where it may write: among its own process's temporary files."""
        return any(HANGS in names for _, _, names in os.walk(self.temporary))

    def temporary_files(self) -> list[str]:
        """What lies where temporary files go, but for that word and the empty cache that torch's import makes."""
        return [path.name for path in self.temporary.iterdir() if not path.name.startswith(("torchinductor_", HANGS))]

    def arguments(self, *overrides: str) -> list[str]:
        """The words of its command line."""
        words = ["--config-dir", str(self.folder / "conf"), "experiment=faulty", f"sites=[{','.join(self.plan)}]"]
        return [*words, f"hydra.run.dir={self.run}", *overrides]

    @contextmanager
    def running(self, *overrides: str, before: tuple[str, ...] = (), **environment: str) -> Iterator["Running"]:
        """`python -m flip` on the study, behind the words of `before`; killed at the end of the block if it has not."""
        words = [*before, sys.executable, "-m", "flip", *self.arguments(*overrides)]
        paths = os.pathsep.join([str(self.folder / "packages"), os.environ.get("PYTHONPATH", "")])
        settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary), "COLUMNS": "200"}
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                words, cwd=self.folder, env={**os.environ, **settings, **environment}, stdout=out, stderr=err
            )
        with process, Family(process.pid) as family:
            try:
                yield Running(self, process, family)
            finally:
                process.kill()


@dataclass
class Running:
    """A study that runs."""

    study: Faulty
    process: "subprocess.Popen[bytes]"
    family: Family

    def wait(self, happened: Callable[[], Any], seconds: float = 400) -> Any:
        """Wait until something is true, and return it. Fails when the study ends before, or the time is over."""
        deadline = time.monotonic() + seconds
        while not (found := happened()):
            ended = self.process.poll() is not None and not happened()
            assert not ended, f"the study ended before: {self.err}{self.text('out')}"
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.1)
        return found

    def end(self, seconds: float = 400) -> int:
        """Wait for the study's end; returns its exit status."""
        return self.process.wait(seconds)

    def hanging(self, site: str) -> int:
        """The process of a site, once it hangs."""
        file = self.study.home(site) / "hangs"
        return int(self.wait(lambda: file.exists() and file.read_text()))

    def kill(self, site: str) -> None:
        """Kill the process of a site that hangs, in the midst of its fit. It does not hang in its next fit."""
        os.kill(self.hanging(site), signal.SIGKILL)
        self.release(site)

    def release(self, site: str) -> None:
        """Let a site that hangs go on."""
        (self.study.home(site) / "released").touch()

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of `rounds.jsonl` so far."""
        file = self.study.run / "rounds.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def faults(self, site: str, phase: str = "fit") -> list[str | None]:
        """What was written down of a site, by round."""
        return [line["fault"] for line in self.lines() if (line["site"], line["phase"]) == (site, phase)]

    @property
    def result(self) -> dict[str, Any]:
        """What the run wrote as its result."""
        found: dict[str, Any] = json.loads((self.study.run / "result.json").read_text())
        return found

    @property
    def report(self) -> str:
        """The run's report."""
        return (self.study.run / "report.html").read_text()

    def text(self, name: str) -> str:
        """What the command line printed (`out` or `err`)."""
        return (self.study.folder / name).read_text(errors="replace")

    @property
    def err(self) -> str:
        """What the command line printed as errors."""
        return self.text("err")
