"""Where a key of a composed configuration stands: the command line, or one of the files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra.types import RunMode

from flip.cli.compose import Composer, short_path, split
from flip.config.plain_scalars import misread


@dataclass(frozen=True)
class Origin:
    """Finds where a key of a composed configuration stands."""

    composer: Composer

    def __call__(self, key: str) -> str:
        """The command line, or the file that sets the key; else the one that holds its nearest parent; else nothing."""
        for override in reversed(self.composer.overrides):
            _, given, value = split(override)
            if (
                value is not None
                and (key == given or key.startswith(f"{given}."))
                and not self.composer.is_group(given)
            ):
                return "the command line"
        wanted = re.split(r"\.", re.sub(r"\[\d+\]", "", key))
        for length in range(len(wanted), 0, -1):
            for package, path, values in reversed(self._files):
                inside = [part for part in package.split(".") if part]
                if wanted[: len(inside)] == inside[:length] and _holds(values, wanted[len(inside) : length]):
                    return short_path(path)
        return ""

    def misread(self) -> list[str]:
        """What is not read as it is written in the files that were composed."""
        return [
            problem
            for _, path, _ in self._files
            for problem in misread(path.read_text(encoding="utf-8"), short_path(path))
        ]

    @cached_property
    def _files(self) -> list[tuple[str, Path, Any]]:
        """Package, path and values of every file that was composed, in the order of merging."""
        composer = self.composer
        with composer.session() as hydra:
            found = hydra.config_loader.compute_defaults_list(
                composer.config_name, list(composer.arguments), RunMode.RUN
            )
        files = []
        for default in found.defaults:
            for folder in composer.folders:
                path = folder / f"{default.config_path}.yaml"
                if path.is_file():
                    files.append((default.package or "", path, yaml.safe_load(path.read_text(encoding="utf-8"))))
                    break
        return files


def _holds(values: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
