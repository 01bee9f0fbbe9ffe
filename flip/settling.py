"""From a composed configuration to a `Study`: resolve, refuse what is missing, unknown or of the wrong type."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import flip
from flip.config import Config, Site, Study, plain
from flip.errors import UserError
from flip.federation.live import is_live
from flip.noise_key import SIMULATED
from flip.policy import PUBLIC, widened
from flip.suggest import Where, at, moved, nearest, nowhere, unique
from flip.targets import code_digest, prefix_problems, targets

STUDY_KEYS = ("name", "notice", "seed", "dataset", "model", "outcomes", "trainer", "strategy", "privacy")
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
UNSET = "???"
POOLED = "pooled"  # names the sites together in results and folders
Schema = TypeVar("Schema")


def settle(cfg: DictConfig, *, backend: str = "none", where: Where = nowhere) -> Study:
    """Resolve and validate a composed configuration. Raises UserError with every mistake found.

    `backend` is the chosen option of the group `federation`.
    """
    problems = _unresolved(cfg, where)
    if problems:
        raise UserError(problems)
    values: dict[Any, Any] = {key: _plain(cfg, key) for key in cfg if key != "hydra"}
    live = isinstance(values["federation"], dict) and is_live(values["federation"])
    if values.get("site_file"):
        values["sites"] = {}
    elif live:
        values["sites"] = roster(values["sites"])
    config = conform(values, Config, "", where, problems)
    problems += _missing(values, "", where)
    problems += prefix_problems(at("allow_targets", where), config.allow_targets)
    sites, file = config.sites, Path(config.site_file).expanduser() if config.site_file else None
    if file:
        where = moved(where, "sites.", str(file))
    if file and not problems:
        sites = {file.stem: load_site(file)}
        if sites[file.stem].secret == SIMULATED:
            problems.append(f"secret ({file}): '{SIMULATED}' protects nothing; name a file, or null for one of its own")
    for name, site in sites.items():
        if not SITE_NAME.fullmatch(name):
            problems.append(f"{at(f'sites.{name}', where)}: a site's name is made of letters, digits, - and _")
        if name == POOLED:
            problems.append(f"{at(f'sites.{name}', where)}: is the name of the sites together; choose another")
        if not live:
            _absolute(site, "root", "secret")
            _absolute(site.cache, "folder")
        if not file and not problems:
            site.policy = widened(site.policy, config.allow_targets)
    _absolute(config, "resume_from")
    _absolute(config.paths, "data_dir", "runs", "demo_dir")
    study = _study(config, sites, backend, where, problems)
    if problems:
        from flip.checking import code_problems

        raise UserError(unique(problems + code_problems(study)))
    return study


def roster(sites: Any) -> Any:
    """Of each site what a live federation's coordinator needs: whether it trains. The rest is in its own file."""
    if not isinstance(sites, Mapping):
        return sites
    kept = ("trains",)
    unread = {"root": "", "policy": PUBLIC}
    return {
        name: unread | {key: each[key] for key in kept if key in each} if isinstance(each, Mapping) else each
        for name, each in sites.items()
    }


def _study(config: Config, sites: dict[str, Site], backend: str, where: Where, problems: list[str]) -> Study:
    manifest = {key: plain(getattr(config, key)) for key in STUDY_KEYS}
    problems += [
        f"{at(key, where)}: {value!r} cannot travel to a site; write a number, a text, a list or null"
        for key, value in _leaves(manifest, "")
        if not _is_json(value)
    ]
    manifest |= {
        "mechanisms": list(config.privacy),
        "engine": flip.__version__,
        "code": code_digest(targets(manifest)),
    }
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), default=str)
    return Study(
        manifest=json.loads(text),  # as the sites read it: every process sees the same order of keys
        manifest_text=text,
        manifest_sha256=hashlib.sha256(text.encode()).hexdigest(),
        job=plain(config.job),
        backend=backend,
        federation=config.federation,
        sites=sites,
        site_file=config.site_file,
        resume_from=Path(config.resume_from) if config.resume_from else None,
        baselines=config.baselines,
        tracking=config.tracking,
        paths=config.paths,
        allow_targets=tuple(config.allow_targets),
        where=where,
    )


