"""ComBat over sites from aggregates: offsets and scales of sites taken out of numbers, without pooling a row.

Johnson, Li and Rabinovic 2007 (empirical Bayes), Fortin et al. 2018 (imaging). The model is
y = mean + covariates * beta + offset of the site + scale of the site * noise. Centered within each site, its least
squares need the sums X'X, X'y and y'y alone (Frisch-Waugh-Lovell), so that beta, mean and variance agreed from sums are
those of the pooled fit. Offset and scale of a site, and their empirical Bayes estimates over the columns, are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datamodules.description import behind_moments, untold

PREFIX = "sum/harmonize/"
CONVERGED = 1e-8  # largest relative change of an estimate in the last step
STEPS = 1000


class ComBat:
    """Harmonisation of numeric columns over sites.

    Args:
        columns: columns to harmonise, two or more: the empirical Bayes estimates pool over them.
        covariates: numeric columns whose effect on them is kept.
    """

    def __init__(self, columns: Sequence[str], covariates: Sequence[str] = ()) -> None:
        self.columns, self.covariates = list(columns), list(covariates)
        if len(self.columns) < 2 or set(self.columns) & set(self.covariates):
            raise ValueError("dataset.tabular.harmonize: needs two columns or more, none of them among its covariates")
        self._beta = self._mean = self._sigma = self._center = np.zeros(0)

    def statistics(
        self, table: pd.DataFrame, person: np.ndarray, minimum_cell: int = 1
    ) -> tuple[dict[str, np.ndarray], int]:
        """Sums over the rows without a missing value, centered within the site, and on how many persons they rest.

        Persons without such rows, where there are any, are `minimum_cell` or more: see `untold`.
        """
        y, x, complete = self._matrices(table)
        complete = untold(complete, person, minimum_cell)
        y, x = y[complete], x[complete]
        dy, dx = (y - y.mean(axis=0), x - x.mean(axis=0)) if len(y) else (y, x)
        sums = {
            "n": np.array([float(len(y))]), "y": y.sum(axis=0), "x": x.sum(axis=0),
            "xx": dx.T @ dx, "xy": dx.T @ dy, "yy": (dy**2).sum(axis=0),
        }  # fmt: skip
        behind = min(behind_moments(column, person[complete]) for column in (*y.T, *x.T))
        return {PREFIX + name: each for name, each in sums.items()}, behind

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take effects of covariates, mean and deviation from the merged sums. Raises ValueError without them."""
        if PREFIX + "n" not in merged or merged[PREFIX + "n"][0] < 2:
            raise ValueError("dataset.tabular.harmonize: too few complete rows over all sites; set it to null")
        n, y, x, xx, xy, yy = (merged[PREFIX + name] for name in ("n", "y", "x", "xx", "xy", "yy"))
        self._beta = np.linalg.lstsq(xx, xy, rcond=None)[0]
        self._center = x / n
        self._mean = y / n - self._center @ self._beta
        self._sigma = np.sqrt(np.maximum((yy - (self._beta * xy).sum(axis=0)) / n, 1e-12))

    def adjust(self, table: pd.DataFrame, own: np.ndarray) -> dict[str, np.ndarray]:
        """The harmonised columns; `own` bool [n] are the rows from which the site's offset and scale are taken.

        A missing covariate counts as its mean; a missing value stays missing. Fewer than two complete rows of the
        site's own tell no scale: then the columns stay as they are. So do those of a site that is only tested on: its
        offset could be taken from what is tested alone.
        """
        y, x, complete = self._matrices(table)
        expected = self._mean + np.where(np.isnan(x), self._center, x) @ self._beta
        z = (y - expected) / self._sigma
        if (complete & own).sum() < 2:
            return {name: y[:, index] for index, name in enumerate(self.columns)}
        offset, scale = empirical_bayes(z[complete & own])
        adjusted = (z - offset) / np.sqrt(scale) * self._sigma + expected
        return {name: adjusted[:, index] for index, name in enumerate(self.columns)}

    def _matrices(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns [n, g], covariates [n, p], and which rows are complete [n]."""
        y, x = (table[names].to_numpy(np.float64) for names in (self.columns, self.covariates))
        return y, x, ~(np.isnan(y).any(axis=1) | np.isnan(x).any(axis=1))


def empirical_bayes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A site's offset and squared scale of each column [g], of its standardized values [n, g].

    The priors' moments are matched over the columns, then both are solved for in turn (Johnson 2007, section 3.2).
    """
    n, offset, scale = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
    center, spread = offset.mean(), offset.var(ddof=1)
    mean, variance = scale.mean(), scale.var(ddof=1)
    if variance < 1e-12 or mean < 1e-12:  # nothing to shrink: every column has the same scale
        return offset, np.maximum(scale, 1e-12)
    shape, rate = mean**2 / variance + 2, mean * (mean**2 / variance + 1)
    found, squared = offset, scale
    for _ in range(STEPS):
        before = np.stack([found, squared])
        found = (spread * n * offset + squared * center) / (spread * n + squared)
        squared = (rate + 0.5 * ((z - found) ** 2).sum(axis=0)) / (n / 2 + shape - 1)
        if np.max(np.abs(np.stack([found, squared]) - before) / (np.abs(before) + 1e-12)) < CONVERGED:
            break
    return found, squared
