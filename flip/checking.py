"""Everything that can be wrong with a settled study, found before it runs: code, arguments, pairings, cohorts."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from flip import build
from flip.binding import Slot, bind
from flip.config import Study
from flip.errors import UserError
from flip.policy import Policy
from flip.suggest import Where, at, nearest, unique
from flip.targets import COORDINATOR_TARGETS, STUDY_TARGETS, TARGET, foreign_packages

FROM_SITE = ("root", "columns", "trains")


def check(study: Study) -> None:
    """See `flip.build.check`."""
    if foreign := foreign_packages():
        raise UserError(foreign)
    problems = [*code_problems(study), *_sites(study), *_federation(study)]
    if not problems:
        problems = [*_built(study)]
    if problems:
        raise UserError(unique(_placed(problem, study.where) for problem in problems))


def code_problems(study: Study) -> list[str]:
    """The mistakes in targets and their arguments; also of a study that has others, as far as it was settled."""
    if foreign := foreign_packages():
        return foreign
    held = [slot for slot in slots(study) if slot.config != MISSING]
    return [problem for slot in held for problem in bind(slot, study.where)] + [*_trainer(study)]


def _placed(problem: str, where: Where) -> str:
    """A problem that a part of the study named by its key, with the place where that stands."""
    found = re.match(r"([a-z]\w*(?:\.\w+)*)(=[^:]*)?: ", problem)
    place = where(found.group(1)) if found else ""
    if found is None or not place:
        return problem
    return f"{problem[: found.end() - 2]} ({place}): {problem[found.end() :]}"


def slots(study: Study) -> list[Slot]:
    """Every place of the configuration that holds a target."""
    manifest, own = study.manifest, study.allow_targets
    code, ours = (*STUDY_TARGETS, *own), (*COORDINATOR_TARGETS, *own)
    trainer = manifest["trainer"]
    found = [
        Slot("dataset", manifest["dataset"], code, given=FROM_SITE),
        Slot("model", manifest["model"], code),
        Slot("strategy", manifest["strategy"], code),
        *(Slot(f"privacy.{name}", each, code) for name, each in manifest["privacy"].items()),
        *(Slot(f"trainer.callbacks.{name}", each, code) for name, each in trainer["callbacks"].items() if each),
        *(Slot(f"tracking.{name}", each, ours, open=True) for name, each in study.tracking.items() if each),
    ]
    if trainer["centralized"]["optimizer"]:
        found.append(Slot("trainer.centralized.optimizer", trainer["centralized"]["optimizer"], code))
    if manifest["outcomes"]:
        found.append(Slot("outcomes", manifest["outcomes"], code))
    if isinstance(study.federation, dict) and study.federation.get(TARGET) is not None:
        found.append(Slot("federation", study.federation, ours))
    return found


def _trainer(study: Study) -> Iterator[str]:
    trainer = study.manifest["trainer"]
    for name in trainer["lightning"]:
        if name not in build.LIGHTNING:
            key = at(f"trainer.lightning.{name}", study.where)
            yield f"{key}: is not the study's to set; {nearest(name, build.LIGHTNING)}"
    for name, each in trainer["callbacks"].items():
        if each and build.CHECKPOINTS in each:
            key = at(f"trainer.callbacks.{name}.{build.CHECKPOINTS}", study.where)
            yield f"{key}: is the engine's to set, below the run folder; leave it out"
    if trainer["steps"] is None and trainer["epochs"] is None:
        yield f"{at('trainer.steps', study.where)}: set trainer.steps or trainer.epochs; both are null"
    for name in ("steps", "epochs", "threads"):
        if trainer[name] is not None and trainer[name] < 1:
            yield f"{at(f'trainer.{name}', study.where)}: {trainer[name]} must be 1 or more"
    if trainer["centralized"]["max_epochs"] < 1:
        key = at("trainer.centralized.max_epochs", study.where)
        yield f"{key}: {trainer['centralized']['max_epochs']} must be 1 or more"


def _sites(study: Study) -> Iterator[str]:
    """A site's policy and data root."""
    if not study.sites:
        yield "sites: there is none; choose some, as in sites=[a,b]; python -m flip --help lists them"
    elif not any(site.trains for site in study.sites.values()):
        yield "sites: none of them trains; set sites.NAME.trains=true for one"
    for name, site in study.sites.items():
        try:
            Policy.read(name, site.policy, deployed=study.site_file is not None)
        except UserError as error:
            yield from error.problems


