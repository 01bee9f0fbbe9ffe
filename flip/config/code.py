"""The digest of the code that a study names, which coordinator and sites compare before anything runs."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from flip.config.targets import LIBRARIES, OURS


def code_digest(names: Iterable[str]) -> str:
    """Sha256 over every .py and .yaml of the engine and of the packages that the targets name, libraries left out."""
    packages = {"flip", *(name.split(".")[0] for name in names)} - set(LIBRARIES)
    return _digest(tuple(sorted(packages)))


@cache
def _digest(packages: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for package in packages:
        folder = package_folder(package)
        if folder is None:
            continue  # the check names a package that is not installed
        conf = folder / "conf"  # the configuration lies there in a wheel; it is in the manifest already
        files = (
            [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.suffix in (".py", ".yaml")]
        )
        for path in sorted(files, key=lambda each: each.relative_to(folder.parent).as_posix()):
            if conf not in path.parents:
                total.update(path.relative_to(folder.parent).as_posix().encode() + b"\0")
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def package_folder(name: str) -> Path | None:
    """Where Python would import a top-level package from, without importing it; the file of a one-file module."""
    spec = PathFinder.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def foreign_packages() -> list[str]:
    """One sentence for each of flip, models and datamodules that Python would not take from beside this engine."""
    root = Path(__file__).resolve().parents[2]
    problems = []
    for name in OURS:
        found, ours = package_folder(name), root / name
        if found != ours:
            place = f"Python finds another '{name}' first, in {found}" if found else f"Python does not find '{name}'"
            problems.append(
                f"{place}; the engine's is {ours}. Install flip-engine in an environment of its own, "
                "and take the other off PYTHONPATH"
            )
    return problems
