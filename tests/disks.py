"""Small disks that can be filled, for tests that run as root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of this size on a folder, with what lay in it."""
    before = folder.with_name(f"{folder.name}.before")
    shutil.copytree(folder, before)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        shutil.rmtree(before)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write a file until the disk is full."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
