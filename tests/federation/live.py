"""A live federation on this machine as a hospital network would be: the real commands, each in a place of its own.

Where the machine lets us (root, iproute2), every party has a network namespace of its own, joined by a bridge, and a
mount namespace of its own in which the other parties' folders are empty. Otherwise all share loopback and see separate
folders. Nothing here knows the backend: kits are started with `python -m flip start`, studies with `python -m
flip`.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flip.processes import descendants, has_variable, running
from tests.commands import Finished

MARK = "FLIP_TEST_DEPLOYMENT"  # in the environment of every process of a deployment
GRACE = 30.0  # seconds that a stopped party has to be gone


def namespaces() -> bool:
    """Whether this machine lets us make network namespaces and mounts."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    name = f"flip-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    try:
        probe = ["ip", "netns", "exec", name, "unshare", "-m", "true"]
        return made and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    finally:
        if made:
            subprocess.run(["ip", "netns", "del", name], check=True)


@dataclass
class Deployment:
    """Kits that run as processes of their own.

    Args:
        work: folder for what the parties print (`<party>.txt`).
        parties: `server` first, then the sites.
        separate: whether each party has its own network and mount namespace.

    Use as a context manager: leaving it ends and removes everything.
    """

    work: Path
    parties: Sequence[str]
    separate: bool = field(default_factory=namespaces)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    hidden: dict[str, list[Path]] = field(default_factory=dict)

    def __enter__(self) -> "Deployment":
        self.work.mkdir(parents=True, exist_ok=True)
        if self.separate:
            self._network()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop_all()
        if self.separate:
            for party in ("switch", *self.parties):
                subprocess.run(["ip", "netns", "del", self._namespace(party)], capture_output=True, check=False)

    # The network: a bridge in a namespace of its own, a pair of interfaces for each party.

    def _namespace(self, party: str) -> str:
        return f"flip-{self.mark[:8]}-{party}"

    def _network(self) -> None:
        def ip(*words: str) -> None:
            subprocess.run(["ip", *words], check=True, capture_output=True)

        switch = self._namespace("switch")
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, party in enumerate(self.parties):
            own = self._namespace(party)
            ip("netns", "add", own)
            ip("-n", switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", switch, "link", "set", f"p{number}", "master", "bridge", "up")
            ip("-n", own, "addr", "add", f"{self.address(party)}/24", "dev", "eth0")
            ip("-n", own, "link", "set", "eth0", "up")
            ip("-n", own, "link", "set", "lo", "up")

    def address(self, party: str = "server") -> str:
        """The address that the other parties reach a party at."""
        return f"10.66.0.{self.parties.index(party) + 1}" if self.separate else "127.0.0.1"

    def network(self, party: str, *, up: bool) -> None:
        """Take a party off the network, or put it back; only with namespaces."""
        assert self.separate, "without network namespaces a party cannot be cut off"
        port = f"p{self.parties.index(party)}"
        command = ["ip", "-n", self._namespace("switch"), "link", "set", port, "up" if up else "down"]
        subprocess.run(command, check=True)

    # The processes.

    def hide(self, party: str, *folders: Path) -> None:
        """Let a party find these folders empty; only with namespaces, and for what it starts from now on."""
        self.hidden.setdefault(party, []).extend(folders)

    def inside(self, party: str, command: Sequence[str]) -> list[str]:
        """A command as it runs in a party's place."""
        if not self.separate:
            return list(command)
        mounts = [f"mount -t tmpfs -o size=64k,mode=755 none {shlex.quote(str(each))}"
                  for each in self.hidden.get(party, [])]  # fmt: skip
        script = " && ".join([*mounts, 'exec "$@"'])
        place = ["ip", "netns", "exec", self._namespace(party), "unshare", "-m", "sh", "-c", script, party]
        return [*place, *command]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What every process of the deployment has in its environment."""
        return {**os.environ, "OMP_NUM_THREADS": "1", MARK: self.mark, "COLUMNS": "200", **(extra or {})}

    def start(self, party: str, kit: Path, **environment: str) -> None:
        """`python -m flip start KIT` in a party's place."""
        with (self.work / f"{party}.txt").open("ab") as output:
            self.running[party] = subprocess.Popen(
                self.inside(party, [sys.executable, "-m", "flip", "start", str(kit)]),
                cwd=self.work,
                env=self.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def flip(self, folder: Path, *arguments: str, seconds: int = 300, **environment: str) -> Finished:
        """`python -m flip ARGUMENTS` in the server's place, from a folder."""
        return self.finish(self.begin(folder, *arguments, **environment), folder, seconds)

    def begin(self, folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """The same, without waiting for its end: for `finish`."""
        return subprocess.Popen(
            self.inside("server", [sys.executable, "-m", "flip", *arguments]),
            cwd=folder,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]", folder: Path, seconds: int = 300) -> Finished:
        """Wait for a command line's end."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Finished(process.returncode, out, err, folder)

    def said(self, party: str) -> str:
        """What a party has printed."""
        path = self.work / f"{party}.txt"
        return path.read_text() if path.exists() else ""

    def processes(self, party: str | None = None) -> list[int]:
        """The processes of the deployment, or those that came of one party's start command."""
        known = running()
        if party is not None:
            first = self.running[party].pid
            known = [first, *descendants(first)]
        return sorted(pid for pid in known if has_variable(pid, MARK, self.mark))

    def stop(self, party: str, number: int = signal.SIGTERM) -> int:
        """Tell a party to end, as its operator would; returns its exit status."""
        process = self.running.pop(party)
        process.send_signal(number)
        return process.wait(GRACE)

    def kill(self, party: str) -> None:
        """SIGKILL to every process of a party at once, as when the power fails."""
        for pid in self.processes(party):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.running.pop(party).wait(GRACE)

    def stop_all(self) -> None:
        """End every party; what does not end in time is killed."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.running.values():
            process.wait(GRACE)
        self.running.clear()


def until(what: Callable[[], object], seconds: float, why: str = "") -> None:
    """Wait until something holds. Raises AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, why or f"not within {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
