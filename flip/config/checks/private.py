"""Whether a study asks for what no site sends under a mechanism that protects persons (`Mechanism.private`)."""

from collections.abc import Iterator

from flip.config import build
from flip.config.study import Study
from flip.contracts import Decides
from flip.contracts.dataset import needs_agreement
from flip.contracts.model import FederatedModule
from flip.errors import UserError, at
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg


def protecting(study: Study) -> list[str]:
    """The names of a study's mechanisms that protect persons."""
    named = zip(study.manifest["mechanisms"], build.mechanisms(study.manifest), strict=True)
    return [name for name, each in named if each.private]


def private_problems(
    study: Study, name: str, mechanism: Mechanism, *, model: FederatedModule | None, strategy: FedAvg | None
) -> Iterator[str]:
    """A sentence for each thing that rests on numbers without noise; `name` is the mechanism's in the study."""
    if not mechanism.private:
        return
    if (first := protecting(study)[0]) != name:
        yield f"{at(f'privacy.{name}', study.where)}: privacy.{first} protects persons already; leave one of them out"
        return
    unsent = f"which no site sends under privacy.{name}"
    if study.job == "statistics":
        yield f"{at('job', study.where)}: statistics describes the cohorts, {unsent}; set privacy=none"
    if strategy is not None and strategy.early is not None:
        yield f"{at('strategy.stop', study.where)}: watches validation metrics, {unsent}; set strategy.stop=null"
    if isinstance(model, Decides) and model.chooses_threshold:
        yield (
            f"{at('model', study.where)}: chooses its decision threshold by validation counts, {unsent}; set the "
            "threshold to a number, as model.head.threshold=0.5"
        )
    for callback, each in study.manifest["trainer"]["callbacks"].items():
        if each and each.get("monitor") is not None:
            key = f"trainer.callbacks.{callback}"
            yield f"{at(key, study.where)}: chooses by numbers that privacy.{name} does not protect; set {key}=null"
    try:
        agrees = needs_agreement(build.declared(study.manifest["dataset"]))
    except UserError:
        return  # its own mistakes are told elsewhere
    if agrees:
        yield (
            f"{at('dataset', study.where)}: needs sums over the persons of all sites before the first round (scales of "
            f"numbers, levels, words, weights of classes), {unsent}; choose a dataset that needs none, as images with "
            "labels or a table with scaling: site, or privacy=none"
        )
