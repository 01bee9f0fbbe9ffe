"""What a site tells of remarks that its dataset makes, and what its own log says of them."""

import re
from collections.abc import Sequence

import numpy as np

from flip.contracts import DeclaresRemarks, DeclaresWarnings, ExplainsRemarks, FederatedDataModule, Remarks
from flip.messages.summary import EVERYBODY, Summary, SummaryKind
from flip.site.complementary import suppress_complementary
from flip.site.disclosure import enough
from flip.site.persons import Persons

PART = re.compile(": |, of which ")
"""What ends the words that remarks have in common which are parts of a whole: "studies of several series, of which"."""


def remarks_in_words(data: FederatedDataModule) -> list[str]:
    """What the site's own log says of them, which may name columns and codes."""
    found = [f"{number} {remark}" for remark, number in data.remarks.items()] if isinstance(data, Remarks) else []
    return [*found, *(data.remarks_in_words if isinstance(data, ExplainsRemarks) else ())]


def doubts_of(data: FederatedDataModule) -> frozenset[str]:
    """Its remarks that put a result in doubt; none for a dataset that declares none."""
    return data.WARNINGS if isinstance(data, DeclaresWarnings) else frozenset()


def remarks(persons: int, data: FederatedDataModule, cell: int, *, splits: Sequence[Persons]) -> dict[str, Summary]:
    """What the dataset remarks of the examples that it kept, which are those of `splits`, by its declared words.

    A remark that is of all but a few persons would tell of those few: it stays at the site too. One of everybody is
    told as of the persons who are told of, behind `EVERYBODY`: a few may have it less often. Remarks that are alike up
    to `PART` are parts of a whole: see `suppress_complementary`. Where a split is of too few persons, whose examples a
    remark is of too, none is told but a doubt about all.
    """
    if not (isinstance(data, Remarks) and isinstance(data, DeclaresRemarks)):
        return {}
    doubtful, numbers = doubts_of(data), [each.number for each in splits]
    told, kept = sum(number for number in numbers if enough(number, cell)), min(sum(numbers), persons)
    small, found = any(number and not enough(number, cell) for number in numbers), {}
    for remark, having in _remarked(persons, data, cell).items():
        every = cell > 1 and having in (kept, persons)
        if remark not in data.REMARKS or not (having and enough(having, cell)):
            continue
        if every and (remark in doubtful or not small):
            found[EVERYBODY + remark] = Summary(SummaryKind.COUNT, np.array([float(told)]), told)
        elif not (every or small) and enough(kept - having, cell):
            found[remark] = Summary(SummaryKind.COUNT, np.array([float(data.remarks[remark])]), having)
    return found


def _remarked(persons: int, data: Remarks, cell: int) -> dict[str, int]:
    """Of how many persons each remark is; 0 where another would tell of it, or it of another."""
    whose = {remark: min(data.remarks_persons.get(remark, 0), persons) for remark in data.remarks}
    for part in {whole for remark in whose if (whole := PART.split(remark)[0]) != remark}:
        alike = [remark for remark in whose if PART.split(remark)[0] == part]
        kept = suppress_complementary(np.array([whose[remark] for remark in alike]), cell)
        whose |= dict(zip(alike, kept.astype(int).tolist(), strict=True))
    return whose
