"""A site's own file, read from its own disk."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flip.config.conform import UNSET, _first_line, _leaves, _missing, _names, conform
from flip.config.plain_scalars import misread
from flip.config.schema import SIMULATED, Config, Site
from flip.errors import UserError, unique

PLACES = Path("paths") / "run.yaml"  # in a run's folder: where its cohorts lie
PLACE = re.compile(r"\$\{paths\.[a-z_]+\}")  # what alone is resolved in a site's file: never an environment variable


def load_site(path: Path) -> Site:
    """Read a site's own file. Raises UserError naming file, key and remedy."""
    values = _read(path)
    problems = []
    for key in set(values) & set(_names(Config)):
        problems.append(f"{key} ({path}): a site cannot change the study; its file holds {', '.join(_names(Site))}")
        del values[key]
    site = conform(values, Site, "", lambda key: str(path), problems)
    unset: dict[str, Any] = {"root": UNSET, "policy": UNSET} | {str(key): value for key, value in values.items()}
    problems += [
        f"{key} ({path}): has no value; write one there, in place of {UNSET}"
        for key, value in _leaves(unset, "")
        if value == UNSET and key.split(".")[0] in values
    ]
    problems += _missing({key: each for key, each in unset.items() if key not in values}, "", lambda key: str(path))
    if problems:
        raise UserError(unique(problems))
    settle_paths(site, path.resolve().parent)
    return site


def settle_paths(site: Site, folder: Path) -> None:
    """Make a site's paths absolute: from the folder of its own file, wherever it is started from."""
    _absolute(site, "root", "secret", "opt_out", folder=folder)
    _absolute(site.cache, "folder", folder=folder)
    site.models = [str(folder / Path(each).expanduser()) for each in site.models]


def _read(path: Path) -> dict[Any, Any]:
    """Keys and values of a site's file, places filled in. Raises UserError for one that cannot be read."""
    if path.is_symlink():
        raise UserError(f"{path}: is a link to another file, which others may change; put the site's file itself here")
    try:
        text = path.read_text(encoding="utf-8")
        if turned := misread(text, str(path)):
            raise UserError(turned)
        read = yaml.safe_load(text)
        if not isinstance({} if read is None else read, dict):
            raise UserError(f"{path}: must hold keys and values, such as 'root: /data/cohort'")
        # As Hydra reads the files of a simulation: a key that stands twice is refused.
        loaded = OmegaConf.create(text)
        if problems := [*_resolved(OmegaConf.to_container(loaded), path)]:
            raise UserError(problems)
        placed = _placed(loaded, path.parent.parent / PLACES)
        return cast(dict[Any, Any], OmegaConf.to_container(placed, resolve=True))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; a site's file holds {', '.join(_names(Site))}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        why = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else _first_line(error)
        raise UserError(f"{path}: {why}") from error


def _placed(site: DictConfig | ListConfig, places: Path) -> DictConfig | ListConfig:
    """The site's file with the folders that it may name by `${paths...}`: those of its run, in a simulation."""
    if isinstance(site, DictConfig) and places.is_file():
        known = OmegaConf.create({"paths": OmegaConf.load(places), "site": site})
        OmegaConf.resolve(known)
        return cast(DictConfig, known.site)
    return site


def _resolved(values: object, path: Path) -> Iterator[str]:
    """What a site's file leaves to something else to say: anything in its policy, elsewhere all but a run's folders."""
    for key, value in _leaves(values, ""):
        text = f"{key} {value}" if key.split(".")[0] == "policy" else PLACE.sub("", f"{key} {value}")
        if "${" in text:
            yield f"{key} ({path}): '${{' asks something else for the value; write the value itself"


def _absolute(owner: object, *names: str, folder: Path) -> None:
    """Make paths absolute, from a folder."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and value not in (UNSET, SIMULATED):
            setattr(owner, name, str(folder / Path(value).expanduser()))


SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
