"""What tells whether a site's data, or its own file, are those of another run: digests under the site's own secret.

Without the secret nobody can try whether somebody's record gives a digest, so one confirms no membership.
"""

import hashlib
import hmac
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from flip.config.opt_out import list_digest
from flip.config.schema import Site
from flip.config.study import plain
from flip.contracts import Fingerprinted
from flip.messages import Task
from flip.messages.weights import digest
from flip.site.secret import site_secret

OWN = ("trains", "part", "columns", "accelerator", "precision", "policy")  # of a site's file: what a result depends on
WHOLE = 4 * 2**20  # bytes: files up to here are read whole, larger ones at their start, middle and end
SAMPLE = 2**16  # bytes of each of these; archives have their checksums at the end


def fingerprint(name: str, site: Site, home: Path, *, datamodule: object, task: Task) -> dict[str, str]:
    """Digests of the site's `data` and of what its own `file` declares, 64 hexadecimal digits each.

    The data are what the dataset says it has read, else the contents of the files below `root`.
    """
    secret = site_secret(name, site, home, task)
    read = digest(datamodule.fingerprint()) if isinstance(datamodule, Fingerprinted) else contents(Path(site.root))
    own: dict[str, Any] = {key: plain(getattr(site, key)) for key in OWN}
    own |= {"devices": site.devices} if site.devices > 1 else {}  # sums in another order
    parts = {"data": read + list_digest(site), "file": json.dumps(own, sort_keys=True)}
    return {
        part: hmac.new(secret, f"identity\0{part}\0{value}".encode(), hashlib.sha256).hexdigest()
        for part, value in parts.items()
    }


def contents(root: Path) -> str:
    """Sha256 over the names, sizes and contents of a site's files; it does not change when they are moved together."""
    found = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [path for path in found if path.is_file()]  # none where a dataset of the study's own reads none
    stats = [path.stat() for path in files]
    return _contents(
        root, tuple((path, each.st_size, each.st_mtime_ns) for path, each in zip(files, stats, strict=True))
    )


@lru_cache(maxsize=8)  # sites of a simulation share a root
def _contents(root: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, size, _ in files:
        total.update(f"{path.relative_to(root)}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE:
                total.update(file.read())
                continue
            for start in (0, (size - SAMPLE) // 2, size - SAMPLE):
                file.seek(start)
                total.update(file.read(SAMPLE))
    return total.hexdigest()
