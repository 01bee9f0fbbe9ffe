"""A private PostgreSQL, on a Unix socket and a loopback port, as an unprivileged user, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.certificates import certificate
from tests.services.installed import free_port, program


@dataclass(frozen=True)
class Server:
    """A running server. `folder` holds its socket and, with TLS, `server.crt`."""

    folder: Path
    port: int
    bin: Path
    user: Mapping[str, int]

    def psql(self, script: str, database: str = "postgres") -> str:
        """Run SQL as the owner of the cluster."""
        command = [self.bin / "psql", "-h", self.folder, "-p", str(self.port), "-U", "owner", "-d", database, "-qAtX"]
        ran = subprocess.run(
            [*command, "-v", "ON_ERROR_STOP=1"], input=script, capture_output=True, text=True, check=False, **self.user
        )
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        return ran.stdout


@contextmanager
def running() -> Iterator[Server]:
    """Make a cluster, start it, and remove it afterwards."""
    folders = [Path("/usr/lib/postgresql") / version / "bin" for version in ("15", "16", "17")]
    bin = program("initdb", *folders).parent
    user = _unprivileged()
    with tempfile.TemporaryDirectory(prefix="pg-") as temporary:  # short: a socket's path has at most 107 bytes
        folder = Path(temporary)
        (folder / "password").write_text("secret\n")
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user["user"], user["group"])
        data, port = folder / "data", free_port()
        _run(bin / "initdb", "-D", data, "-U", "owner", "--auth-local=trust", "--auth-host=scram-sha-256",
             f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8", user=user)  # fmt: skip
        certificate(folder, user)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c ssl=on "
        options += f"-c ssl_cert_file={folder / 'server.crt'} -c ssl_key_file={folder / 'server.key'}"
        control = (bin / "pg_ctl", "-D", data, "-w", "-t", "60")
        _run(*control, "-l", folder / "log", "-o", options, "start", user=user)
        try:
            yield Server(folder, port, bin, user)
        finally:
            _run(*control, "-m", "immediate", "stop", user=user)


def _unprivileged() -> dict[str, int]:
    """PostgreSQL refuses to run as root: the user that Debian's package makes, or the one that runs the tests."""
    if os.geteuid():
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _run(*command: object, user: Mapping[str, int]) -> None:
    words = [str(word) for word in command]
    ran = subprocess.run(words, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **user)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ran.stderr or ran.stdout}")
