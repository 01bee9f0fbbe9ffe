"""Whether a study asks for what no site sends under a mechanism that protects persons (`Mechanism.private`)."""

from collections.abc import Iterator, Mapping

from flip.config import build
from flip.config.study import Study
from flip.contracts import Agrees, Decides, FederatedDataModule, Fits
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
    if study.job in ("statistics", "plan"):
        yield f"{at('job', study.where)}: {study.job} rests on what describes the cohorts, {unsent}; set privacy=none"
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
        takes = _fitted(build.declared(study.manifest["dataset"]))
    except UserError:
        return  # its own mistakes are told elsewhere
    for key, (what, remedy) in takes.items():
        yield (
            f"{at(key, study.where)}: prepares the examples by {what}, to which privacy.{name} gives no noise, so that "
            f"epsilon would not hold; {remedy}; or privacy=none"
        )


def _fitted(data: FederatedDataModule) -> Mapping[str, tuple[str, str]]:
    """What a dataset's examples are prepared by that is computed from rows: see `Fits`."""
    if isinstance(data, Fits):
        return data.fitted
    remedy = "choose a dataset that is prepared without, as a table with declared ranges, or give it `fitted`"
    return {"dataset": ("sums over the rows of all sites", remedy)} if isinstance(data, Agrees) else {}