def _federation(study: Study) -> Iterator[str]:
    """Pairings that cannot work, as far as the configuration alone tells."""
    federated = study.federation.get(TARGET) is not None
    privacy = ", ".join(study.manifest["mechanisms"])
    if study.site_file and federated:
        yield (
            f"site_file={study.site_file}: one hospital has nobody to federate with; "
            f"drop federation={study.backend}, or site_file"
        )
    if privacy and not federated:
        yield (
            f"without federation a site sends nothing, so privacy={privacy} would protect nothing; "
            "choose a backend (federation=inprocess) or privacy=none"
        )


def _built(study: Study) -> Iterator[str]:
    """What only shows when the parts are made: constructors that raise, unfit pairings, cohorts that cannot be used."""
    problems: list[str] = []
    manifest = study.manifest
    model = _try(lambda: build.model(manifest), problems)
    strategy = _try(lambda: build.strategy(manifest), problems)
    mechanisms = _try(lambda: build.mechanisms(manifest), problems) or []
    if manifest["trainer"]["centralized"]["optimizer"]:
        _try(lambda: build.model(manifest, centralized=True), problems)
    for make in (build.outcomes, build.callbacks):
        _try(lambda make=make: make(manifest), problems)  # type: ignore[misc]
    _try(lambda: build.transport(study), problems)
    if model is not None:
        yield from _model_contract(model)
    settings = _try(lambda: build.trainer_arguments(manifest), []) or {}  # its mistakes are `_trainer`'s to tell
    yield from problems
    for mechanism, name in zip(mechanisms, manifest["mechanisms"], strict=False):
        if strategy is not None and strategy.needs not in mechanism.strategies:
            yield (
                f"strategy and privacy.{name}: {type(strategy).__name__} needs every site's reply apart, which "
                f"{type(mechanism).__name__} does not show; choose another strategy or privacy=none"
            )
        if model is not None:
            checked: list[str] = []
            _try(lambda mechanism=mechanism: mechanism.check(model, settings), checked)  # type: ignore[misc]
            yield from checked
    if strategy is not None and study.federation.get(TARGET) is not None:
        if model is not None:
            shared: list[str] = []
            _try(lambda: strategy.shared(model), shared)
            yield from shared
        yield from _roster(study, strategy)
    yield from _cohorts(study)


def _model_contract(model: Any) -> Iterator[str]:
    """What the engine needs of a module: metrics whose states can be summed over sites, and which is the main one."""
    name = type(model).__name__
    for attribute in ("metrics", "monitor", "higher_is_better"):
        if not hasattr(model, attribute):
            yield f"model: {name} has no `{attribute}`; README.md says what a model must offer"
    for metric, made in getattr(model, "metrics", {}).items():
        for state, reduce in made._reductions.items():
            if getattr(reduce, "__name__", "") != "dim_zero_sum":
                yield (
                    f"model: state '{state}' of {name}'s metric '{metric}' is not a sum, so it would hold values of "
                    "single patients; choose a metric whose states are sums, such as a binned one (thresholds=100)"
                )


def _roster(study: Study, strategy: Any) -> Iterator[str]:
    """The strategy's numbers and names against the sites that train."""
    training = [name for name, site in study.sites.items() if site.trains]
    if strategy.min_sites > len(training):
        key = at("strategy.min_sites", study.where)
        yield f"{key}: {strategy.min_sites} of {len(training)} training sites can never answer; lower it or add sites"
    for name in strategy.site_weights or {}:
        if name not in study.sites:
            key = at(f"strategy.site_weights.{name}", study.where)
            yield f"{key}: there is no such site; {nearest(name, study.sites)}"
    for name in training:
        if strategy.site_weights is not None and name not in strategy.site_weights:
            key = at("strategy.site_weights", study.where)
            yield f"{key}: has no weight for {name}; add one, or set site_weights: null"


def _cohorts(study: Study) -> Iterator[str]:
    """Each site's data root and number of persons."""
    for name, site in study.sites.items():
        key = at(f"sites.{name}.root", study.where)
        remedy = "set root to the cohort, or paths.data_dir (FLIP_DATA_DIR) to the folder that holds it"
        try:
            persons = build.persons(build.datamodule(study.manifest, name, site))
        except UserError as error:
            yield from error.problems
            continue
        except build.DataError as error:
            text = str(error)
            missing = not Path(site.root).exists()
            yield (
                f"{key}: {site.root} does not exist; {remedy}"
                if missing
                else f"{key}: {site.root} cannot be used: {text}"
            )
            continue
        if persons == 0:
            yield f"{key}: {site.root} holds no person; {remedy}, or leave the site out with ~sites.{name}"


def _try(make: Callable[[], Any], problems: list[str]) -> Any:
    try:
        return make()
    except UserError as error:
        problems += error.problems
        return None
