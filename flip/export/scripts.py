"""The source of a study's own classes in a bundle: copied with the files that it imports, under names of the bundle."""

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from flip.config.targets import TARGET

PACKAGES = ("models.", "datamodules.")
FOLDER = "scripts"
ABOUT = '"""From FLIP, Apache License 2.0: what MONAI has no class for, as it was when the model was exported."""\n'


class Scripts:
    """The `scripts` of a bundle.

    Args:
        folder: where they are written, which is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(ABOUT, encoding="utf-8")

    def copied(self, config: object) -> object:
        """A configuration in which each class of the engine's is named as in the bundle, to where it is copied."""
        if isinstance(config, Mapping):
            return {key: self._named(str(each)) if key == TARGET else self.copied(each) for key, each in config.items()}
        return [self.copied(each) for each in config] if isinstance(config, list) else config

    def _named(self, target: str) -> str:
        if not target.startswith(PACKAGES):
            return target
        module, _, name = target.rpartition(".")
        self._copy(module)
        return f"{FOLDER}.{_flat(module)}.{name}"

    def _copy(self, module: str) -> None:
        """Copy a module's source, and that of each of the two packages' that it imports."""
        path = self.folder / f"{_flat(module)}.py"
        if path.exists():
            return
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None  # its class was found
        source = Path(spec.origin).read_text(encoding="utf-8")
        imported = [
            each.module
            for each in ast.walk(ast.parse(source))
            if isinstance(each, ast.ImportFrom) and each.module and each.module.startswith(PACKAGES)
        ]
        for other in imported:
            source = source.replace(f"from {other} import", f"from {FOLDER}.{_flat(other)} import")
        path.write_text(source, encoding="utf-8")
        for other in imported:
            self._copy(other)


def _flat(module: str) -> str:
    return module.replace(".", "_")
