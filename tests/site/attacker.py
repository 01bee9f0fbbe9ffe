"""Who has all that leaves a site, and asks by integer programming what a withheld count can be.

The audit of Hundepool et al., Statistical Disclosure Control (2012), chapter 4: of each count the least and the
greatest value that no published number contradicts. The rule that a count of few persons is protected: at
least as many values are possible as the minimum cell.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

MOST = 10_000  # persons of a cohort here


class Attacker:
    """Whole numbers from 0, by name, and what is known of their sums."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.known: list[tuple[dict[int, float], float, float]] = []

    def _place(self, name: str) -> int:
        return self.counts.setdefault(name, len(self.counts))

    def knows(self, terms: Iterable[str] | Mapping[str, float], low: float, high: float | None = None) -> None:
        """A sum is `low`, or from `low` to `high`."""
        weights = terms if isinstance(terms, Mapping) else dict.fromkeys(terms, 1.0)
        found = {self._place(name): weight for name, weight in weights.items()}
        self.known.append((found, low, low if high is None else high))

    def interval(self, *names: str) -> tuple[int, int]:
        """The least and the greatest that the sum of some counts can be."""
        goal = np.zeros(len(self.counts))
        goal[[self.counts[name] for name in names]] = 1.0
        matrix = np.zeros((len(self.known), len(self.counts)))
        for row, (terms, _, _) in enumerate(self.known):
            matrix[row, list(terms)] = list(terms.values())
        told = LinearConstraint(matrix, [low for _, low, _ in self.known], [high for *_, high in self.known])
        ends = [self._solved(sign * goal, told) for sign in (1, -1)]
        return round(ends[0]), round(-ends[1])

    def _solved(self, goal: np.ndarray, told: LinearConstraint) -> float:
        found = milp(goal, constraints=told, integrality=np.ones(len(goal)), bounds=Bounds(0, MOST))
        assert found.success, f"what is told contradicts itself: {found.message}"
        return float(found.fun)

    def beyond(self, *names: str, true: int, cell: int) -> bool:
        """Whether this count, which is of few persons, is known too well. Its true value is always possible."""
        least, greatest = self.interval(*names)
        assert least <= true <= greatest, f"{names}: {true} is not within {least} to {greatest}"
        return 0 < true < cell and greatest - least + 1 < cell
