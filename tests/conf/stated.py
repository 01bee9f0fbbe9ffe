"""The numbers that README.md states of each study, read from its table of experiments."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from tests.commands import Finished
from tests.conftest import ROOT

TOLERANCE = 0.02  # another processor takes other code paths: test scores of a few hundred examples move by some of them
NUMBER = r"\.\d{3}"


class Stated(NamedTuple):
    """A row: the metric there, the federated and the centralized score, and the worst and best of sites alone."""

    metric: str
    federated: float
    centralized: float
    alone: tuple[float, ...]


def stated(experiment: str) -> Stated:
    """The row of an experiment."""
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{experiment}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    federated, centralized = (float(re.findall(NUMBER, cell)[0]) for cell in cells[3:5])
    return Stated(cells[2], federated, centralized, tuple(float(number) for number in re.findall(NUMBER, cells[5])))


def stated_all(experiment: str) -> list[float]:
    """Every federated score of an experiment's row, in order."""
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{experiment}` |")]
    return [float(number) for number in re.findall(NUMBER, row.strip("|").split("|")[3])]


def alone(metrics: Mapping[str, float], name: str) -> tuple[float, float]:
    """The worst and the best score on the test data of all sites of models that a site trained alone."""
    found = [value for key, value in metrics.items() if re.fullmatch(rf"baseline/alone/[^/]+/test/pooled/{name}", key)]
    return min(found), max(found)


def score(ran: Finished, name: str, prefix: str = "test/pooled/") -> tuple[float, float, float]:
    """A score of a finished run between the two ends of its interval."""
    assert ran.status == 0, ran.err
    low, value, high = (ran.result["metrics"][f"{prefix}{name}{end}"] for end in ("/low", "", "/high"))
    print(f"{prefix}{name} {value:.3f} ({low:.3f} to {high:.3f})")
    assert low < value < high
    return low, value, high


def stated_without(experiment: str, part: str) -> float:
    """The federated score of an experiment without a part, which the row below the experiment's own has."""
    lines = (ROOT / "conf" / "experiment" / "README.md").read_text().splitlines()
    [own] = [at for at, line in enumerate(lines) if line.startswith(f"| `{experiment}` |")]
    below = [line for line in lines[own + 1 : own + 3] if f"`model.encoders.{part}=null`" in line]
    return float(re.findall(NUMBER, below[0].partition("null`")[2])[0])
