"""Certificates for the servers of tests."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def certificate(folder: Path, user: Mapping[str, int] | None = None) -> Path:
    """`server.crt` in a folder, signed by itself for the name `localhost`, with `server.key` beside it."""
    path = folder / "server.crt"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
               "-keyout", str(path.with_suffix(".key")), "-out", str(path)]  # fmt: skip
    subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=True, **(user or {}))
    return path
