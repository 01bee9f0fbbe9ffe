"""What a site tells before the first round: its sizes, what it skipped, and summaries that its dataset offers."""

import inspect
from collections.abc import Mapping

import numpy as np

from flip.contracts import (
    Agrees,
    ComparesSites,
    DeclaresReasons,
    Describes,
    FederatedDataModule,
    KnowsPersonsBehind,
    KnowsWhatOccurs,
    ListsPersons,
    Plans,
    Skips,
    SkipsPersons,
)
from flip.contracts.loaders import examples_in
from flip.messages.summary import EVERYBODY, KNOWN, OPTED_OUT, Summary, SummaryKind, Topic
from flip.site.complementary import suppress_groups, suppress_total
from flip.site.disclosure import enough, suppress_number, suppress_summary
from flip.site.persons import PERSON, SPLITS, Persons, loader, persons_of
from flip.site.remarks import doubts_of, remarks


def summary_of(persons: int, name: str, array: np.ndarray) -> Summary:
    """A summary of the kind that the name starts with (`count/...`, `moments/...`)."""
    return Summary(SummaryKind(name.split("/")[0]), np.asarray(array, dtype=np.float64), persons)


def cohort_counts(persons: int, data: FederatedDataModule, cell: int) -> dict[str, float]:
    """The persons of a cohort and the examples of its splits, those of too few persons as 0."""
    splits = {split: persons_of(data, split, cell) for split in SPLITS}
    sizes = {split: suppress_number(each.number, each.examples, cell) for split, each in splits.items()}
    counts = {"persons": persons_told(persons, data, cell), **sizes}
    return {name: float(number) for name, number in counts.items()}


def persons_told(persons: int, data: FederatedDataModule, cell: int) -> int:
    """The persons of a cohort of whom anything may be told: less those in small parts; 0 where they are too few."""
    parts, whose = [persons_of(data, split, cell).number for split in SPLITS], persons_skipped(data)
    beside = sum(whose.get(reason, 0) for reason in skipped(persons, data, cell)[0])
    total = suppress_total(persons, parts, cell, skipped=beside)
    return suppress_number(total, total, cell)


def dataset_summaries(persons: Persons, data: FederatedDataModule, cell: int) -> dict[str, Summary]:
    """The dataset's own statistics by name; empty for a dataset that agrees nothing.

    `persons` are those of the training split. A dataset whose values can be missing takes `statistics(minimum_cell)`,
    and says by `behind()` on how many persons each rests. A count's name may tell too, as that of a rare category does:
    where all of a count is below the minimum cell, its name stays here as well, and so does another's that would tell
    it: see `suppress_complementary`.
    """
    if not isinstance(data, Agrees):
        return {}
    guards = "minimum_cell" in inspect.signature(data.statistics).parameters
    arrays = suppress_groups(data.statistics(cell) if guards else data.statistics(), cell)
    known: Mapping[str, int] = data.behind() if isinstance(data, KnowsPersonsBehind) else {}
    found = {}
    for name, array in arrays.items():
        summary = summary_of(min(known.get(name, persons.number), persons.number), name, array)
        rows = summary.kind is SummaryKind.MOMENTS and name not in known  # counts are of persons already
        kept = suppress_summary(summary.persons, summary, cell, persons.behind if rows else np.asarray)
        if kept.kind is not SummaryKind.COUNT or kept.values.any():
            found[name] = kept
    return found


def description(
    persons: int, data: FederatedDataModule, edges: Mapping[str, np.ndarray], cell: int
) -> dict[str, Summary]:
    """What the dataset tells of its cohort, by name; empty for one without `describe`.

    Counts that share a place (`count/levels/sex/...`) add up to a number that is known, so that one of them that is
    withheld would be told by the others: see `suppress_complementary`. No name leaves of a count that is withheld, and
    of a column whose number of known values is withheld, nothing does: moments, histogram and levels would tell it.
    """
    if not isinstance(data, Describes):
        return {}
    guards = "minimum_cell" in inspect.signature(data.describe).parameters
    counted, behind = data.describe(edges, cell) if guards else data.describe(edges)
    arrays = suppress_groups(counted, cell, behind)
    for name in [name for name in arrays if name.startswith(KNOWN)]:
        few = not enough(behind.get(name, persons), cell)  # as a part of one split, or of what is left out
        if not few and (arrays[name] == counted[name]).all():
            continue
        column, told = name.removeprefix(KNOWN), arrays.pop(name)  # a part at 0 would read as none
        if few or told[0] != counted[name][0]:
            alike = (f"moments/{column}", f"histogram/{column}")
            levels = f"count/levels/{column}/"
            arrays = {n: each for n, each in arrays.items() if n not in alike and not n.startswith(levels)}
    return {
        name: summary_of(min(behind.get(name, persons), persons), name, array)
        for name, array in arrays.items()
        if array.any()
    }


