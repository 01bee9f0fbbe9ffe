"""Tables of the report that fit the page."""

import pytest

from flip.report.forest import in_lines
from flip.report.tables import metric_groups

MUSCLE = [f"{kind}_{tissue}" for kind in ("dice", "hd95") for tissue in ("muscle", "subcutaneous_fat", "visceral_fat")]


@pytest.mark.parametrize(
    "names",
    [
        [*MUSCLE, "prevalence_predicted", "prevalence_reference", "sarcopenia_sensitivity"],
        ["accuracy"],
        ["x" * 200, "y"],
    ],
)
def test_no_table_of_metrics_is_wider_than_the_page_and_none_is_lost(names: list[str]) -> None:
    groups = metric_groups(names)
    assert [name for group in groups for name in group] == names
    assert all(sum(max(len(name), 17) for name in group) <= 100 or len(group) == 1 for group in groups)


def test_three_short_metrics_stand_beside_the_counts() -> None:
    assert metric_groups(["accuracy", "auroc", "loss"]) == [["accuracy", "auroc", "loss"]]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("va", ["va"]),
        ("st_gallen_university_hospital", ["st_gallen_university_", "hospital"]),
        ("x" * 30, ["x" * 28, "xx"]),
    ],
)
def test_a_long_name_of_a_site_is_cut_between_words(name: str, lines: list[str]) -> None:
    assert in_lines(name).splitlines() == lines
