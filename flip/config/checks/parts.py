"""What only shows when a study's parts are made: constructors that raise, pairings that cannot work, unfit cohorts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flip.config import build
from flip.config.checks.callbacks import NO_VALIDATION, watched, watching_validation
from flip.config.checks.devices import unfit_devices
from flip.config.checks.hooks import in_part, misspelt
from flip.config.checks.models import other_models
from flip.config.checks.noise import noise_problems
from flip.config.checks.optimization import configured, optimization
from flip.config.checks.parameters import parameter_problems
from flip.config.checks.private import private_problems
from flip.config.checks.rounds import rounds_problems
from flip.config.checks.subgroups import subgroup_problems
from flip.config.checks.sums import sum_problems
from flip.config.data_source import data_source
from flip.config.jobs import JOBS
from flip.config.schema import Site
from flip.config.study import Manifest, Study
from flip.config.targets import TARGET, resolve
from flip.contracts import KINDS, DeclaresSizes, FederatedDataModule, LoadsQuickly, NamesPersons, WantsSizes
from flip.errors import UserError, at
from flip.messages import Result
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    import pytorch_lightning as lightning

    from flip.contracts.model import TrainableModule


ABSENT = "not exist"
REMEDY = "set root to the cohort, or paths.data_dir (FLIP_DATA_DIR) to the folder that holds it"


def pairings(study: Study) -> Iterator[str]:
    """What only shows when the parts are made: constructors that raise, unfit pairings, cohorts that cannot be used."""
    problems: list[str] = []
    manifest = study.manifest
    model = _try(lambda: build.model(manifest), problems)
    strategy = _try(lambda: build.strategy(manifest), problems)
    mechanisms = _try(lambda: build.mechanisms(manifest), problems) or []
    outcomes = _try(lambda: build.outcomes(manifest), problems)
    for part in (build.transport, build.trackers):
        _try(lambda part=part: part(study), problems)  # type: ignore[misc]
    if model is not None:
        yield from model_contract(model)
        yield from _declared(manifest, model)
        yield from other_models(study, model)
    settings = _try(lambda: build.trainer_arguments(manifest), []) or {}  # its mistakes are `_trainer`'s to tell
    if study.live or study.job != "train":  # else it is built over each site's data, below
        _try(lambda: build.declared(manifest["dataset"]), problems)
    callbacks = _try(lambda: build.callbacks(manifest), problems) or []
    yield from problems
    yield from _misspelt(manifest, {"model": model, "strategy": strategy, "outcomes": outcomes}, mechanisms)
    for mechanism, name in zip(mechanisms, manifest["mechanisms"], strict=False):
        if strategy is not None:
            yield from (*_together(strategy, mechanism, name), *sum_problems(study, name, mechanism, strategy))
            yield from noise_problems(study, name, mechanism, strategy)
        if model is not None:
            yield from _protected(study, mechanism, model, settings)
        yield from private_problems(study, name, mechanism, model=model, strategy=strategy)
    yield from _training(study, model, strategy, callbacks)
    yield from _devices(study, model, mechanisms, settings)
    yield from _cohorts(study)


def _devices(
    study: Study,
    model: "TrainableModule | None",
    mechanisms: Sequence[Mechanism],
    settings: Mapping[str, object],
) -> Iterator[str]:
    """Sites whose several devices cannot train this study together."""
    if model is None or not JOBS[study.job].trains:
        return
    for name, site in study.sites.items():
        key = at(f"sites.{name}.devices", study.where) if site.devices > 1 else ""
        if key and study.federation.get(TARGET) is None:
            yield f"{key}: without federation one device trains; set devices: 1, or choose federation=inprocess"
        if reason := unfit_devices(site, study.manifest, model, mechanisms, settings):
            yield f"{key}: {site.devices}: {reason}"


def _together(strategy: FedAvg, mechanism: Mechanism, name: str) -> Iterator[str]:
    """Why a mechanism cannot serve a strategy."""
    key, kind = f"strategy and privacy.{name}", type(strategy).__name__
    if strategy.needs not in mechanism.strategies:
        yield (
            f"{key}: {kind} needs every site's reply apart, which {type(mechanism).__name__} does not show; choose "
            "another strategy or privacy=none"
        )
    if strategy.own is not None:
        yield (
            f"{key}: {kind} has each site fit a second model in a round, which {type(mechanism).__name__} would not "
            "count; choose another strategy or privacy=none"
        )


def _training(
    study: Study, model: "TrainableModule | None", strategy: FedAvg | None, callbacks: "Sequence[lightning.Callback]"
) -> Iterator[str]:
    """Whether the model can be trained as the study says: in rounds, and for what is trained without them."""
    if model is not None and (unfit := [*parameter_problems(model)]):
        yield from unfit
        model = None
    federated = study.federation.get(TARGET) is not None
    if model is not None and (not federated or study.baselines.centralized or study.baselines.alone):
        problems: list[str] = []
        own = study.manifest["trainer"]["centralized"]["optimizer"]
        alone = _try(lambda: build.model(study.manifest, centralized=True), problems) if own else model
        if alone is not None:
            configured(study.manifest, alone, problems, centralized=True)
            yield from (*problems, *watched(callbacks, alone))
    if strategy is not None and federated:
        if (further := study.baselines.fine_tuned) is not None and not 1 <= further <= strategy.rounds:
            yield (
                f"{at('baselines.fine_tuned', study.where)}: {further} is not from 1 to strategy.rounds="
                f"{strategy.rounds}; each site trains the final weights so many rounds further, or null: not at all"
            )
        yield from optimization(study.manifest, model, strategy) if model is not None else ()
        yield from rounds_problems(study, strategy, model)


def _misspelt(manifest: Manifest, parts: Mapping[str, object], mechanisms: Sequence[Mechanism]) -> Iterator[str]:
    """Names in the study's classes that are nearly a hook's, and hooks that they have in part."""
    dataset = resolve(str(manifest["dataset"][TARGET]))
    yield from (*misspelt("dataset", "dataset", dataset), *in_part("dataset", "dataset", dataset))
    for kind, made in parts.items():
        yield from misspelt(kind, kind, made) if made is not None else ()
        yield from in_part(kind, kind, made) if made is not None and kind in KINDS else ()
    for metric in {type(each): each for each in getattr(parts["model"], "metrics", {}).values()}.values():
        yield from misspelt("metric", "model", metric)
    for name, mechanism in zip(manifest["mechanisms"], mechanisms, strict=False):
        yield from misspelt("privacy", f"privacy.{name}", mechanism)


def _protected(
    study: Study, mechanism: Mechanism, model: "TrainableModule", settings: Mapping[str, object]
) -> Iterator[str]:
    """Whether a mechanism can protect the model, as the study trains it and as each site does in its own precision."""
    problems: list[str] = []
    _try(lambda: mechanism.check(model, settings), problems)
    for name, site in study.sites.items():
        if site.trains and site.precision is not None and not problems:
            found: list[str] = []
            own = {**settings, "precision": site.precision}
            _try(lambda own=own: mechanism.check(model, own), found)  # type: ignore[misc]
            key = at(f"sites.{name}.precision", study.where)
            yield from (f"{key}: {site.precision} cannot be had: {problem}" for problem in found)
    yield from problems


def model_contract(model: object) -> Iterator[str]:
    """What the engine needs of a module: metrics whose states can be summed over sites, and which is the main one."""
    name = type(model).__name__
    for attribute in ("metrics", "monitor", "higher_is_better"):
        if not hasattr(model, attribute):
            yield f"model: {name} has no `{attribute}`; README.md says what a model must offer"
    summed = {**dict(getattr(model, "metrics", {}).items()), **dict(getattr(model, "subgroup_metrics", {}).items())}
    for metric, made in summed.items():
        for state, reduce in made._reductions.items():
            if getattr(reduce, "__name__", "") != "dim_zero_sum":
                yield (
                    f"model: state '{state}' of {name}'s metric '{metric}' is not a sum, so it would hold values of "
                    "single patients; choose a metric whose states are sums, such as a binned one (thresholds=100)"
                )


def _declared(manifest: Manifest, model: "TrainableModule") -> Iterator[str]:
    """Whether the model is made for what the dataset declares: its subgroups, and what its target gives."""
    dataset = _try(lambda: build.declared(manifest["dataset"]), [])
    if dataset is not None:
        yield from subgroup_problems(model, dataset)
    if not isinstance(model, WantsSizes) or not isinstance(dataset, DeclaresSizes):
        return
    given = {name: number for name, number in dataset.declared_sizes().items() if name.startswith("target.")}
    for name, number in model.wanted_sizes().items():
        if given and given.get(name) != number:
            found = ", ".join(f"{each}={given[each]}" for each in sorted(given))
            yield (
                f"model: {type(model).__name__} is made for {name}={number}, and dataset.target gives {found}; choose "
                f"the head of that target, and ${{size:{name}}} or that number in it"
            )


def _cohorts(study: Study) -> Iterator[str]:
    """Each site's data root and number of persons, where this machine has them; other jobs look for themselves."""
    if study.live or not JOBS[study.job].trains:
        return
    loaded: dict[str, FederatedDataModule] = {}
    absent: dict[str, str] = {}
    for name, site in study.sites.items():
        try:
            reason = _unusable(study, name, site, loaded)
        except UserError as error:
            yield from error.problems
            continue
        if not reason:
            continue
        key = at(f"sites.{name}.root", study.where)  # only now: looking it up reads the configuration again
        if reason == ABSENT:
            absent[key] = site.root
        else:
            yield f"{key}: {reason}"
    if absent:  # one mistake, of a folder that is elsewhere, however many sites are in it
        roots, source = list(dict.fromkeys(absent.values())), data_source(study.where(f"dataset.{TARGET}"))
        get = f"get or make the data ({source}), then " if source else ""
        yield f"{', '.join(absent)}: {', '.join(roots)} {'does' if len(roots) == 1 else 'do'} {ABSENT}; {get}{REMEDY}"
    training = [name for name, site in study.sites.items() if site.trains]
    if training and {*training} <= {*loaded} and not any(_validates(loaded[name]) for name in training):
        stops = study.federation.get(TARGET) is not None and study.manifest["strategy"].get("stop") is not None
        for key in watching_validation(study.manifest["trainer"]["callbacks"], stops=stops):
            yield f"{at(key, study.where)}: {NO_VALIDATION}, or set {key}=null"


def _validates(data: FederatedDataModule) -> bool:
    """Whether a cohort has a validation split; no loader is made of rows that wait for what sites agree on."""
    if isinstance(data, NamesPersons):
        return len(data.whose("validate")) > 0
    return bool(data.val_dataloader())


def _unusable(study: Study, name: str, site: Site, loaded: dict[str, FederatedDataModule]) -> str:
    """What is wrong with a site's data; empty where nothing is. Those that load quickly are put among the loaded ones.

    Raises UserError for arguments that do not fit them.
    """
    try:
        data = build.datamodule(study.manifest, name, site)
        persons = build.persons(data)
        if persons and isinstance(data, LoadsQuickly) and data.loads_quickly:
            build.load_cohort(data)
            loaded[name] = data
    except build.DataError as error:
        return f"{site.root} cannot be used: {error}" if Path(site.root).exists() else ABSENT
    return "" if persons else f"{site.root} holds no person; {REMEDY}, or leave the site out with ~sites.{name}"


def _try(make: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return make()
    except UserError as error:
        problems += error.problems
        return None
