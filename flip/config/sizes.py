"""Numbers that a model takes from what the dataset declares: `features: ${size:tabular.features}`.

A dataset that has `declared_sizes()` says them from its declaration alone, before any data are read, so that they are
the same at every site. They are resolved when a study is settled: the manifest holds the number.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flip.config.places import refusals
from flip.config.targets import STUDY_TARGETS, TARGET
from flip.contracts import DeclaresSizes
from flip.errors import UserError, nearest

UNKNOWN = 2
"""Stands for a size where the dataset cannot be built, which the check names, with all other mistakes."""


def size(name: str, *, _root_: DictConfig) -> int:
    """A size that the study's dataset declares. Raises UserError where it declares none of this name."""
    declared = _declared(_root_)
    if declared is None:
        return UNKNOWN
    if name not in declared:
        raise UserError(
            f"the dataset declares no size {name} (it declares: {', '.join(sorted(declared)) or 'none'}); write the "
            f"number, or leave out the part of the model that needs it; {nearest(name, declared)}"
        )
    return declared[name]


def _declared(root: DictConfig) -> Mapping[str, int] | None:
    """What the study's dataset declares; None where it cannot be built."""
    try:
        dataset: Any = OmegaConf.to_container(root.dataset, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        return None
    allowed = root.get("allow_targets") or []
    own = [each for each in allowed if isinstance(each, str)] if not isinstance(allowed, str) else []
    if not isinstance(dataset, Mapping) or any(refusals({"dataset": dataset}, (*STUDY_TARGETS, *own))):
        return None
    if not isinstance(dataset.get(TARGET), str):
        return None
    from flip.config.build import declared

    try:
        made = declared(dataset)
    except (UserError, TypeError):
        return None
    return dict(made.declared_sizes()) if isinstance(made, DeclaresSizes) else {}
