"""Studies fetched from a PACS, kept on disk: each fetched once, by whichever process needs it first.

An entry is made in `<key>.partial` and renamed when it is whole, so one that was interrupted, by SIGKILL too, is never
taken for complete; the next process that wants it starts over. Locks are the operating system's (flock): they end with
the process that holds them. Names of entries are hashes, so no accession number stands in the file system.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from datamodules.shared_folder import least_recently_used, locked

Save = Callable[[str, bytes], None]

IN_USE = 600  # seconds after it was last opened in which an entry is not removed: a reader may be at it
ABANDONED = 86_400  # seconds without a new file after which a fetch is taken for one that was killed
MANIFEST = "complete.json"


class StudyCache:
    """A folder of fetched entries, at most `max_gb` (10^9 bytes) of them; the least recently opened make room."""

    def __init__(self, folder: Path, max_gb: float) -> None:
        if max_gb <= 0:
            raise ValueError(f"`cache_gb` must be above 0, not {max_gb:g}")
        self.folder, self.limit = folder, int(max_gb * 1e9)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # what is in it is as confidential as the PACS
        (folder / "locks").mkdir(exist_ok=True)

    def get(self, name: str, fetch: Callable[[Save], None]) -> Path:
        """The folder of an entry's files. `fetch` stores them, by name, with the function that it is given.

        What `fetch` raises leaves nothing behind. Raises ValueError when the entry does not fit into the cache.
        """
        key = hashlib.sha256(name.encode()).hexdigest()[:32]
        with self._lock(key[:2]):
            entry = self.folder / key
            if not self._complete(entry):
                self._make(entry, fetch)
            os.utime(entry)
            return entry / "files"

    def _make(self, entry: Path, fetch: Callable[[Save], None]) -> None:
        partial = entry.with_suffix(".partial")
        for left in (partial, entry):  # what an interrupted process left, or an entry that lost files
            shutil.rmtree(left, ignore_errors=True)
        (partial / "files").mkdir(parents=True)
        sizes: dict[str, int] = {}

        def save(name: str, content: bytes) -> None:
            sizes[name] = len(content)
            if sum(sizes.values()) > self.limit:
                raise ValueError(f"a study is larger than the cache at {self.folder}: raise `cache_gb`")
            _write(partial / "files" / name, content)

        try:
            fetch(save)
            _write(partial / MANIFEST, json.dumps(sizes).encode())
            with self._lock("all"):
                self._make_room(sum(sizes.values()))
                partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _complete(self, entry: Path) -> bool:
        try:
            sizes = json.loads((entry / MANIFEST).read_bytes())
            return bool(sizes == {file.name: file.stat().st_size for file in (entry / "files").iterdir()})
        except (FileNotFoundError, ValueError):
            return False

    def _make_room(self, size: int) -> None:
        """Remove the least recently opened entries until so many bytes fit. Raises ValueError where they cannot.

        What a killed process left of a fetch goes first.
        """
        for files in self.folder.glob("*.partial/files"):
            if time.time() - files.stat().st_mtime > ABANDONED:
                shutil.rmtree(files.parent, ignore_errors=True)
        manifests = [each for each in self.folder.glob(f"*/{MANIFEST}") if each.parent.suffix != ".partial"]
        entries = [
            (each.parent.stat().st_mtime_ns, sum(json.loads(each.read_bytes()).values()), each.parent)
            for each in manifests
        ]
        for used, _, entry in least_recently_used(entries, self.limit - size):
            if time.time() - used / 1e9 < IN_USE:
                raise ValueError(f"the cache at {self.folder} is full of studies in use: raise `cache_gb`")
            doomed = entry.with_suffix(".removed")
            entry.rename(doomed)
            shutil.rmtree(doomed)

    def _lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other processes and threads out until the block ends."""
        return locked(self.folder / "locks" / name)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
