"""Decoded and transformed images on disk, so that they are decoded once: by one round, run or process for all others.

An entry is a safetensors file. MONAI's PersistentDataset keeps pickles (`torch.save`), and a pickle runs what whoever
can write to the folder put into it; besides, it has no bound, and two of its writers can meet in one file. Here:

- A key is a digest of the content of the files that an entry was made from, of the settings that made it, of the code
  of this package and of the versions of what decodes: a changed file, setting or version is another key, and a cohort
  that was copied or restored is the same. The digest of a content is noted by the files' name, size, times and inode,
  so no DICOM file is opened for it again. What is made while its files change is not kept.
- An entry appears whole or not at all: it is written under another name and renamed. What a killed writer leaves is
  never read, and is removed by the next one.
- The folder stays within its bound: the entries that were not read for longest go first. A process that is reading one
  of them still has it to the end. It may be emptied at any time; where the disk is full, nothing is kept.
- Only the owner may read it (mode 700 and 600), since these are patients' images, and only the owner may write there,
  since what lies there is trained on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from datamodules.shared_folder import Entry, least_recently_used, locked

Arrays = dict[str, NDArray[Any]]
ENTRY, NOTE, PARTIAL = ".safetensors", ".sha256", ".part"
GIGABYTE = 10**9
_DECODERS = ("numpy", "scipy", "torch", "pydicom", "python-gdcm", "nibabel", "pillow")  # of them depends what is kept


class VolumeCache:
    """A folder of arrays by key.

    Args:
        folder: where the entries are; it is made where it is absent, and may be shared by processes and cohorts.
        gigabytes: the most that it may hold, above 0.

    Raises ValueError for a bound that is not above 0, for what is no folder, and for a folder that others may write to.
    """

    def __init__(self, folder: str | Path, gigabytes: float) -> None:
        if not gigabytes > 0:
            raise ValueError(f"cache.gigabytes={gigabytes}: must be above 0; leave out cache.folder for no cache")
        self.folder, self.most = Path(folder), int(gigabytes * GIGABYTE)
        self._open()

    def _open(self) -> None:
        """Make the folder where it is absent, and refuse one in which somebody else could put images."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ValueError(f"cache.folder={self.folder}: cannot be made ({error.strerror}); name another") from None
        found = self.folder.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise ValueError(f"cache.folder={self.folder}: others may write there; make it your own: chmod 700, chown")

    def arrays(self, files: Iterable[Path], settings: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The entry of these files and settings; made and kept where there is none.

        `settings` are plain values. What `make` raises is passed on, and nothing is kept.
        """
        files = list(files)
        seen = facts(files)
        note = self._note(seen)
        content = note or contents(files)
        key = _digest([code(), dict(settings), content])
        kept = self.read(key)
        found = make() if kept is None else kept
        if (note is None or kept is None) and _unchanged(seen, files):
            with self._full_disk_is_no_error():
                if note is None:
                    self._put(seen + NOTE, content.encode())
                if kept is None:
                    self.write(key, found)
        return found

    def _note(self, seen: str) -> str | None:
        """The digest of the content of files that were seen before."""
        path = self.folder / (seen + NOTE)
        try:
            found = path.read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        with suppress(FileNotFoundError):
            os.utime(path)
        return found if re.fullmatch("[0-9a-f]{64}", found) else None

    @contextmanager
    def _full_disk_is_no_error(self) -> Iterator[None]:
        """A full disk costs no more than the time to decode again."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            warnings.warn("cache.folder: its disk is full, so images are decoded anew in each run", stacklevel=2)

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
        self._put(key + ENTRY, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))

    def _put(self, name: str, content: bytes) -> None:
        if len(content) > self.most:
            return
        self._open()  # it may have been removed since
        # One writer at a time, until it ends or dies: so a partial file that is there beforehand is nobody's.
        with locked(self.folder / ".lock"):
            self._make_room(len(content))
            self._replace(name, content)

    def _replace(self, name: str, content: bytes) -> None:
        """Write under another name, then rename."""
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=PARTIAL, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.unlink(file.name)  # a full disk gets its room back
                raise
        os.replace(file.name, self.folder / name)

    def _make_room(self, size: int) -> None:
        """Remove what dead writers left, then the oldest entries until `size` more bytes fit."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
        entries: list[Entry] = []
        for path in (*self.folder.glob(f"*{ENTRY}"), *self.folder.glob(f"*{NOTE}")):
            with suppress(FileNotFoundError):  # somebody empties the folder
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        for _, _, path in least_recently_used(entries, self.most - size):
            path.unlink(missing_ok=True)


def facts(files: Iterable[Path]) -> str:
    """Digest of what tells, without opening them, that files are those that were seen before."""
    found = [(path.name, path.stat()) for path in files]
    # The inode tells two studies apart whose files have the same names, sizes and times.
    return _digest([[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for name, s in found])


def contents(files: Iterable[Path]) -> str:
    """Digest of the names and the content of files."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return total.hexdigest()


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _unchanged(seen: str, files: Iterable[Path]) -> bool:
    """Whether the files are still those that were seen."""
    try:
        return facts(files) == seen
    except FileNotFoundError:
        return False


@cache
def code() -> str:
    """Digest of the code of this package and of what it decodes with: another version may decode differently."""
    total = hashlib.sha256(json.dumps([version(name) for name in _DECODERS]).encode())
    home = Path(__file__).parent
    for path in sorted(home.rglob("*.py")):
        total.update(f"{path.relative_to(home)}\0".encode() + path.read_bytes())
    return total.hexdigest()
