"""Secrets that a source needs (passwords, tokens), each in a file of its own that only its owner can read."""

from pathlib import Path


def read_secret(path: Path) -> str:
    """The file's text without the line's end.

    Raises FileNotFoundError for a missing file, ValueError for one that others can read, or that is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no secret at {path}: write it there, readable by its owner alone (mode 600)")
    if path.stat().st_mode & 0o077:
        raise ValueError(f"others can read {path}: run `chmod 600 {path}`")
    if not (secret := path.read_text().strip()):
        raise ValueError(f"{path} is empty: it should hold the secret")
    return secret
