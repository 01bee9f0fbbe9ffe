"""The numbers that README.md states of each study, read from its table of experiments."""

import re
from typing import NamedTuple

from tests.conftest import ROOT

TOLERANCE = 0.02  # another processor takes other code paths: test scores of a few hundred examples move by some of them
NUMBER = r"\.\d{3}"


class Stated(NamedTuple):
    """A row: the metric's name there, the federated and the centralized score."""

    metric: str
    federated: float
    centralized: float


def stated(experiment: str) -> Stated:
    """The row of an experiment."""
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{experiment}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    federated, centralized = (float(re.findall(NUMBER, cell)[0]) for cell in cells[3:5])
    return Stated(cells[2], federated, centralized)
