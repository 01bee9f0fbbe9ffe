"""What the engine asks of a study's classes: what each must have, and each hook that it may have.

A class need not import these protocols; it has a hook by having the methods and attributes that the hook names. The
engine asks `isinstance(data, Describes)` and mypy checks what is then called; where it asks for a name, a test holds
that name against this file. `flip.config.checks.hooks` finds a name that is nearly a hook's, and a hook that a class
has in part. The protocols of one kind of class, first what is needed, then the hooks, are in `KINDS`.
"""

from collections.abc import Mapping

from flip.contracts.dataset import (
    Agrees,
    ConvertsColumns,
    CountsExamples,
    DeclaresReasons,
    DeclaresSizes,
    Describes,
    FederatedDataModule,
    Fingerprinted,
    HasSources,
    KnowsPersonsBehind,
    KnowsWhatLacks,
    KnowsWhatOccurs,
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
    NamesMethod,
    Outcomes,
    ScoresExactly,
    SummableMetric,
    VisitsSome,
    WantsSizes,
    Withholds,
)

__all__ = [
    "KINDS", "Agrees", "Coarsens", "ConvertsColumns", "CountsExamples", "Decides", "DeclaresReasons",
    "DeclaresSizes", "Describes", "FederatedDataModule", "FederatedModule", "Fingerprinted", "FitsBaseline",
    "HasInterval", "HasSources", "HasSubgroups", "KnowsPersonsBehind", "KnowsThin", "KnowsWhatLacks",
    "KnowsWhatOccurs", "LoadsQuickly", "NamesMethod", "NamesPersons", "Outcomes", "ScaledForPooling",
    "ScoresExactly", "Skips", "SkipsPersons", "SummableMetric", "VisitsSome", "WantsSizes", "Withholds", "hooks",
    "is_hook",
]  # fmt: skip

KINDS: Mapping[str, tuple[type, ...]] = {
    "dataset": (
        FederatedDataModule, CountsExamples, Skips, DeclaresReasons, SkipsPersons, KnowsWhatLacks, NamesPersons,
        DeclaresSizes, Agrees, KnowsPersonsBehind, KnowsWhatOccurs, Describes, Fingerprinted, ScaledForPooling,
        LoadsQuickly, ConvertsColumns, HasSources,
    ),
    "model": (FederatedModule, HasSubgroups, ScoresExactly, Decides, FitsBaseline, WantsSizes),
    "metric": (SummableMetric, Coarsens, Withholds, KnowsThin, NamesMethod, HasInterval),
    "strategy": (VisitsSome,),
    "outcomes": (Outcomes,),
}  # fmt: skip


def is_hook(protocol: type) -> bool:
    """Whether a class may have what a protocol names, and need not."""
    return bool(getattr(protocol, "_is_runtime_protocol", False))


def hooks(kind: str) -> frozenset[str]:
    """Every public name that the engine asks of a class of this kind, beyond its base class in the engine."""
    named = [{*vars(each), *getattr(each, "__annotations__", {})} for each in KINDS.get(kind, ())]
    return frozenset(name for names in named for name in names if not name.startswith("_"))
