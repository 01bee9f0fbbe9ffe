"""A study as a site receives it: everything that the coordinator's check finds in a manifest, found again.

A manifest comes from elsewhere, so that nothing says that anybody has checked it.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from flip.config.checks.optimization import optimization
from flip.config.checks.parts import pairings
from flip.config.checks.rounds import unfit_stop
from flip.config.checks.study import code_problems
from flip.config.conform import _leaves, _missing, conform
from flip.config.policy import PUBLIC
from flip.config.resolve import STUDY_KEYS, unfit_name
from flip.config.rules import is_sha256
from flip.config.schema import Baselines, Config, Paths, Site
from flip.config.study import Manifest, Study, plain
from flip.errors import UserError, nowhere
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule

HERE = "this_site"  # the one site of a study that a site checks, for messages
OWN_KEYS = ("mechanisms", "engine", "code", "given")  # of a manifest: the engine's


def read_manifest(text: str) -> Manifest:
    """A manifest's keys and values. Raises UserError for anything else than the keys that a manifest has."""
    try:
        manifest = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError("the manifest is no JSON") from error
    keys = {*STUDY_KEYS, *OWN_KEYS}
    if not isinstance(manifest, dict) or {*manifest} != keys:
        raise UserError(f"the manifest must hold {', '.join(sorted(keys))}, and nothing else")
    return cast(Manifest, manifest)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


@lru_cache(maxsize=8)  # the sites of a simulation receive the same
def manifest_problems(text: str, allowed: tuple[str, ...], precision: str | None) -> tuple[str, ...]:
    """Every mistake of a study that its manifest shows, or its parts once they are made; none of its data is read.

    `allowed` are the prefixes that the site's policy allows, `precision` is the site's own.
    """
    manifest = read_manifest(text)
    problems = _schema(manifest)
    if problems:
        return tuple(problems)
    study = _study(manifest, text, allowed, precision)
    return tuple(code_problems(study) or pairings(study))


def _schema(manifest: Manifest) -> list[str]:
    """What does not fit the schema, or is written otherwise than a coordinator does."""
    declared: dict[str, Any] = {key: value for key, value in manifest.items() if key in STUDY_KEYS}
    problems = [f"{key}: a text to be resolved" for key, value in _leaves(declared, "") if "${" in str(value)]
    if problems:
        return problems
    config = conform(declared, Config, "", nowhere, problems)
    problems += _missing(declared, "", nowhere)
    for key in STUDY_KEYS if not problems else ():
        if plain(getattr(config, key)) != declared[key]:
            problems.append(f"{key}: is not written as a settled study has it")
    if not problems and (reason := unfit_name(config.name)):
        problems.append(f"name: {reason}")
    mechanisms = manifest["mechanisms"]
    if not problems and (not isinstance(mechanisms, list) or sorted(map(str, mechanisms)) != sorted(config.privacy)):
        problems.append("mechanisms: are not those of privacy")
    given = manifest["given"]
    if given is not None and not (isinstance(given, list) and given and all(map(is_sha256, given))):
        problems.append("given: must be null, or a list of digests of weights")
    return problems


def _study(manifest: Manifest, text: str, allowed: Sequence[str], precision: str | None) -> Study:
    """The study as far as a site knows it: no other site, no transport, no folder."""
    return Study(
        manifest=manifest,
        manifest_text=text,
        manifest_sha256="",
        job="train",
        backend="",
        live=True,
        federation={},
        sites={HERE: Site(root="", policy=PUBLIC, precision=precision)},
        site_file=None,
        resume_from=None,
        init=None,
        model_from=(),
        baselines=Baselines(),
        tracking={},
        paths=Paths(),
        allow_targets=tuple(allowed),
    )


def rounds_of(manifest: Manifest, module: "TrainableModule", strategy: FedAvg) -> tuple[Sequence[str], Sequence[str]]:
    """The names of the weights that travel in rounds, and why the module cannot be trained in them."""
    problems = [*optimization(manifest, module, strategy), *unfit_stop(strategy, module)]
    try:
        return strategy.shared(module), problems
    except UserError as error:
        return (), [*problems, *error.problems]