def load_site(path: Path) -> Site:
    """Read a site's own file. Raises UserError naming file, key and remedy."""
    try:
        loaded = OmegaConf.create(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        values = OmegaConf.to_container(loaded, resolve=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; a site's file holds {', '.join(_names(Site))}") from error
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: {_first_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold keys and values, such as 'root: /data/cohort'")
    problems: list[str] = []
    for key in set(values) & set(_names(Config)):
        problems.append(f"{key} ({path}): a site cannot change the study; its file holds {', '.join(_names(Site))}")
        del values[key]
    site = conform(values, Site, "", lambda key: str(path), problems)
    unset: dict[str, Any] = {"root": UNSET, "policy": UNSET} | {str(key): value for key, value in values.items()}
    problems += _missing(unset, "", lambda key: str(path))
    if problems:
        raise UserError(unique(problems))
    _absolute(site, "root", "secret")
    _absolute(site.cache, "folder")
    return site


def conform(values: Mapping[Any, Any], schema: type[Schema], key: str, where: Where, problems: list[str]) -> Schema:
    """An instance of the schema's dataclass with these values; what does not fit goes to `problems`."""
    hints = get_type_hints(schema)
    for name in values:
        if name not in hints:
            problems.append(f"{at(_join(key, name), where)}: no such key; {nearest(str(name), hints)}")
    typed = OmegaConf.structured(schema)
    fitted: dict[str, Any] = {}
    for name, hint in hints.items():
        if name not in values or values[name] == UNSET:
            continue
        full, value = _join(key, name), values[name]
        inner = get_args(hint)[-1] if get_origin(hint) is dict else None
        if is_dataclass(hint) or is_dataclass(inner):
            if not isinstance(value, Mapping):
                problems.append(f"{at(full, where)}: must hold keys and values, not {value!r}")
            elif is_dataclass(hint):
                fitted[name] = conform(value, hint, full, where, problems)  # type: ignore[arg-type]
            else:
                fitted[name] = _conform_each(value, inner, full, where, problems)
            continue
        try:
            typed[name] = value
            held = typed[name]
            fitted[name] = OmegaConf.to_container(held) if isinstance(held, DictConfig | ListConfig) else held
        except OmegaConfBaseException:
            problems.append(f"{at(full, where)}: {value!r} is the wrong type; must be {_words(hint)}")
    return schema(**fitted)


def _conform_each(
    values: Mapping[Any, Any], schema: Any, key: str, where: Where, problems: list[str]
) -> dict[str, Any]:
    each = {}
    for name, value in values.items():
        full = _join(key, name)
        if isinstance(value, Mapping):
            each[str(name)] = conform(value, schema, full, where, problems)
            required = {f.name for f in fields(schema) if f.default == UNSET and f.default is not MISSING}
            problems += [_unset(_join(full, missing), where) for missing in sorted(required - set(value))]
        else:
            problems.append(f"{at(full, where)}: must hold the keys of a site, not {value!r}")
    return each


def _plain(cfg: DictConfig, key: Any) -> Any:
    if OmegaConf.is_missing(cfg, key):
        return UNSET
    value = cfg[key]
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _is_json(value: Any) -> bool:
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value is None or (isinstance(value, str | int | float | bool) and finite)


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for name, each in value.items() for leaf in _leaves(each, _join(key, name))]
    if isinstance(value, list):
        return [leaf for index, each in enumerate(value) for leaf in _leaves(each, f"{key}[{index}]")]
    return [(key, value)]


def _missing(values: Mapping[str, Any], key: str, where: Where) -> list[str]:
    return [_unset(full, where) for full, value in _leaves(values, key) if value == UNSET]


def _unset(key: str, where: Where) -> str:
    hint = ", or choose an experiment: experiment=NAME" if key in ("dataset", "model", "name") else ""
    if key.split(".")[-1] == "policy":
        hint = ": public_data for public or synthetic data, or {minimum_persons: 50, minimum_cell: 5}"
    return f"{at(key, where)}: has no value; set it, as in {key}=...{hint}"


def _unresolved(node: Any, where: Where, key: str = "") -> list[str]:
    """One sentence for each `${...}` that does not resolve."""
    problems: list[str] = []
    names: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    for name in names:
        full = _join(key, name) if isinstance(node, DictConfig) else f"{key}[{name}]"
        if full == "hydra" or OmegaConf.is_missing(node, name):
            continue
        try:
            value = node[name]
        except OmegaConfBaseException as error:
            problems.append(f"{at(full, where)}: cannot be resolved: {_first_line(error)}")
            continue
        if (
            isinstance(value, DictConfig | ListConfig)
            and not value._is_none()
            and not OmegaConf.is_interpolation(node, name)
        ):
            problems += _unresolved(value, where, full)
    return problems


def _absolute(owner: Any, *names: str) -> None:
    """Make paths absolute, from the working folder."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and value not in (UNSET, SIMULATED):
            setattr(owner, name, str(Path(value).expanduser().absolute()))


def _names(schema: Any) -> list[str]:
    return [each.name for each in fields(schema)]


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _words(hint: Any) -> str:
    """A type of the schema in words."""
    known = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if hint in known:
        return known[hint]
    if get_origin(hint) is dict:
        return "keys and values"
    if get_origin(hint) is list:
        return "a list, as in [a, b]"
    if get_args(hint):
        return " or ".join(_words(each) for each in get_args(hint))
    return "one of " + ", ".join(each.value for each in hint)
