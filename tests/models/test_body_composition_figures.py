"""Figures on muscle show the numbers of an independent library, or of a hand: not only in which direction they go."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from scipy import stats

from models.body_composition import panels, prado_2008
from models.body_composition.outcomes import BodyCompositionOutcomes

# [group, censored or died, bin]: nobody is censored in a bin in which somebody dies, so that both methods agree.
SURVIVAL = np.array(
    [[[0, 0, 0, 0, 80], [10, 4, 2, 4, 0]], [[0, 0, 0, 0, 20], [12, 9, 3, 6, 0]]],
    dtype=float,
)
COUNTS = np.array([[50.0, 10.0], [30.0, 20.0]])  # [reference, predicted]: of 110 persons 50 are low, 30 predicted


def persons(counts: np.ndarray) -> tuple[list[int], list[int]]:
    """Each person's bin and whether he died, from [censored or died, bin]."""
    places = [(at, died) for died in (0, 1) for at, number in enumerate(counts[died]) for _ in range(int(number))]
    return [at + 1 for at, _ in places], [died for _, died in places]


def test_a_life_table_and_its_interval_are_those_of_lifelines():
    survival, low, high = panels.life_table(SURVIVAL[1])
    fitted = KaplanMeierFitter().fit(*persons(SURVIVAL[1]))
    expected = fitted.survival_function_at_times([1, 2, 3, 4]).to_numpy()
    bounds = fitted.confidence_interval_.loc[[1, 2, 3, 4]].to_numpy()
    np.testing.assert_allclose(survival[:4], expected, rtol=1e-9)
    np.testing.assert_allclose(np.stack([low[:4], high[:4]], axis=1), bounds, atol=1e-4)


def test_the_log_rank_test_is_that_of_lifelines_and_of_the_second_group():
    observed, expected, p = panels.log_rank(SURVIVAL)
    (first, died), (second, also) = persons(SURVIVAL[0]), persons(SURVIVAL[1])
    wanted = logrank_test(first, second, died, also)
    assert p == pytest.approx(wanted.p_value, rel=1e-9)
    assert observed == 30
    # By hand: deaths in a bin times the second group's share of those at risk in it.
    assert expected == pytest.approx(22 * 50 / 150 + 13 * 38 / 128 + 5 * 29 / 115 + 10 * 26 / 110)


def test_the_survival_panel_says_who_died_and_draws_the_life_table():
    panel = panels.survival_panel({"a": {"histogram/survival": SURVIVAL}}, prado_2008(), 100.0)
    assert "Deaths among the sarcopenic: 30, 14.8 expected" in panel["note"]
    calm, deadly = panel["figure"].axes[0].get_lines()
    assert calm.get_label() == "not sarcopenic (n = 100, 20 died)"
    assert deadly.get_label() == "sarcopenic (n = 50, 30 died)"
    np.testing.assert_allclose(deadly.get_xdata(), [0, 100, 200, 300, 400, 500])
    np.testing.assert_allclose(deadly.get_ydata(), [1, 38 / 50, 29 / 50, 26 / 50, 20 / 50, 20 / 50])


def lines(panel: dict, name: str) -> tuple[float, tuple[float, float]]:
    """The dot and the ends of the line of a name, in the first row of a panel."""
    drawn = panel["figure"].axes[0].get_lines()
    (at,) = [number for number, line in enumerate(drawn) if line.get_label() == name]
    return float(drawn[at].get_xdata()[0]), tuple(map(float, drawn[at - 1].get_xdata()))


@pytest.mark.parametrize(("name", "number"), [("reference", 50), ("predicted", 30)])
def test_the_prevalence_panel_draws_each_share_with_wilsons_interval(name, number):
    panel = panels.prevalence_panel({"a": {"count/sarcopenia": COUNTS}}, prado_2008())
    middle, ends = lines(panel, name)
    found = stats.binomtest(number, 110).proportion_ci(method="wilson")
    assert middle == pytest.approx(number / 110)
    assert ends == pytest.approx((found.low, found.high))
    assert "agree on 64% of the persons" in panel["note"]


def test_the_prevalences_are_of_the_reference_and_of_the_prediction():
    found = BodyCompositionOutcomes(prado_2008()).metrics({"a": {"count/sarcopenia": COUNTS}})
    assert found["test/site/a/prevalence_reference"] == pytest.approx(50 / 110)
    assert found["test/site/a/prevalence_predicted"] == pytest.approx(30 / 110)


DIFFERENCES = np.array([-3.0, -1.0, 0.5, 1.5, 4.0, 2.0])
MOMENTS = np.array([len(DIFFERENCES), DIFFERENCES.sum(), (DIFFERENCES**2).sum()])


def test_the_limits_of_agreement_are_those_of_bland_and_altman():
    panel = panels.agreement_panel({"a": {"moments/index_difference": MOMENTS}})
    middle, ends = lines(panel, "limits of agreement")
    half = 1.96 * DIFFERENCES.std(ddof=1)
    assert middle == pytest.approx(DIFFERENCES.mean())
    assert ends == pytest.approx((middle - half, middle + half))
    drawn = {line.get_label(): line.get_xdata() for line in panel["figure"].axes[0].get_lines()}
    bias = stats.t.interval(0.95, 5, DIFFERENCES.mean(), stats.sem(DIFFERENCES))
    assert drawn["95 % interval of the bias"] == pytest.approx(bias)


def test_a_dice_is_drawn_with_students_interval():
    values = np.array([0.8, 0.7, 0.75, 0.85])
    moments = np.array([[4, values.sum(), (values**2).sum()]])
    middle, ends = lines(panels.dice_panel({"a": {"moments/dice": moments}}, ["muscle"]), "muscle")
    assert middle == pytest.approx(values.mean())
    assert ends == pytest.approx(stats.t.interval(0.95, 3, values.mean(), stats.sem(values)))
