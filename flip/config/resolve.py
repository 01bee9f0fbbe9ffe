"""From a composed configuration to a `Study`: resolve, refuse what is missing, unknown or of the wrong type."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from flip.config.approvers import unasked
from flip.config.bundle import bundled, read_model, unread
from flip.config.code import code_digest
from flip.config.conform import UNSET, _leaves, _missing, conform, unresolved
from flip.config.jobs import JOBS
from flip.config.policy import PUBLIC, widened
from flip.config.schema import GIVEN_AT, SIMULATED, Config, Site
from flip.config.site_file import SITE_NAME, _absolute, load_site, settle_paths
from flip.config.sizes import size
from flip.config.study import Study, plain
from flip.config.targets import prefix_problems, targets
from flip.errors import UserError, Where, at, moved, nearest, nowhere, unique
from flip.files import POOLED
from flip.messages.weights import digest
from flip.messages.weights_file import read_weights
from flip.version import __version__

COMMAND_LINE = "the command line"  # the `Where` of what was typed
STUDY_KEYS = ("name", "notice", "seed", "numerics", "dataset", "model", "outcomes", "trainer", "strategy", "privacy")

OmegaConf.register_new_resolver("size", size, replace=True)
OmegaConf.register_new_resolver("bundle", bundled, replace=True)


def settle(cfg: DictConfig, *, backend: str = "none", where: Where = nowhere) -> Study:
    """Resolve and validate a composed configuration. Raises UserError with every mistake found.

    `backend` is the chosen option of the group `federation`.
    """
    problems = unresolved(cfg, where)
    if problems:
        raise UserError(problems)
    values: dict[Any, Any] = {key: _plain(cfg, str(key)) for key in cfg if key != "hydra"}
    live = isinstance(values["federation"], dict) and is_live(values["federation"])
    if values.get("site_file"):
        values["sites"] = {}
    elif live:
        values["sites"] = roster(values["sites"])
    config = conform(values, Config, "", where, problems)
    problems += [*_missing(values, "", where), *unread(cfg, where)]
    if prefix_problems("allow_targets", config.allow_targets):
        problems += prefix_problems(at("allow_targets", where), config.allow_targets)
    if config.job not in JOBS:
        problems.append(f"{at('job', where)}: there is no job {config.job!r}; {nearest(config.job, JOBS)}")
    file = Path(config.site_file).expanduser() if config.site_file else None
    where = moved(where, "sites.", str(file)) if file else where
    _settle_passes(config, where, problems)
    if reason := unfit_name(config.name):
        problems.append(f"{at('name', where)}: {config.name!r} {reason}")
    sites = _own_site(file, problems) if file and not problems else config.sites
    for name, site in sites.items():
        _settle_site(name, site, where, problems, live=live)
        if not file and not problems:
            site.policy = widened(site.policy, config.allow_targets)
    _absolute(config, "resume_from", "init", folder=Path.cwd())
    _settle_models(config, where, problems)
    _absolute(config.paths, "data_dir", "runs", "demo_dir", folder=Path.cwd())
    study = _study(config, sites, where, problems, backend=backend, live=live)
    study = replace(study, declared={key: OmegaConf.to_container(cfg[key]) for key in ("sites", "paths") if key in cfg})
    if problems:
        from flip.config.checks.study import code_problems

        raise UserError(unique(problems + code_problems(study)))
    return study


def unfit_name(name: str) -> str:
    """Why a study's name cannot be that of its folder of runs; empty where it can."""
    if name == MISSING or re.fullmatch(r"[^\W_][^/\\\x00-\x1f]{0,99}", name):
        return ""
    return "is the name of a folder too: a letter or digit, then at most 99 characters without / and \\"


def _settle_passes(config: Config, where: Where, problems: list[str]) -> None:
    """Steps that are set over the passes of a file take their place; a number of passes that would not count is named.

    That is one that was typed where steps were not, or stands in a file of the study's own (an experiment's).
    """
    trainer = config.trainer
    if trainer.steps is None or trainer.epochs is None:
        return
    steps, epochs = where("trainer.steps"), where("trainer.epochs")
    own = Path(epochs).parent.name != "trainer" and steps != COMMAND_LINE
    if epochs and (steps == epochs or epochs == COMMAND_LINE or own):
        problems.append(
            f"trainer.epochs ({epochs}): {trainer.epochs} would have no effect beside trainer.steps={trainer.steps} "
            f"({steps}); set one of the two to null"
        )
    trainer.epochs = None


