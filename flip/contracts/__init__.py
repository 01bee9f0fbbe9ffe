"""What the engine asks of a study's classes: what each must have, and each hook that it may have.

A class need not import these protocols; it has a hook by having the methods and attributes that the hook names. The
engine asks `isinstance(data, Describes)` and mypy checks what is then called; where it asks for a name, a test holds
that name against this file. `flip.config.checks.hooks` finds a name that is nearly a hook's, and a hook that a class
has in part. The protocols of one kind of class, first what is needed, then the hooks, are in `KINDS`.
"""

from collections.abc import Mapping

from flip.contracts.agreed import Adjusts, BinsShares, Weighs
from flip.contracts.bundle import RefusesBundle, SaysInference, SaysPreprocessing
from flip.contracts.columns import ConvertsColumns, TakesTerms
from flip.contracts.dataset import (
    Agrees,
    ComparesSites,
    CountsExamples,
    DeclaresReasons,
    DeclaresRemarks,
    DeclaresSizes,
    DeclaresWarnings,
    Describes,
    ExplainsRemarks,
    FederatedDataModule,
    Fingerprinted,
    Fits,
    GivesScans,
    HasSources,
    KnowsPersonsBehind,
    KnowsWhatOccurs,
    LoadsQuickly,
    NamesLevels,
    NamesPersons,
    NamesSubgroups,
    Remarks,
    ScaledForPooling,
    ShowsImages,
    Skips,
    SkipsPersons,
)
from flip.contracts.model import (
    BoundedByRow,
    Coarsens,
    ComparesExamples,
    Decides,
    DrawsScores,
    FederatedModule,
    FitsBaseline,
    HasInterval,
    HasSubgroups,
    HasUnit,
    KnowsThin,
    MeasuresScans,
    NamesMethod,
    NamesUnits,
    Outcomes,
    PredictsWith,
    ScoresExactly,
    SummableMetric,
    VisitsSome,
    WantsSizes,
    Withholds,
)
from flip.contracts.persons import ListsPersons, NamesExamples
from flip.contracts.planning import Plans
from flip.contracts.prediction import GivesStudies, NamesInputs, NamesRows, WritesPredictions

__all__ = [
    "KINDS", "Adjusts", "Agrees", "BinsShares", "BoundedByRow", "Coarsens", "ComparesExamples", "ComparesSites",
    "ConvertsColumns", "CountsExamples", "Decides", "DeclaresReasons", "DeclaresRemarks", "DeclaresSizes",
    "DeclaresWarnings", "Describes", "DrawsScores", "ExplainsRemarks", "FederatedDataModule", "FederatedModule",
    "Fingerprinted", "Fits", "FitsBaseline", "GivesScans", "GivesStudies", "HasInterval", "HasSources",
    "HasSubgroups", "HasUnit", "KnowsPersonsBehind", "KnowsThin", "KnowsWhatOccurs", "ListsPersons", "LoadsQuickly",
    "MeasuresScans", "NamesExamples", "NamesInputs", "NamesLevels", "NamesMethod", "NamesPersons", "NamesRows",
    "NamesSubgroups", "NamesUnits", "Outcomes", "Plans", "PredictsWith", "RefusesBundle", "Remarks", "SaysInference",
    "SaysPreprocessing", "ScaledForPooling", "ScoresExactly", "ShowsImages", "Skips", "SkipsPersons", "SummableMetric",
    "TakesTerms", "VisitsSome", "WantsSizes", "Weighs", "Withholds", "WritesPredictions", "hooks", "is_hook",
]  # fmt: skip

KINDS: Mapping[str, tuple[type, ...]] = {
    "dataset": (
        FederatedDataModule, CountsExamples, Skips, DeclaresReasons, SkipsPersons, DeclaresRemarks, Remarks,
        ExplainsRemarks, DeclaresWarnings, NamesPersons, ListsPersons, NamesExamples, NamesRows, NamesInputs,
        NamesLevels, NamesSubgroups, DeclaresSizes, Agrees, BinsShares, Adjusts, Weighs, Fits, KnowsPersonsBehind,
        KnowsWhatOccurs, ComparesSites, Describes, Plans, ShowsImages, Fingerprinted, ScaledForPooling, LoadsQuickly,
        ConvertsColumns, TakesTerms, HasSources, SaysPreprocessing, GivesScans, GivesStudies, RefusesBundle,
    ),
    "model": (
        FederatedModule, HasSubgroups, ScoresExactly, Decides, ComparesExamples, FitsBaseline, WantsSizes, DrawsScores,
        SaysInference, WritesPredictions, PredictsWith,
    ),
    "metric": (SummableMetric, Coarsens, Withholds, KnowsThin, BoundedByRow, NamesMethod, HasInterval, HasUnit),
    "strategy": (VisitsSome,),
    "outcomes": (Outcomes, MeasuresScans, NamesUnits),
}  # fmt: skip


def is_hook(protocol: type) -> bool:
    """Whether a class may have what a protocol names, and need not."""
    return bool(getattr(protocol, "_is_runtime_protocol", False))


def hooks(kind: str) -> frozenset[str]:
    """Every public name that the engine asks of a class of this kind, beyond its base class in the engine."""
    named = [{*vars(each), *getattr(each, "__annotations__", {})} for each in KINDS.get(kind, ())]
    return frozenset(name for names in named for name in names if not name.startswith("_"))
