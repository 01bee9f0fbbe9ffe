"""All that leaves a hospital with a heart table of one report, as sums of counts that an attacker knows."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from flip.messages import Reply
from flip.messages.summary import OPTED_OUT, Topic
from tests.site.attacker import MOST, Attacker

SPLITS = ("train", "validate", "test")
LEFT = "left out"
PLACES = (*SPLITS, LEFT)
VALUES: Mapping[str, Sequence[str]] = {
    "sex": ("0", "1", "?"),
    "fbs": ("0", "1", "?"),
    "exang": ("0", "1", "?"),
    "cp": ("1", "2", "3", "4", "?"),
    "restecg": ("0", "1", "2", "?"),
    "num": ("0", "1", "?"),
}
"""The columns of which counts leave, with the values that they have; ? is none."""
TRAINED = {"sex": (1, "1"), "fbs": (4, "1"), "exang": (6, "1")}
TRAINED |= {f"cp{level}": (6 + level, str(level)) for level in (2, 3, 4)}
TRAINED |= {f"restecg{level}": (10 + level, str(level)) for level in (1, 2)}
"""Numbers of the features of which the sums over the training rows are counts."""


HEADER = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
HEADER += ["slope", "ca", "thal", "num"]
OTHERS = {"age": (40, 70), "trestbps": (110, 170), "chol": (180, 240), "thalach": (110, 160), "oldpeak": (0, 3)}


def drawn(seed: int) -> tuple[dict[str, np.ndarray], str]:
    """A table of 18 to 60 persons with rare levels and some missing values: its columns of text, and the file."""
    rng = np.random.default_rng(seed)
    number, missing = int(rng.integers(18, 60)), float(rng.choice([0, 0.01, 0.03]))
    table = {}
    for column, values in VALUES.items():
        share = rng.dirichlet(np.full(len(values) - 1, 0.7)) + 0.02
        text = rng.choice(values[:-1], number, p=share / share.sum())
        table[column] = np.where(rng.random(number) < missing, "?", text)
    every = table | {name: rng.integers(*ends, number).astype(str) for name, ends in OTHERS.items()}
    lines = [",".join(every[name][row] if name in every else "?" for name in HEADER) for row in range(number)]
    return table, "\n".join(lines) + "\n"


def cell_of(column: str, value: str, place: str) -> str:
    """The count of the persons of a part who have a value."""
    return f"{column}={value}|{place}"


def true_counts(table: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, int]:
    """The counts of a table, by columns of text."""
    return {
        cell_of(column, value, place): int(np.sum((table[column] == value) & (places == place)))
        for column, values in VALUES.items()
        for value, place in product(values, PLACES)
    }


def attacker_of(statistics: Reply, others: Sequence[Reply], cell: int, *, base: int = 1) -> Attacker:
    """An attacker who has one report, and knows the rules by which it is made.

    `base` is that of `policy.rounding`: a number that is told is one of those around it.
    """
    knows = _Report(cell, base)
    knows.sizes(statistics)
    told = statistics.summaries.get(Topic.STATISTICS, {})
    knows.trained(told)
    for reply in others:
        knows.described(reply.summaries.get(Topic.DESCRIPTION, {}))
        knows.scored(reply.summaries.get(Topic.METRIC, {}))
    return knows.attacker


class _Report:
    def __init__(self, cell: int, base: int) -> None:
        self.cell, self.base, self.attacker = cell, base, Attacker()
        self.seen: set[str] = set()
        knows = self.attacker.knows
        for column, values in VALUES.items():  # each column parts the persons of each part
            for place in PLACES:
                knows({**{cell_of(column, value, place): 1.0 for value in values}, place: -1.0}, 0)
        for column in VALUES:  # who is in a split has all values
            for split in SPLITS:
                knows([cell_of(column, "?", split)], 0)
        for place in PLACES:  # a part of few persons is not described: `described` is 1 or 0
            flag = f"described {place}"
            knows([flag], 0, 1)
            knows({place: 1, flag: -MOST}, -MOST, cell - 1)  # 0: fewer than the minimum cell
            knows({place: 1, flag: -cell}, 0, MOST)
            for column, values in VALUES.items():
                for value in values:
                    whole, kept = cell_of(column, value, place), f"kept {cell_of(column, value, place)}"
                    knows({kept: 1, whole: -1}, -MOST, 0)
                    knows({kept: 1, flag: -MOST}, -MOST, 0)
                    knows({kept: 1, whole: -1, flag: -MOST}, -MOST, MOST)

    def _told(self, names: Sequence[str], number: float) -> None:
        """A count is told, or is rounded to this."""
        far = (self.base - 1) / 2 if self.base > 1 else 0
        self.attacker.knows(names, number - far, number + far)

    def sizes(self, reply: Reply) -> None:
        for split in SPLITS:
            number = reply.metrics.get(split, 0)
            if number:
                self._told([split], number)
            else:
                self.attacker.knows([split], 0, self.cell - 1)
        persons = reply.metrics.get("persons", 0)
        if persons:  # less those of small parts, where these are few
            far = (self.base - 1) / 2 if self.base > 1 else 0
            self.attacker.knows(PLACES, persons - far, persons + far + self.cell - 1)
        for reason, summary in reply.summaries.get(Topic.SKIPPED, {}).items():
            if reason != OPTED_OUT:
                self._told([LEFT], float(summary.values[0]))

    def trained(self, told: Mapping[str, object]) -> None:
        moments = getattr(told.get("moments/features"), "values", np.zeros((13, 3)))
        for name, (row, value) in TRAINED.items():
            if moments[row, 0]:
                self._told([cell_of(name.rstrip("1234"), value, "train")], moments[row, 1])
        label = getattr(told.get("count/label"), "values", np.zeros(2))
        for value in (0, 1):
            if label[value]:
                self._told([cell_of("num", str(value), "train")], label[value])

    def _kept(self, column: str, *values: str) -> list[str]:
        return [f"kept {cell_of(column, value, place)}" for value in values for place in PLACES]

    def described(self, told: Mapping[str, object]) -> None:
        for name, summary in told.items():
            kind, _, rest = name.partition("/")
            values = summary.values
            if name in self.seen:
                continue
            self.seen.add(name)
            if name == "count/studies":
                self._told(self._kept("num", *VALUES["num"]), values[0])
            elif name == "count/labels":
                self._told(self._kept("num", "0", "1"), values[0])
            elif rest.startswith("label/num "):
                self._told(self._kept("num", rest[-1]), values[0])
            elif rest.startswith("levels/"):
                column, level = rest.split("/")[1:]
                self._told(self._kept(column, level), values[0])
            elif rest.startswith("known/") and (column := rest.removeprefix("known/")) in VALUES:
                having = [value for value in VALUES[column] if value != "?"]
                self._told(self._kept(column, *having), values[0])
                self._told(self._kept(column, "?"), values[1])
            elif kind == "moments" and rest in VALUES:
                self._told(self._kept(rest, "0", "1"), values[0])
                self._told(self._kept(rest, "1"), values[1])

    def scored(self, told: Mapping[str, object]) -> None:
        for name, summary in told.items():
            if name == "auroc_binned/counts":
                for value in (0, 1):
                    self._told([cell_of("num", str(value), "test")], float(summary.values[value].sum()))
        for one, right, wrong in (("1", "tp", "fn"), ("0", "tn", "fp")):
            for name in ("accuracy", "sensitivity", "specificity"):
                states = {state: told.get(f"{name}/{state}") for state in (right, wrong)}
                if all(each is not None for each in states.values()):
                    total = sum(float(np.sum(each.values)) for each in states.values())
                    far = self.base - 1 if self.base > 1 else 0
                    self.attacker.knows([cell_of("num", one, "test")], total - far, total + far)
