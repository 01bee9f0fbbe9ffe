"""Figures of the coordinator's report on muscle at L3, from sums over persons alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from models.body_composition import CutOff

Arrays = Mapping[str, NDArray[np.float64]]
COLORS = ("#2f7fc1", "#d9662b", "#16936b")
POOLED = "all sites"


def pooled(by_site: Mapping[str, Arrays]) -> dict[str, NDArray[np.float64]]:
    """The sites' sums added up."""
    total: dict[str, NDArray[np.float64]] = {}
    for arrays in by_site.values():
        for name, array in arrays.items():
            total[name] = total[name] + array if name in total else np.array(array, float)
    return total


def spread(moments: NDArray[np.float64]) -> tuple[float, float, float]:
    """Number, mean and standard deviation (n - 1) from [number, sum, sum of squares]; NaN where too few."""
    number, total, squares = (float(value) for value in moments)
    if number < 1:
        return 0.0, math.nan, math.nan
    mean = total / number
    return number, mean, math.sqrt(max(squares - number * mean**2, 0) / (number - 1)) if number > 1 else math.nan


def dice_panel(by_site: Mapping[str, Arrays], tissues: Sequence[str]) -> dict[str, Any]:
    """Mean Dice by tissue and site."""
    figure, axes = _figure(by_site, "Dice")
    for tissue, name in enumerate(tissues):
        shift = (tissue - (len(tissues) - 1) / 2) * 0.22
        for row, (_, arrays) in enumerate(_with(by_site, "moments/dice")):
            number, mean, deviation = spread(arrays["moments/dice"][tissue])
            half = stats.t.ppf(0.975, number - 1) * deviation / math.sqrt(number) if number > 1 else 0.0
            low, high = max(mean - half, 0), min(mean + half, 1)
            _interval(axes, row + shift, (low, mean, high), COLORS[tissue], name.replace("_", " ") if row == 0 else "")
    _name_rows(axes, by_site, "moments/dice", lambda array: array[0, 0])
    _legend(axes)
    note = "Mean over test persons and its 95 % interval (Student's t), from sums over persons. In brackets: persons."
    return {"title": "Overlap with the reference (Dice)", "note": note, "figure": figure}


