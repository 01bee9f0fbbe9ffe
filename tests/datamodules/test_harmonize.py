"""ComBat agreed from sums equals ComBat of the pooled rows."""

import numpy as np
import pandas as pd
import pytest

from datamodules.harmonize import ComBat

COLUMNS, COVARIATES = ["a", "b", "c", "d"], ["age", "sex"]


def sites() -> list[pd.DataFrame]:
    rng = np.random.default_rng(5)
    made = []
    for number, size in enumerate((40, 25, 60)):
        covariates = np.stack([rng.normal(60 + 4 * number, 9, size), rng.integers(0, 2, size)], axis=1)
        effect = covariates @ np.array([[0.1, 0.2, 0.0, -0.1], [1.0, 0.0, 2.0, 0.5]])
        noise = rng.normal(0, 1, (size, 4)) * (1 + 0.5 * number) * np.array([1.0, 1.3, 0.8, 1.1])
        values = 5 + effect + number * np.array([1.0, 0.8, 1.2, 0.9]) + noise
        made.append(pd.DataFrame(np.hstack([values, covariates]), columns=[*COLUMNS, *COVARIATES]))
    return made


def pooled_combat(frames: list[pd.DataFrame]) -> list[np.ndarray]:
    """Johnson, Li and Rabinovic 2007 on pooled rows with a design of one column a site: the published algorithm."""
    site = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    rows = pd.concat(frames, ignore_index=True)
    y, x = rows[COLUMNS].to_numpy(), rows[COVARIATES].to_numpy()
    design = np.hstack([np.eye(len(frames))[site], x])
    estimate = np.linalg.solve(design.T @ design, design.T @ y)
    number = np.bincount(site)
    grand = (number / number.sum()) @ estimate[: len(frames)]
    deviation = np.sqrt(((y - design @ estimate) ** 2).mean(axis=0))
    stand = grand + x @ estimate[len(frames) :]
    z = (y - stand) / deviation
    found = []
    for index in range(len(frames)):
        own = z[site == index]
        gamma, delta = own.mean(axis=0), own.var(axis=0, ddof=1)
        tau = gamma.var(ddof=1)
        a = (2 * delta.var(ddof=1) + delta.mean() ** 2) / delta.var(ddof=1)
        b = (delta.mean() * delta.var(ddof=1) + delta.mean() ** 3) / delta.var(ddof=1)
        g, d = gamma.copy(), delta.copy()
        for _ in range(500):
            g = (len(own) * tau * gamma + d * gamma.mean()) / (len(own) * tau + d)
            d = (0.5 * ((own - g) ** 2).sum(axis=0) + b) / (len(own) / 2 + a - 1)
        found.append((own - g) / np.sqrt(d) * deviation + stand[site == index])
    return found


def federated(frames: list[pd.DataFrame]) -> list[np.ndarray]:
    combats = [ComBat(COLUMNS, COVARIATES) for _ in frames]
    parts = [each.statistics(frame, np.arange(len(frame)))[0] for each, frame in zip(combats, frames, strict=True)]
    merged = {name: sum(part[name] for part in parts) for name in parts[0]}
    found = []
    for combat, frame in zip(combats, frames, strict=True):
        combat.agree(merged)
        adjusted = combat.adjust(frame, np.ones(len(frame), bool))
        found.append(np.stack([adjusted[name] for name in COLUMNS], axis=1))
    return found


def test_harmonised_values_equal_those_of_the_pooled_fit():
    for ours, theirs in zip(federated(sites()), pooled_combat(sites()), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_sites_offsets_are_gone_and_the_effect_of_age_is_kept():
    before, after = sites(), federated(sites())
    residual = [frame[COLUMNS].to_numpy() - frame[COVARIATES].to_numpy() @ effect() for frame in before]
    harmonised = [y - f[COVARIATES].to_numpy() @ effect() for y, f in zip(after, before, strict=True)]
    assert np.std([each.mean(axis=0) for each in harmonised], axis=0) == pytest.approx(0, abs=0.2)
    assert np.std([each.mean(axis=0) for each in residual], axis=0).min() > 0.5


def effect() -> np.ndarray:
    return np.array([[0.1, 0.2, 0.0, -0.1], [1.0, 0.0, 2.0, 0.5]])


def test_sums_say_nothing_of_single_rows():
    frame, person = sites()[0], np.arange(40) // 2
    arrays, behind = ComBat(COLUMNS, COVARIATES).statistics(frame, person)
    assert {name: array.shape for name, array in arrays.items()} == {
        "sum/harmonize/n": (1,), "sum/harmonize/y": (4,), "sum/harmonize/x": (2,), "sum/harmonize/xx": (2, 2),
        "sum/harmonize/xy": (2, 4), "sum/harmonize/yy": (4,),
    }  # fmt: skip
    assert behind == min(len(np.unique(person[frame["sex"] == each])) for each in (0, 1))


def test_a_missing_value_stays_missing_and_a_missing_covariate_counts_as_its_mean():
    combat, frame = ComBat(COLUMNS, COVARIATES), sites()[0]
    combat.agree(combat.statistics(frame, np.arange(40))[0])
    frame.loc[0, "a"], frame.loc[1, "age"] = np.nan, np.nan
    adjusted = combat.adjust(frame, np.ones(40, bool))
    assert np.isnan(adjusted["a"]).nonzero()[0].tolist() == [0] and np.isfinite(adjusted["a"][1])


@pytest.mark.parametrize(("columns", "covariates"), [(["a"], []), (["a", "b"], ["a"])])
def test_too_few_columns_or_a_column_that_is_its_own_covariate_are_refused(columns, covariates):
    with pytest.raises(ValueError, match=r"dataset.tabular.harmonize: needs two columns or more"):
        ComBat(columns, covariates)
