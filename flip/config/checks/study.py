"""Everything that can be wrong with a settled study, found before it runs: first what the configuration alone tells."""

import re
from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path

from omegaconf import MISSING

from flip.config import build
from flip.config.base_classes import callback_paths
from flip.config.checks.effects import without_effect
from flip.config.checks.models import unfit_models
from flip.config.checks.parts import pairings
from flip.config.checks.signatures import Slot, bind, wrong
from flip.config.checks.sites import PRECISIONS, one_of, site_problems
from flip.config.code import foreign_packages
from flip.config.places import refusals
from flip.config.study import Study
from flip.config.targets import COORDINATOR_TARGETS, STUDY_TARGETS, TARGET, TargetError, resolve
from flip.errors import UserError, Where, at, nearest, unique

SEEDS = 2**32  # as many as NumPy and Lightning take


def check(study: Study) -> None:
    """Find every mistake of a study before it runs. Raises UserError with all of them."""
    if foreign := foreign_packages():
        raise UserError(foreign)
    problems = [*code_problems(study), *site_problems(study), *_federation(study)]
    ignored: list[str] = []
    if not problems:
        problems, ignored = [*pairings(study)], without_effect(study)
    if problems or ignored:
        raise UserError(unique([*(_placed(problem, study.where) for problem in problems), *ignored]))


def code_problems(study: Study) -> list[str]:
    """The mistakes in targets and their arguments; also of a study that has others, as far as it was settled."""
    if foreign := foreign_packages():
        return foreign
    held = [slot for slot in slots(study) if slot.config != MISSING]
    problems = [problem for slot in held for problem in bind(slot, study.where)]
    if not problems and held:  # and what each site would refuse besides, by the manifest alone
        problems = [*refusals(study.manifest, (*STUDY_TARGETS, *study.allow_targets))]
    return [*problems, *_trainer(study)]


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
        Slot(
            "dataset", manifest["dataset"], code, build.FROM_SITE, build.IF_TAKEN, kind="dataset", places=("dataset",)
        ),
        Slot("model", manifest["model"], code, kind="model", places=("model",)),
        Slot("strategy", manifest["strategy"], code, kind="strategy", places=("strategy",)),
        *(
            Slot(f"privacy.{name}", each, code, kind="privacy", places=("privacy",))
            for name, each in manifest["privacy"].items()
        ),
        *(
            Slot(f"trainer.callbacks.{name}", each, code, kind="callback", places=("callback",))
            for name, each in trainer["callbacks"].items()
            if each
        ),
        *(
            Slot(f"tracking.{name}", each, ours, open=True, places=("tracker",))
            for name, each in study.tracking.items()
            if each
        ),
    ]
    if trainer["centralized"]["optimizer"]:
        found.append(
            Slot("trainer.centralized.optimizer", trainer["centralized"]["optimizer"], code, places=("optimizer",))
        )
    if manifest["outcomes"]:
        found.append(Slot("outcomes", manifest["outcomes"], code, kind="outcomes", places=("outcomes",)))
    if isinstance(study.federation, dict) and study.federation.get(TARGET) is not None:
        found.append(Slot("federation", study.federation, ours, places=("transport",)))
    return found


