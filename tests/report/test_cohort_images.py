"""What does not fit of the sites' images is named with its figure, and no table's remedy is given for it."""

import pytest

from tests.report.test_cohorts import cohorts, moments

USUAL = {"count/known/image": [100.0, 0, 0], "count/levels/image/varied": [100.0], "moments/image": moments(0.5, 0.1)}


def test_sites_whose_images_are_alike_are_left_alone():
    assert cohorts(north=USUAL, south=USUAL | {"moments/image": moments(0.6, 0.1)}).findings == []


@pytest.mark.parametrize("look", ["nearly one gray level", "saturated"])
def test_images_that_show_nothing_are_named(look):
    (found,) = cohorts(north=USUAL, south=USUAL | {f"count/levels/image/{look}": [7.0]}).findings
    assert (found.site, found.column) == ("south", "image")
    assert "7 persons" in found.what and look in found.what and "dataset.image.values" in found.remedy


@pytest.mark.parametrize(("mean", "word"), [(0.031, "darker"), (0.95, "brighter")])
def test_images_of_another_brightness_are_named(mean, word):
    (found,) = cohorts(north=USUAL, south=USUAL | {"moments/image": moments(mean, 0.01)}, east=USUAL).findings
    assert found.site == "south" and word in found.what and f"{mean:.2g}" in found.what
    assert "columns" not in found.remedy


def test_a_site_without_images_is_named():
    (found,) = cohorts(north=USUAL, south={"count/known/image": [0.0, 100, 0]}).findings
    assert (found.site, found.what) == ("south", "has no image of anybody")


def test_the_same_look_throughout_is_no_spelling_and_no_code():
    saturated = {"count/levels/image/saturated": [100.0], "moments/image": moments(1, 0)}
    found = cohorts(north=USUAL, south={"count/known/image": [100.0, 0, 0], **saturated}, east=USUAL).findings
    assert [each.what.split(" ")[0] for each in found] == ["100", "its"]
