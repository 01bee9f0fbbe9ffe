"""Models that were trained elsewhere: whether the job applies any, and whether they are of this study."""

from collections.abc import Iterator, Sequence
from inspect import getmro, isclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flip.config.build import takes
from flip.config.bundle import read_model
from flip.config.jobs import JOBS
from flip.config.places import LABELED
from flip.config.schema import SITES
from flip.config.study import Study
from flip.config.targets import LIBRARIES, TARGET, resolve
from flip.contracts import GivesScans
from flip.errors import UserError, at, first
from flip.messages import Payload
from flip.messages.match import match
from flip.messages.model_file import ModelFile, load_model
from flip.messages.weights import to_arrays
from flip.messages.weights_file import read_weights

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule

FROM, INIT = "model_from", "init"
SHOWN = 3  # arrays that a mistake names
PREDICTS = "predict_step"  # Lightning's name: every module has one, which is of use where it is its own
FREE = (
    "augment", "batch_size", "demo", "demo_patients", "labeled", "partition", "records", "split", "subgroups",
    "workers",
)  # fmt: skip
"""Of a dataset: what changes which rows are read, and not how one is prepared."""


def unfit_models(study: Study) -> Iterator[str]:
    """What a job that applies models needs: so many of them, and for some jobs `outcomes`, or the data here."""
    most, named, where = JOBS[study.job].applies, len(study.model_from), study.where
    if named and not most:
        appliers = ", ".join(f"job={name}" for name, job in JOBS.items() if job.applies)
        yield f"{at(FROM, where)}: job={study.job} applies no model; set model_from=null, or one of {appliers}"
    elif named > most:
        yield f"{at(FROM, where)}: names {named} models, and job={study.job} applies {most}"
    elif most and not named:
        yield f"{at(FROM, where)}: has no value; set it to the folder of a finished run, model_from=runs/NAME/TIME"
    for name, path in study.companions.items():
        yield from _companion(study, at(f"companions.{name}", study.where), path)
    if study.init is not None and not JOBS[study.job].trains:
        yield f"{at(INIT, where)}: job={study.job} trains nothing; set init=null, or model_from for a model to apply"
    if study.init is not None and study.resume_from is not None:
        yield f"{at(INIT, where)}: a training that goes on from resume_from begins from no other; set one to null"
    yield from _at_sites(study)
    if study.job in ("measure", "predict") and study.live:
        yield f"{at('job', study.where)}: {study.job} runs where the data are; at a hospital with site_file=site.yaml"
    if study.job == "predict":
        yield from _unpredictable(study)
    if study.job == "measure" and not (study.manifest["outcomes"] or {}).get(TARGET):
        yield f"{at('outcomes', study.where)}: the study has none, so there is nothing to measure; choose one that has"


def _unpredictable(study: Study) -> Iterator[str]:
    """Why rows without labels cannot be read by the dataset, or not be predicted by the model, one by one."""
    dataset, model = (str(study.manifest[part][TARGET]) for part in ("dataset", "model"))
    if LABELED not in takes(study.manifest["dataset"], (LABELED,)):
        yield f"{at('dataset', study.where)}: {dataset} reads no rows without labels ({LABELED}=false), for job=predict"
    kinds = getmro(made) if isclass(made := resolve(model)) else ()
    if not any(PREDICTS in vars(each) and each.__module__.split(".")[0] not in LIBRARIES for each in kinds):
        yield f"{at('model', study.where)}: {model} has no {PREDICTS} of its own, so job=predict has nothing to write"


def _companion(study: Study, key: str, path: Path) -> Iterator[str]:
    """A model that the outcomes use besides."""
    if study.job != "measure":
        yield f"{key}: {path} is read by job=measure alone; set it to null, or job=measure"
        return
    try:
        load_model(path)
    except UserError as error:
        yield from (f"{key}: {problem}" for problem in error.problems)


def _shapes(arrays: Payload) -> str:
    """The first arrays of some weights, by name and shape."""
    found = [f"{name} {list(array.shape)}" for name, array in arrays.items()]
    return first(found, SHOWN) or "none"


def other_models(study: Study, model: "TrainableModule") -> Iterator[str]:
    """Whether the models of `model_from` are of this study's model and of rows that are prepared as its are."""
    own, where = to_arrays(model), study.where
    if study.init is not None and not match(own, held := read_weights(study.init)).taken:
        yield (
            f"{at(INIT, where)}: {study.init} has no array of the name and shape of one of this model's: it has "
            f"{_shapes(held)}, and the model {_shapes(own)}; name weights of this network, or set init=null"
        )
    for path in study.model_from:
        try:
            given = read_model(path)
        except UserError as error:
            yield from (f"{at(FROM, where)}: {problem}" for problem in error.problems)
            continue
        if why := _other_weights(own, given):
            yield f"{at(FROM, where)}: {path} is of another model than this study's: {why}; name a run of this one"
        elif others := _other_dataset(study, given):
            yield (
                f"{at(FROM, where)}: {path} was trained with another {', '.join(others)}, so rows would be prepared "
                "otherwise than in the training; set it as in the run.yaml of that run"
            )


def _at_sites(study: Study) -> Iterator[str]:
    """Weights that the sites are to have themselves, where none are asked for or training would send them after all."""
    if study.given_at != SITES:
        return
    key = at("given_at", study.where)
    if study.backend == "none" or not (study.init or study.job == "evaluate"):
        yield f"{key}: only init and job=evaluate send given weights, over sites; leave it out"


def unsent(study: Study, module: "TrainableModule", shared: Sequence[str]) -> Iterator[str]:
    """Given weights that lie at the sites, of which the rounds would send some."""
    if study.given_at == SITES and study.init is not None:
        taken = match(to_arrays(module), read_weights(study.init)).taken
        if sent := sorted({*taken} & {*shared}):
            yield (
                f"{at('given_at', study.where)}: init gives {sent[0]}, which the rounds send; have strategy.share name "
                "other weights alone, or given_at=coordinator"
            )


def _other_weights(own: dict[str, np.ndarray], given: ModelFile) -> str:
    """In what the weights differ from a model's in name or shape; empty where they are all of it and nothing else."""
    if unknown := sorted({*given.weights} - {*own}):
        return f"the model has no parameter '{unknown[0]}'"
    if missing := sorted({*own} - {*given.weights}):
        return f"it has no '{missing[0]}', as where strategy.share left it at the sites"
    for name, array in given.weights.items():
        if array.shape != own[name].shape or array.dtype != own[name].dtype:
            return f"'{name}' has shape {array.shape}, the model wants {own[name].shape}"
    return ""


def _other_dataset(study: Study, given: ModelFile) -> list[str]:
    """The keys of `dataset` in which the training differs, as far as they say how a row is prepared."""
    now, then = study.manifest["dataset"], given.manifest.get("dataset") or {}
    names = {*now, *then}
    if then and TARGET not in then:  # of a bundle, which says no more than how an image is prepared
        names = {*then}
    elif isinstance(resolve(str(now[TARGET])), GivesScans):  # of another class than the training's
        names = {*now} & {*then} - {TARGET}
    return [f"dataset.{name}" for name in sorted(names - {*FREE}) if now.get(name) != then.get(name)]
