"""A run folder that somebody else may have made, as configuration: what may count of it, written anew.

`run.yaml` and the files beside it are read as plain values. An interpolation is refused, so that no secret of this
machine comes into the run; `hydra`, `paths` and `allow_targets` are this machine's, and dropped. Only where the cohorts
lie may still be `${paths.data_dir}`, and that folder FLIP_DATA_DIR, as the engine itself writes it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flip.config.places import texts
from flip.config.site_file import SITE_NAME
from flip.errors import UserError
from flip.files import conf_folder
from flip.runs.rerun import DECLARED, Unresolved, to_yaml

DROPPED = ("defaults", "hydra", "paths", "allow_targets")
"""Of `run.yaml`: this machine's to say."""
DATA_DIR = re.compile(r"\$\{oc\.env:FLIP_DATA_DIR,'(?:[^'\\$]|\\.)*'\}")
OPTION = re.compile(r"\w+", re.ASCII)


def given_files(run: Path) -> dict[str, str]:
    """The configuration of a run's folder, by relative path. Raises UserError for files that are no run's."""
    primary = _read(conf_folder() / "config.yaml")
    body = _read(run / "run.yaml")
    federation, sites = _chosen(run, body.get("defaults"))
    own = [each for each in primary["defaults"] if isinstance(each, dict) and "hydra" in next(iter(each))]
    head = ["schema", {"paths": "run"}, {"federation": federation}, {"sites": sites}, "_self_", *own]
    kept = {key: each for key, each in body.items() if key not in DROPPED}
    _refuse_interpolations(kept, run / "run.yaml")
    files = {
        "run.yaml": to_yaml({"defaults": head})
        + to_yaml(kept)
        + OmegaConf.to_yaml(OmegaConf.create({"hydra": primary["hydra"], "paths": {"runs": primary["paths"]["runs"]}})),
    }
    for path in sorted(run.glob("federation/*.yaml")):
        files[f"federation/{path.name}"] = to_yaml(_plain(path))
    for path in sorted(run.glob("sites/*.yaml")):
        header = f"# @package sites.{path.stem}\n"
        files[f"sites/{path.name}"] = header + to_yaml(_plain(path, keep=DECLARED))
    if (run / "paths" / "run.yaml").is_file():
        files["paths/run.yaml"] = "# @package paths\n" + to_yaml(_plain(run / "paths" / "run.yaml", keep=DATA_DIR))
    return files


def _chosen(run: Path, defaults: object) -> tuple[str, list[str]]:
    """The backend and the sites that the run's own list of defaults chooses."""
    chosen: dict[str, Any] = {}
    for each in defaults if isinstance(defaults, list) else ():
        chosen |= each if isinstance(each, dict) else {}
    federation, sites = chosen.get("federation"), chosen.get("sites")
    if not isinstance(federation, str) or not OPTION.fullmatch(federation):
        raise UserError(f"{run / 'run.yaml'}: its defaults choose no federation; it is no run's")
    if not isinstance(sites, list) or not all(isinstance(each, str) and SITE_NAME.fullmatch(each) for each in sites):
        raise UserError(f"{run / 'run.yaml'}: its defaults choose no sites; it is no run's")
    return federation, sites


def _read(path: Path) -> dict[str, Any]:
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as a run's: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no keys and values; it is no run's")
    return {str(key): each for key, each in found.items()}


def _plain(path: Path, keep: re.Pattern[str] | None = None) -> dict[str, Any]:
    values = {key: _kept(each, keep) for key, each in _read(path).items() if key != "defaults"}
    _refuse_interpolations(values, path)
    return values


def _kept(value: object, keep: re.Pattern[str] | None) -> object:
    """A value with the interpolations marked that the engine itself writes."""
    if isinstance(value, str):
        return Unresolved(value) if keep and keep.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {key: _kept(each, keep) for key, each in value.items()}
    return [_kept(each, keep) for each in value] if isinstance(value, list) else value


def _refuse_interpolations(values: object, path: Path) -> None:
    """Refuse `${` anywhere, escaped as well: what is text once is resolved when it is read again."""
    if text := next((each for each in texts(values) if "${" in each and not isinstance(each, Unresolved)), None):
        raise UserError(f"{path}: {text!r} is an interpolation; a run's file holds values alone, so write the value")


def allowing(prefixes: Sequence[str]) -> str:
    """What is typed after a command that reads a run's folder, a space first: its own `allow_targets` do not count."""
    return " " + shlex.quote(f"allow_targets=[{','.join(prefixes)}]") if prefixes else ""