def _trainer(study: Study) -> Iterator[str]:
    trainer, seed = study.manifest["trainer"], study.manifest["seed"]
    if isinstance(seed, int) and not 0 <= seed < SEEDS:  # of another type it is a mistake of its own
        yield f"{at('seed', study.where)}: {seed} must be from 0 to {SEEDS - 1}"
    for name in trainer["lightning"]:
        if name not in build.LIGHTNING:
            key = at(f"trainer.lightning.{name}", study.where)
            yield f"{key}: is not the study's to set; {nearest(name, build.LIGHTNING)}"
    yield from _trainer_types(study, trainer["lightning"])
    yield from one_of(study, "trainer.lightning.precision", trainer["lightning"].get("precision"), PRECISIONS)
    for name, each in trainer["callbacks"].items():
        for key, reason in callback_paths(name, each) if isinstance(each, Mapping) else ():
            yield f"{at(key, study.where)}: {reason}"
    if trainer["steps"] is None and trainer["epochs"] is None:
        yield f"{at('trainer.steps', study.where)}: set trainer.steps or trainer.epochs; both are null"
    counts = {"steps": trainer["steps"], "epochs": trainer["epochs"], "threads": trainer["threads"]}
    for name, count in counts.items():
        if count is not None and count < 1:
            yield f"{at(f'trainer.{name}', study.where)}: {count} must be 1 or more"
    dataset = study.manifest["dataset"]
    workers = dataset.get("workers") if isinstance(dataset, Mapping) else None
    for key, many in {"trainer.threads": trainer["threads"], "dataset.workers": workers}.items():
        if isinstance(many, int) and many > MOST_AT_ONCE:
            yield f"{at(key, study.where)}: {many} must be at most {MOST_AT_ONCE}"
    if trainer["centralized"]["max_epochs"] < 1:
        key = at("trainer.centralized.max_epochs", study.where)
        yield f"{key}: {trainer['centralized']['max_epochs']} must be 1 or more"


def _trainer_types(study: Study, declared: Mapping[str, object]) -> Iterator[str]:
    """Values that Lightning's Trainer does not take by their type; `precision` is a closed list of its own."""
    if not declared:
        return
    from pytorch_lightning import Trainer

    parameters = signature(Trainer).parameters
    for name in sorted({*declared} & {*build.LIGHTNING} - {"precision"}):
        if reason := wrong(declared[name], parameters[name].annotation):
            yield f"{at(f'trainer.lightning.{name}', study.where)}: {reason}"


MOST_AT_ONCE = 256  # threads or processes, more than a hospital's machine has cores; of 10^6 threads PyTorch crashes
BESIDE = {  # by baseline, what it does beside a privacy mechanism, and its value that asks for none
    "alone": ("trains more on the same patients, and shows each site's model by itself", "false"),
    "fine_tuned": ("trains on without it", "null"),
    "centralized": ("trains without it", "false"),
}


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
    for baseline, (why, none) in BESIDE.items():
        if privacy and getattr(study.baselines, baseline):
            yield (
                f"{at(f'baselines.{baseline}', study.where)}: with privacy={privacy} it {why}, so what the run says of "
                f"privacy would not hold; set baselines.{baseline}={none}, or privacy=none in a run of its own"
            )
    if study.live and study.baselines.centralized:
        yield (
            f"{at('baselines.centralized', study.where)}: no machine has the data of all sites under "
            f"federation={study.backend}; set baselines.centralized=false"
        )
    compared = study.baselines.centralized or study.baselines.alone
    for name, each in study.manifest["trainer"]["callbacks"].items() if federated and not compared else ():
        if each:
            yield (
                f"{at(f'trainer.callbacks.{name}', study.where)}: the rounds of federation={study.backend} have no "
                "callbacks, so it would do nothing: strategy.stop ends a study early, and weights/best.safetensors are "
                f"kept in any case; set trainer.callbacks.{name}=null, or a baseline"
            )
    yield from unfit_models(study)
    if study.job == "plan":
        yield from _plan(study)
    if study.resume_from is not None:
        yield from _resume(study, study.resume_from, federated)


def _plan(study: Study) -> Iterator[str]:
    """What `job=plan` needs: a dataset that can propose settings; one that cannot be found is told of elsewhere."""
    target = str(study.manifest["dataset"].get(TARGET))
    try:
        plans = hasattr(resolve(target), "planned")
    except TargetError:
        return
    if not plans:
        yield (
            f"{at('job', study.where)}: plan is for a dataset that can propose settings (dataset=segmentation), not "
            f"{target}"
        )


def _resume(study: Study, path: Path, federated: bool) -> Iterator[str]:
    """A checkpoint to go on from."""
    key = f"{at('resume_from', study.where)}: {path}"
    if federated:
        yield f"{key} is for training without federation; set resume_from=null, or federation=none"
    if path.suffix != ".ckpt":
        yield f"{key} does not end in .ckpt; give a checkpoint that Lightning's ModelCheckpoint wrote"
    elif not path.is_file():
        yield f"{key} is no file on this machine; give a checkpoint that Lightning's ModelCheckpoint wrote"
