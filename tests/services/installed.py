"""Real servers for tests, from Debian's packages: started by the tests, on this machine alone, gone afterwards."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = {"initdb": "postgresql", "Orthanc": "orthanc orthanc-dicomweb", "dciodvfy": "dicom3tools"}


def program(name: str, *folders: Path) -> Path:
    """A server's program. A test that needs a missing one is skipped, except in CI, where all are to run."""
    if found := shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, folders)])):
        return Path(found).resolve()
    reason = f"{name} is not installed: apt-get install {PACKAGES[name]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Poll until something is so. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} took more than {seconds:g} s")
        time.sleep(0.05)