def _settle_models(config: Config, where: Where, problems: list[str]) -> None:
    """One model, or a list of them, as absolute paths, and where their weights lie."""
    if config.given_at not in GIVEN_AT:
        problems.append(f"{at('given_at', where)}: {config.given_at!r} is none of {', '.join(GIVEN_AT)}")
    named = config.model_from if isinstance(config.model_from, list) else [config.model_from]
    named = [] if config.model_from is None else named
    if not all(isinstance(each, str) and each for each in named):
        problems.append(f"{at('model_from', where)}: must be the folder of a run or a file, or a list of such, or null")
        named = []
    config.model_from = [str(Path(each).expanduser().absolute()) for each in named]


def _given(config: Config, where: Where, problems: list[str]) -> list[str] | None:
    """The digests of the models and weights that were trained elsewhere; None without any."""
    found: list[str] = []
    named = [("model_from", path) for path in config.model_from] + ([("init", config.init)] if config.init else [])
    for key, path in named:
        try:
            found.append(
                read_model(Path(path)).whole_digest if key == "model_from" else digest(read_weights(Path(path)))
            )
        except UserError as error:
            problems += [f"{at(key, where)}: {problem}" for problem in error.problems]
    return list(dict.fromkeys(found)) or None


def _own_site(file: Path, problems: list[str]) -> dict[str, Site]:
    """The one site of a hospital's own file, by the file's name."""
    site = load_site(file)
    if site.secret == SIMULATED:
        problems.append(f"secret ({file}): '{SIMULATED}' protects nothing; name a file, or null for one of its own")
    site.policy = unasked(site.policy)
    return {file.stem: site}


def _settle_site(name: str, site: Site, where: Where, problems: list[str], *, live: bool) -> None:
    """A site's name, and its folders as seen from the working folder; those of a live site are its own machine's."""
    if not SITE_NAME.fullmatch(name):
        problems.append(f"{at(f'sites.{name}', where)}: a site's name is made of letters, digits, - and _")
    if name == POOLED:
        problems.append(f"{at(f'sites.{name}', where)}: is the name of the sites together; choose another")
    if not live:
        settle_paths(site, Path.cwd())


def roster(sites: object) -> object:
    """Of each site what a live federation's coordinator needs: whether it trains. The rest is in its own file."""
    if not isinstance(sites, Mapping):
        return sites
    kept = ("trains",)
    unread = {"root": "", "policy": PUBLIC}
    return {
        name: unread | {key: each[key] for key in kept if key in each} if isinstance(each, Mapping) else each
        for name, each in sites.items()
    }


def _study(
    config: Config, sites: dict[str, Site], where: Where, problems: list[str], *, backend: str, live: bool
) -> Study:
    manifest = {key: plain(getattr(config, key)) for key in STUDY_KEYS}
    problems += [
        f"{at(key, where)}: {value!r} cannot travel to a site; write a number, a text, a list or null"
        for key, value in _leaves(manifest, "")
        if not _is_json(value)
    ]
    if config.job == "predict" and not problems:
        manifest["dataset"] = _unlabeled(manifest["dataset"])
    manifest |= {
        "mechanisms": list(config.privacy),
        "engine": __version__,
        "code": code_digest(targets(manifest)),
        "given": _given(config, where, problems),
    }
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), default=str)
    return Study(
        manifest=json.loads(text),  # as the sites read it: every process sees the same order of keys
        manifest_text=text,
        manifest_sha256=hashlib.sha256(text.encode()).hexdigest(),
        job=config.job,
        backend=backend,
        live=live,
        federation=config.federation,
        sites=sites,
        site_file=config.site_file,
        resume_from=Path(config.resume_from) if config.resume_from else None,
        init=Path(config.init) if config.init else None,
        model_from=tuple(map(Path, config.model_from)),
        baselines=config.baselines,
        tracking=config.tracking,
        paths=config.paths,
        allow_targets=tuple(config.allow_targets),
        given_at=config.given_at,
        companions={name: Path(each).expanduser().absolute() for name, each in config.companions.items() if each},
        where=where,
    )


def _unlabeled(dataset: Mapping[str, object]) -> dict[str, object]:
    """A dataset of which what is predicted is not asked for, where its class can do without."""
    from flip.config.build import takes
    from flip.config.places import LABELED

    return {**dataset, LABELED: False} if takes(dataset, (LABELED,)) else {**dataset}


def _plain(cfg: DictConfig, key: str) -> object:
    if OmegaConf.is_missing(cfg, key):
        return UNSET
    value = cfg[key]
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _is_json(value: object) -> bool:
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value is None or (isinstance(value, str | int | float | bool) and finite)


def is_live(federation: Mapping[str, object]) -> bool:
    """Whether these settings name a backend whose server runs the loop: its sites hold their own files."""
    from flip.config.targets import TARGET, TargetError, resolve

    target = federation.get(TARGET)
    if not isinstance(target, str) or not target.startswith("flip.federation."):
        return False
    try:
        return hasattr(resolve(target), "submit")
    except TargetError:
        return False  # `flip.config.checks.study.check` names the mistake
