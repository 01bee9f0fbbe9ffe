"""What the engine asks of a study's classes: what each must have, and each hook that it may have.

A class need not import these protocols; it has a hook by having the methods and attributes that the hook names. The
engine asks for a hook by its name, a test holds every name that it asks for against this file, and
`flip.config.checks.hooks` finds a name that is nearly a hook's. The protocols of one kind of class, first what is
needed, then the hooks, are in `KINDS`.
"""

from collections.abc import Mapping

from flip.contracts.dataset import (
    Agrees,
    ConvertsColumns,
    CountsExamples,
    DeclaresSizes,
    Describes,
    FederatedDataModule,
    Fingerprinted,
    HasSources,
    KnowsPersonsBehind,
    LoadsQuickly,
    NamesPersons,
    ScaledForPooling,
    Skips,
    SkipsPersons,
)
from flip.contracts.model import (
    Coarsens,
    Decides,
    FederatedModule,
    FitsBaseline,
    HasInterval,
    HasSubgroups,
    KnowsThin,
    Outcomes,
    ScoresExactly,
    SummableMetric,
    VisitsSome,
    Withholds,
)

KINDS: Mapping[str, tuple[type, ...]] = {
    "dataset": (
        FederatedDataModule, CountsExamples, Skips, SkipsPersons, NamesPersons, DeclaresSizes, Agrees,
        KnowsPersonsBehind, Describes, Fingerprinted, ScaledForPooling, LoadsQuickly, ConvertsColumns, HasSources,
    ),
    "model": (FederatedModule, HasSubgroups, ScoresExactly, Decides, FitsBaseline),
    "metric": (SummableMetric, Coarsens, Withholds, KnowsThin, HasInterval),
    "strategy": (VisitsSome,),
    "outcomes": (Outcomes,),
}  # fmt: skip


def hooks(kind: str) -> frozenset[str]:
    """Every public name that the engine asks of a class of this kind, beyond its base class in the engine."""
    named = [{*vars(each), *getattr(each, "__annotations__", {})} for each in KINDS.get(kind, ())]
    return frozenset(name for names in named for name in names if not name.startswith("_"))
