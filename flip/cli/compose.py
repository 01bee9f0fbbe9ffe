"""Hydra, as far as the engine uses it: composes `conf` and a folder of the user's own.

A value given on the command line is applied whether its key exists or not (`++key=value`): the schema is checked once,
by `flip.config.resolve.settle`, on what came together from every file, so that all mistakes are found at once.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flip.config.schema import Config
from flip.errors import UserError
from flip.files import conf_folder, write_atomic
from flip.runs.given import given_files

KEY = re.compile(r"^(\+\+|\+|~)?([^=]+)(=.*)?$", re.DOTALL)
MISTAKES = (HydraException, OmegaConfBaseException, yaml.YAMLError)


@dataclass(frozen=True)
class Composer:
    """Composes one command line.

    Args:
        overrides: `key=value` arguments as typed.
        config_name: the primary configuration, `config`, or `run` for a finished run.
        config_dir: a folder whose files go before the engine's own.
        varied: keys in which the runs of a sweep differ, where this is one of them.
    """

    overrides: Sequence[str] = ()
    config_name: str = "config"
    config_dir: Path | None = None
    varied: frozenset[str] = frozenset()

    @cached_property
    def folders(self) -> list[Path]:
        """Where configuration is looked for, in order."""
        return [self.config_dir.absolute(), conf_folder()] if self.config_dir else [conf_folder()]

    @property
    def run_again(self) -> Path | None:
        """The folder of the run that `--config-dir RUN --config-name run` runs again."""
        run = self.config_dir.absolute() if self.config_dir and self.config_name == "run" else None
        return run if run and (run / "run.yaml").is_file() else None

    @property
    def given(self) -> tuple[tuple[str, str], ...]:
        """The keys that the overrides give values, with the values."""
        found = [(key, value) for sign, key, value in map(split, self.overrides) if sign != "~"]
        return tuple((key, value) for key, value in found if value is not None)

    @cached_property
    def arguments(self) -> list[str]:
        """The overrides as Hydra gets them."""
        return [self._forced(override) for override in self.overrides]

    def _forced(self, override: str) -> str:
        sign, key, value = split(override)
        plain = value is not None and sign != "~" and not key.startswith("hydra.") and not self.is_group(key)
        return f"++{key}={value}" if plain else override

    def is_group(self, key: str) -> bool:
        """Whether a key chooses an option of a group."""
        name = key.split("@")[0]
        return "/" in name or any((folder / name).is_dir() for folder in self.folders)

    def options(self, group: str) -> list[str]:
        """The options of a group, sorted."""
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def named_twice(self, experiment: str | None) -> list[str]:
        """Sites that the command line or the experiment names twice: Hydra would take each once, without a word."""
        rosters = [
            ("the command line", value.strip("[] ").split(","))
            for _, key, value in map(split, self.overrides)
            if key == "sites" and value
        ]
        files = [folder / "experiment" / f"{experiment}.yaml" for folder in self.folders]
        for path in [each for each in files if each.is_file()][:1]:
            declared = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", [])
            chosen = [
                value
                for each in declared
                if isinstance(each, dict)
                for key, value in each.items()
                if key.endswith("/sites")
            ]
            rosters += [(short_path(path), value) for value in chosen if isinstance(value, list)]
        return [
            f"sites ({place}): {name} is named twice; name each site once"
            for place, named in rosters
            for name, times in Counter(str(each).strip() for each in named).items()
            if times > 1
        ]

    @contextmanager
    def _readable(self) -> Iterator[Path]:
        """The folder that goes first, as Hydra may read it: of a run, which others may have made, what may count."""
        if self.run_again is None:
            yield self.folders[0]
            return
        with tempfile.TemporaryDirectory(prefix="run-") as name:
            for file, text in given_files(self.run_again).items():
                write_atomic(Path(name) / file, text.encode(), mode=0o600)
            yield Path(name)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Hydra, ready to compose."""
        first = self.folders[0]
        if not first.is_dir():
            raise UserError(f"--config-dir {first}: there is no such folder")
        schema = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(Config)))
        ConfigStore.instance().store(name="schema", node=schema)
        outer = GlobalHydra.instance().hydra  # of a sweep, while one of its runs is looked into
        GlobalHydra.instance().clear()
        try:
            with self._readable() as place, initialize_config_dir(str(place), job_name="flip", version_base="1.3"):
                loader: Any = GlobalHydra.instance().config_loader()
                for folder in self.folders[1:]:
                    loader.get_search_path().append("flip", f"file://{folder}", anchor=SearchPathQuery("main", None))
                loader.repository.initialize_sources(loader.get_search_path())
                yield GlobalHydra.instance().hydra
        finally:
            GlobalHydra.instance().clear()
            if outer is not None:
                GlobalHydra.instance().initialize(outer)

    def compose(self) -> DictConfig:
        """The composed configuration, its `hydra` part included; inside a session. Raises one of `MISTAKES`."""
        return compose(self.config_name, self.arguments, return_hydra_config=True)


def split(override: str) -> tuple[str, str, str | None]:
    """Sign (`+`, `++`, `~` or nothing), key and value of an override; None without a value."""
    match = KEY.match(override)
    if match is None:
        return "", override, None
    sign, key, value = match.groups()
    return sign or "", key, value[1:] if value is not None else None


def short_path(path: Path) -> str:
    """A file as one would type it: below `conf` for the engine's own, from the working folder otherwise."""
    if path.is_relative_to(conf_folder()):
        return str(Path("conf") / path.relative_to(conf_folder()))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
