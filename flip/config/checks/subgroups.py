"""Whether the groups that a dataset tells apart are those that the model scores by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flip.contracts import HasSubgroups, NamesSubgroups


def subgroup_problems(model: object, dataset: object) -> Iterator[str]:
    """A sentence for each group that one has and the other lacks, or whose levels are others, or in another order.

    The model may call them by names of its own (female and male for 0 and 1): the order says which is which.
    """
    given = dataset.subgroup_levels if isinstance(dataset, NamesSubgroups) else {}
    scored = model.levels if isinstance(model, HasSubgroups) else {}
    for name in sorted({*given} - {*scored}):
        key = f"'model.subgroups={{{name}: [{', '.join(given[name])}]}}'"
        way = f"name its levels there, as in {key}" if isinstance(model, HasSubgroups) else "choose another model"
        yield (
            f"dataset.subgroups.{name}: model.subgroups does not name it, so nothing would be scored by it; {way}, or "
            f"leave it out with ~dataset.subgroups.{name}"
        )
    for name in sorted({*scored} - {*given}):
        yield f"model.subgroups.{name}: dataset.subgroups does not declare it; declare it there, or leave it out here"
    for name in sorted({*scored} & {*given}):
        yield from _levels(name, scored[name], given[name])


def _levels(name: str, scored: Sequence[str], given: Sequence[str]) -> Iterator[str]:
    said = f"model.subgroups.{name}: [{', '.join(scored)}]"
    of_data = f"dataset.subgroups.{name}, [{', '.join(given)}]"
    if len(scored) != len(given):
        yield f"{said} has another number of levels than {of_data}; name each once, in that order"
    elif any(level in given and given[place] != level for place, level in enumerate(scored)):
        yield f"{said} has another order than {of_data}; write them in that order"