def agreement_panel(by_site: Mapping[str, Arrays]) -> dict[str, Any]:
    """Bias and limits of agreement of the skeletal muscle index."""
    key = "moments/index_difference"
    figure, axes = _figure(by_site, "predicted - reference, cm2/m2")
    axes.axvline(0, color="#999999", linewidth=0.8)
    for row, (_, arrays) in enumerate(_with(by_site, key)):
        number, mean, deviation = spread(arrays[key])
        half = 0.0 if math.isnan(deviation) else 1.96 * deviation
        error = deviation * stats.t.ppf(0.975, number - 1) / math.sqrt(number) if number > 1 else 0.0
        _interval(axes, row, (mean - half, mean, mean + half), COLORS[0], "limits of agreement" if row == 0 else "")
        axes.plot([mean - error, mean + error], [row, row], color=COLORS[1], linewidth=4, alpha=0.6,
                  label="95 % interval of the bias" if row == 0 else None)  # fmt: skip
        limits = "" if math.isnan(deviation) else f" ({mean - half:+.1f} to {mean + half:+.1f})"  # of one person none
        axes.annotate(f"{mean:+.1f}{limits}", (mean, row), (0, 7),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    _name_rows(axes, by_site, key, lambda array: array[0])
    _legend(axes)
    note = (
        "Skeletal muscle index at L3. Dot: mean difference (bias). Line: bias +- 1.96 standard deviations, within "
        "which 95 % of differences are expected (Bland and Altman), from sums: the persons stay at their sites."
    )
    return {"title": "Agreement of the muscle index", "note": note, "figure": figure}


def prevalence_panel(by_site: Mapping[str, Arrays], cut_off: CutOff) -> dict[str, Any]:
    """Share of persons with low muscle, by reference and by prediction."""
    key = "count/sarcopenia"
    figure, axes = _figure(by_site, "share of persons")
    for row, (_, arrays) in enumerate(_with(by_site, key)):
        counts = np.rint(arrays[key]).astype(int)
        for shift, number, name, color in (
            (-0.13, counts[1].sum(), "reference", COLORS[1]),
            (0.13, counts[:, 1].sum(), "predicted", COLORS[0]),
        ):
            persons = int(counts.sum())
            if persons:
                found = stats.binomtest(int(number), persons).proportion_ci(method="wilson")
                _interval(axes, row + shift, (found.low, number / persons, found.high), color, name if row == 0 else "")
    axes.set_xlim(-0.02, 1.02)  # a mark at an end is whole
    _name_rows(axes, by_site, key, lambda array: array.sum())
    _legend(axes)
    total = pooled(by_site).get(key)
    agree = (
        f" Prediction and reference agree on {(total[0, 0] + total[1, 1]) / total.sum():.0%} of the persons."
        if _any(total)
        else ""
    )
    note = (
        f"Test persons below the cut-off {cut_off.name} ({cut_off.source}), with Wilson's 95 % interval. "
        f"In brackets: persons.{agree}"
    )
    return {"title": "Prevalence of sarcopenia", "note": note, "figure": figure}


def survival_panel(by_site: Mapping[str, Arrays], cut_off: CutOff, bin_days: float) -> dict[str, Any]:
    """Survival by predicted sarcopenia, all sites together."""
    counts = pooled(by_site).get("histogram/survival")
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    text = "No site gave counts."
    if _any(counts):
        for group, (name, color) in enumerate((("not sarcopenic", COLORS[0]), ("sarcopenic", COLORS[1]))):
            if counts[group].sum():
                _curve(
                    axes,
                    counts[group],
                    bin_days,
                    f"{name} (n = {counts[group].sum():.0f}, {counts[group][1].sum():.0f} died)",
                    color,
                )
        observed, expected, p = log_rank(counts)
        text = (
            f"Deaths among the sarcopenic: {observed:.0f}, {expected:.1f} expected if muscle made no difference; "
            f"log-rank p = {p:.2g}."
        )
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.set(xlabel="days", ylabel="survival", ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    note = (
        f"Test persons of all sites by predicted sarcopenia ({cut_off.name}); life-table estimate from deaths and "
        f"censorings counted in bins of {bin_days:.0f} days, with 95 % intervals (Greenwood, log-log). {text} "
        "Not adjusted for age, sex or site."
    )
    return {"title": "Survival by sarcopenia", "note": note, "figure": figure}


def life_table(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Actuarial survival at the end of each bin and its 95 % limits, from [censored, died] [2, bins].

    Of those censored in a bin half are at risk in it (Cutler and Ederer, J Chronic Dis 1958;8:699-712). Variance by
    Greenwood, limits on the log-log scale. Bins after the last person are left out.
    """
    censored, died = counts
    entering = counts.sum() - np.concatenate([[0], np.cumsum(counts.sum(0))[:-1]])
    kept = entering > 0
    censored, died, entering = censored[kept], died[kept], entering[kept]
    at_risk = entering - censored / 2
    survival = np.cumprod(1 - died / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(died / (at_risk * (at_risk - died)))
        half = 1.96 * np.sqrt(variance) / np.abs(np.log(survival))
        low, high = survival ** np.exp(half), survival ** np.exp(-half)
    unknown = ~np.isfinite(half)
    return survival, np.where(unknown, survival, low), np.where(unknown, survival, high)


def log_rank(counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """Deaths in the second group, those expected, and the log-rank p, from [group, censored or died, bin].

    Mantel-Haenszel over the bins with the life table's numbers at risk. p is 1 where nothing can be told.
    """
    left = counts.sum(axis=(1, 2))[:, None] - np.concatenate([np.zeros((2, 1)), np.cumsum(counts.sum(1), 1)[:, :-1]], 1)
    at_risk, died = left - counts[:, 0] / 2, counts[:, 1]
    everyone, deaths = at_risk.sum(0), died.sum(0)
    use = (everyone > 1) & (deaths > 0)
    share = at_risk[1, use] / everyone[use]
    expected = deaths[use] * share
    variance = float(np.sum(expected * (1 - share) * np.maximum(everyone[use] - deaths[use], 0) / (everyone[use] - 1)))
    observed = float(died[1].sum())
    p = float(stats.chi2.sf((died[1, use].sum() - expected.sum()) ** 2 / variance, 1)) if variance > 0 else 1.0
    return observed, float(expected.sum()), p


def _curve(axes: Axes, counts: NDArray[np.float64], bin_days: float, label: str, color: str) -> None:
    survival, low, high = (np.concatenate([[1.0], values]) for values in life_table(counts))
    days = bin_days * np.arange(len(survival))
    axes.plot(days, survival, color=color, label=label, marker=".", markersize=4)
    axes.fill_between(days, low, high, color=color, alpha=0.15, linewidth=0)


def _with(by_site: Mapping[str, Arrays], key: str) -> list[tuple[str, Arrays]]:
    """Sites that gave an array, and all of them together in the last row."""
    rows = [(site, arrays) for site, arrays in by_site.items() if _any(arrays.get(key))]
    return [*rows, (POOLED, pooled(dict(rows)))] if rows else []


def _any(array: NDArray[np.float64] | None) -> bool:
    return array is not None and bool(np.any(array))


def _figure(by_site: Mapping[str, Arrays], label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 1.5 + 0.55 * (len(by_site) + 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _interval(axes: Axes, row: float, values: tuple[float, float, float], color: str, label: str) -> None:
    low, middle, high = values
    axes.plot([low, high], [row, row], color=color, linewidth=1.6)
    axes.plot([middle], [row], "o", color=color, markersize=5, label=label or None)


def _name_rows(axes: Axes, by_site: Mapping[str, Arrays], key: str, persons: Callable[[Any], float]) -> None:
    rows = _with(by_site, key)
    axes.set_yticks(range(len(rows)), [f"{site} ({persons(arrays[key]):.0f})" for site, arrays in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
