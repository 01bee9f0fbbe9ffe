"""The key of a site's privacy noise: what it depends on, and the site's secret that nobody else knows."""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np

from flip.config.opt_out import list_digest
from flip.config.schema import SIMULATED, Site
from flip.config.study import plain
from flip.messages import Task
from flip.messages.weights import digest

LENGTH = 32  # bytes


def noise_key(name: str, site: Site, home: Path, task: Task, state: Mapping[str, np.ndarray]) -> bytes:
    """HMAC of the site's secret over all that the answer depends on.

    That is the task, the site's own file, the fingerprint of its data, and the arrays that it kept from earlier rounds:
    the same answer has the same noise, so a repeated task spends nothing, and any other answer has fresh noise.
    """
    stated = {key: value for key, value in plain(site).items() if key != "opt_out"}  # its digest is
    own = json.dumps(stated, sort_keys=True)
    message = "\0".join([task.digest, own, fingerprint(Path(site.root)) + list_digest(site), digest(state)])
    return hmac.new(site_secret(name, site, home, task), message.encode(), hashlib.sha256).digest()


def site_secret(name: str, site: Site, home: Path, task: Task) -> bytes:
    """The site's secret: `own_secret`, and in a simulation one of the study's seed. Raises as that."""
    if site.secret == SIMULATED:
        seed = json.loads(task.manifest)["seed"]
        return hmac.new(b"simulated: no privacy claim", f"{seed}:{name}".encode(), hashlib.sha256).digest()
    return own_secret(site, home)


def secret_file(site: Site, home: Path) -> Path:
    """Where the site's secret lies: the file that the site names, or one in its home."""
    return Path(site.secret) if site.secret else home / "secret"


def own_secret(site: Site, home: Path) -> bytes:
    """The site's secret, which is made on first use with mode 600.

    Raises PermissionError for a secret that others can read, ValueError for one that is not 32 bytes.
    """
    path = secret_file(site, home)
    if not path.exists():
        make_secret(path)
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"others can read the site's secret {path}: chmod 600 it")
    secret = path.read_bytes()
    if len(secret) != LENGTH:
        raise ValueError(
            f"the site's secret {path} is not {LENGTH} bytes: put it back as it was, since the privacy ledger is "
            "sealed by it; at a site that has spent nothing, remove it, and a new one is made"
        )
    return secret


def mechanism_key(secret: bytes, kind: type, before: int = 0) -> bytes:
    """The key that one mechanism has of a site's secret: none has another's, or that of noise.

    `kind` is its class, `before` the number of the study's mechanisms of that class that come before it.
    """
    own = f"mechanism:{before}:{kind.__module__}.{kind.__qualname__}"
    return hmac.new(secret, own.encode(), hashlib.sha256).digest()


def make_secret(path: Path) -> None:
    """Write a secret from the operating system's generator; the first of several writers wins, and none leaves half."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(LENGTH))
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():
            os.link(temporary, path)
    except FileExistsError:
        pass  # another process of the same site was first; its secret is used
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(root: Path) -> str:
    """Sha256 of what a site's files hold: other data give other noise, whatever the times that their copier kept.

    One file is read whole. Of a folder, which may hold terabytes, it is over names, sizes and times; that of the last
    change of a file's record (ctime) is the system's own, which no program sets back.
    """
    if root.is_file():
        with root.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = []
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        found = path.stat()
        lines.append(f"{path.relative_to(root)}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
