"""Files that a study names in a site's folder: no name leads out of it."""

from __future__ import annotations

from pathlib import Path


def below(folder: Path, name: str) -> Path:
    """The path of a name in a folder. Raises ValueError where it leads out of it: absolute, by `..` or by a link."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name} lies outside of the site's root; a study names files in it alone")
    return path
