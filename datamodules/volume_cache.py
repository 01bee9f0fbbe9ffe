"""Decoded and transformed images on disk, so that they are decoded once: by one round, run or process for all others.

An entry is a safetensors file. MONAI's PersistentDataset keeps pickles (`torch.save`), and a pickle runs what whoever
can write to the folder put into it; besides, it has no bound, and two of its writers can meet in one file. Here:

- A key is a digest of the files that an entry was made from (name, size, times, inode), of the settings that made it
  and of the code of this package: a changed file, setting or version is another key. No DICOM file is opened for it.
- An entry appears whole or not at all: it is written under another name and renamed. What a killed writer leaves is
  never read, and is removed by the next one.
- The folder stays within its bound: the entries that were not read for longest go first. A process that is reading one
  of them still has it to the end.
- Only the owner may read it (mode 700 and 600): these are patients' images.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Arrays = dict[str, NDArray[Any]]
ENTRY, PARTIAL = ".safetensors", ".part"
GIGABYTE = 10**9


class VolumeCache:
    """A folder of arrays by key.

    Args:
        folder: where the entries are; it is made where it is absent, and may be shared by processes and cohorts.
        gigabytes: the most that it may hold, above 0.
    """

    def __init__(self, folder: str | Path, gigabytes: float) -> None:
        if not gigabytes > 0:
            raise ValueError(f"cache.gigabytes={gigabytes}: must be above 0; leave out cache.folder for no cache")
        self.folder, self.most = Path(folder), int(gigabytes * GIGABYTE)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def arrays(self, files: Iterable[Path], settings: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The entry of these files and settings; made and kept where there is none.

        `settings` are plain values. What `make` raises is passed on, and nothing is kept.
        """
        key = digest(files, settings)
        found = self.read(key)
        if found is None:
            found = make()
            self.write(key, found)
        return found

    def read(self, key: str) -> Arrays | None:
        """An entry, or None where there is none; it then counts as the last one used."""
        path = self.folder / (key + ENTRY)
        try:
            found: Arrays = load(path.read_bytes())
        except (FileNotFoundError, SafetensorError):  # a damaged one counts for nothing, and is written again
            return None
        with suppress(FileNotFoundError):  # another process has just removed it
            os.utime(path)
        return found

    def write(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep an entry, and remove those that were not used for longest; one beyond the whole bound is not kept."""
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        if len(content) > self.most:
            return
        # One writer at a time, until it ends or dies: so a partial file that is there beforehand is nobody's.
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._make_room(len(content))
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=PARTIAL, delete=False) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.folder / (key + ENTRY))

    def _make_room(self, size: int) -> None:
        """Remove what dead writers left, then the oldest entries until `size` more bytes fit."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink()
        entries = sorted(
            ((each.stat().st_mtime_ns, each.stat().st_size, each) for each in self.folder.glob(f"*{ENTRY}")),
            key=lambda entry: entry[0],
        )
        total = sum(length for _, length, _ in entries)
        for _, length, path in entries:
            if total + size <= self.most:
                return
            path.unlink()
            total -= length


def digest(files: Iterable[Path], settings: Mapping[str, Any]) -> str:
    """Key of what these settings make of these files, which are looked at and not opened."""
    head = json.dumps([code(), dict(settings)], sort_keys=True)
    total = hashlib.sha256(head.encode())
    for path in files:
        found = path.stat()
        # The inode tells two studies apart whose files have the same names, sizes and times.
        facts = [path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
        total.update(json.dumps(facts).encode())
    return total.hexdigest()


@cache
def code() -> str:
    """Digest of the code of this package: another version may decode differently."""
    total = hashlib.sha256()
    home = Path(__file__).parent
    for path in sorted(home.rglob("*.py")):
        total.update(f"{path.relative_to(home)}\0".encode() + path.read_bytes())
    return total.hexdigest()
