"""The levels of a category that sites agree on, and a site that writes its own in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from datamodules.alignment import WHOLE

PREFIX = "count/levels/"
REMEDY = "map them in the site's file as columns: {{{name}: {{values: {{own: declared}}}}}}"


def persons_by_level(told: Mapping[str, np.ndarray], name: str) -> dict[str, float]:
    """By level of a column the persons of it, of `count/levels/<column>/<level>`."""
    prefix = f"{PREFIX}{name}/"
    return {key.removeprefix(prefix): float(each[0]) for key, each in told.items() if key.startswith(prefix)}


def most_frequent(counts: Mapping[str, float], number: int) -> list[str]:
    """So many levels, those that most persons have."""
    return sorted(counts, key=lambda text: (-counts[text], text))[:number]


def check_known(name: str, own: Set[str], agreed: Sequence[str]) -> None:
    """Raise ValueError where a site has several levels of a column and none of the agreed ones: it writes others."""
    if len(own) > 1 and agreed and own.isdisjoint(agreed):
        raise ValueError(
            f"column {name} holds {len(own)} levels, of which none is among those of the study ({', '.join(agreed)}); "
            + REMEDY.format(name=name)
        )


def check_codes(column: str, own: Set[str], declared: Sequence[str]) -> None:
    """Raise ValueError where all codes of a site are 1 beside the declared ones: most would be taken wrongly."""
    if all(WHOLE.fullmatch(each) for each in declared):
        for step in (-1, 1):
            if own == {str(int(each) + step) for each in declared}:
                raise ValueError(
                    f"column {column} has the codes {', '.join(sorted(own, key=int))}, where the study declares "
                    f"{', '.join(declared)}; {REMEDY.format(name=column)}"
                )


def strangers(told: Mapping[str, Mapping[str, np.ndarray]], slots: Mapping[str, int]) -> Iterator[str]:
    """A sentence for each site of whose levels none is agreed, by site what it tells and by column how many are."""
    for name, number in slots.items():
        by_site = {site: persons_by_level(counts, name) for site, counts in told.items()}
        total: dict[str, float] = {}
        for counts in by_site.values():
            total |= {text: total.get(text, 0.0) + each for text, each in counts.items()}
        agreed = set(most_frequent(total, number))
        for site, counts in by_site.items():
            if len(counts) > 1 and agreed.isdisjoint(counts):
                yield (
                    f"{site} has none of the {number} levels of {name} that most persons have, so that all of its own "
                    "would count as missing; if it writes the same in another way, "
                    f"{REMEDY.format(name=name)}, else raise dataset.tabular.categorical.{name}"
                )