def surveyed(persons: int, data: FederatedDataModule, cell: int) -> dict[str, Summary]:
    """What the dataset tells for a plan of the study, by name; empty for one that plans nothing."""
    if not isinstance(data, Plans):
        return {}
    arrays, behind = data.surveyed(cell)
    return {name: summary_of(min(behind[name], persons), name, array) for name, array in arrays.items()}


def persons_skipped(data: FederatedDataModule) -> Mapping[str, int]:
    """Of how many distinct persons what was skipped is, by reason; empty for a dataset that does not say."""
    return data.skipped_persons if isinstance(data, SkipsPersons) else {}


def skipped(persons: int, data: FederatedDataModule, cell: int) -> tuple[dict[str, Summary], dict[str, int]]:
    """What was skipped, counted by the reasons that the dataset declares; and by others, which stay at the site.

    A dataset says by `skipped_persons` of how many persons they are; what it does not say is of none, and is withheld.
    """
    reasons: Mapping[str, int] = data.skipped if isinstance(data, Skips) else {}
    declared = data.REASONS if isinstance(data, DeclaresReasons) else frozenset()
    whose = persons_skipped(data)
    told = {
        reason: summary_of(min(whose.get(reason, persons), persons), "count/skipped", np.array([number]))
        for reason, number in reasons.items()
        if reason in declared and enough(whose.get(reason, 0), cell)
    }
    return told, {reason: reasons[reason] for reason in sorted(set(reasons) - declared)}


def opted_out(data: FederatedDataModule, cell: int) -> dict[str, Summary]:
    """The examples of persons who opted out, who are no part of the cohort; none of fewer than the minimum cell."""
    rows, persons = data.opted_out if isinstance(data, ListsPersons) else (0, 0)
    told = persons > 0 and enough(persons, cell)
    return {OPTED_OUT: summary_of(persons, "count/skipped", np.array([rows]))} if told else {}


def absent(persons: int, data: FederatedDataModule) -> dict[str, Summary]:
    """What must occur and is in no training row, by its number; empty for a dataset that does not know.

    What few persons have is not told from what many have: neither is here. That nobody has it is of no person.
    """
    if not isinstance(data, KnowsWhatOccurs):
        return {}
    return {str(number): summary_of(persons, "count/absent", np.zeros(1)) for number in np.flatnonzero(~data.occurs())}


def compared(persons: int, data: FederatedDataModule, cell: int) -> dict[str, Summary]:
    """The names of what has to be alike at all sites: of several units of a column the one that most persons have.

    None whose number is withheld. Of how many it is stays here: a few may be among them whom no number counts.
    """
    if not isinstance(data, ComparesSites):
        return {}
    counts = {name: int(array[0]) for name, array in suppress_groups(data.compared(), cell).items()}
    kept = {name: count for name, count in counts.items() if count and enough(count, cell)}
    most: dict[str, str] = {}
    for name in sorted(kept, key=lambda each: (-kept[each], each)):
        most.setdefault(name.rpartition("/")[0] if name.count("/") > 1 else name, name)
    return {name: summary_of(persons, name, np.zeros(1)) for name in most.values()}


def cohort_summaries(
    persons: int, data: FederatedDataModule, cell: int
) -> tuple[dict[Topic, dict[str, Summary]], dict[str, int]]:
    """What was skipped, remarked, doubtful and absent, and what the dataset wants agreed; and how many were skipped
    for reasons that it does not declare, which stay at the site."""
    left_out, others = skipped(persons, data, cell)
    left_out |= opted_out(data, cell)
    splits = [persons_of(data, split, cell) for split in SPLITS]
    told = remarks(persons, data, cell, splits=splits)
    doubtful = doubts_of(data)
    return {
        Topic.SKIPPED: left_out,
        Topic.REMARKS: told,
        Topic.WARNINGS: {name: each for name, each in told.items() if name.removeprefix(EVERYBODY) in doubtful},
        Topic.STATISTICS: dataset_summaries(splits[0], data, cell),
        Topic.ABSENT: absent(splits[0].number, data),
        Topic.COMPARED: compared(persons, data, cell),
    }, others


def shapes(data: FederatedDataModule, cell: int) -> dict[str, Summary]:
    """Shape of each part of an example, by its name; empty for a dataset without examples to train or test on.

    A shape leaves if the first examples have it in common that are of as many persons as the minimum cell.
    """
    for split in ("train", "test"):
        found = loader(data, split)
        if found is not None and examples_in(found):
            persons = persons_of(data, split, cell)
            if not enough(persons.number, cell):
                continue
            number = min(persons.examples_of(cell), examples_in(found))
            examples = [shape_of(found.dataset[row]) for row in range(number)]
            return {
                name: Summary(SummaryKind.SUM, np.array(shape, np.float64), persons.number)
                for name, shape in examples[0].items()
                if all(each.get(name) == shape for each in examples)
            }
    return {}


def shape_of(example: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """The shape of each part of an example but whose it is."""
    return {name: tuple(getattr(value, "shape", ())) for name, value in example.items() if name != PERSON}
