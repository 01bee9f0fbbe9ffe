"""How images look before any training: by hand-made images, and what the numbers tell of how many persons."""

import numpy as np
import pytest

from datamodules.description import Description
from datamodules.intensities import BINS, CUT, ONE_LEVEL, VARIED, look, shares, spread, thumbnail
from flip.messages.summary import Topic
from flip.site.disclosure import suppress_summaries
from flip.site.statistics import description

RAMP = np.tile(np.linspace(0, 1, BINS, dtype=np.float16), (1, 4, 1))  # [1, 4, BINS], each bin as often


@pytest.mark.parametrize(
    ("image", "looks"),
    [
        (RAMP, VARIED),
        (np.full((1, 4, 4), 0.5), ONE_LEVEL),
        (RAMP / 16, ONE_LEVEL),  # 12 bits that are taken for 16
        (RAMP * 0.005, ONE_LEVEL),  # floats of 0 to 1 that are taken for 0 to 255
        (np.where(np.arange(100) < 5, 0.3, 1), CUT),
        (np.where(np.arange(100) < 5, 0.3, 0), CUT),
        (np.where(np.arange(100) < 45, 0, np.where(np.arange(100) > 54, 1, 0.5)), VARIED),
        (np.where(np.arange(100) < 8, 0.3, 0), VARIED),  # a bright thing on black
        (np.stack([RAMP[0]] * 3, -1)[None], VARIED),
    ],
)
def test_an_image_that_shows_nothing_is_known(image, looks):
    assert look(image) == looks


def test_the_shares_of_the_bins_add_up_to_one_with_the_brightest_in_the_last():
    assert shares(RAMP) == pytest.approx(np.full(BINS, 1 / BINS))
    assert shares(np.array([0.0, 0.5, 1.0, 1.0])).tolist()[:: BINS // 2] == [0.25, 0.25]
    assert shares(np.array([0.0, 0.5, 1.0, 1.0]))[-1] == 0.5


def test_a_thumbnail_is_gray_or_color_and_of_a_volume_its_middle():
    assert thumbnail(RAMP).shape == (4, BINS) and thumbnail(RAMP).max() == 255
    color = np.stack([np.ones((2, 3)), np.zeros((2, 3)), np.full((2, 3), 0.2)])
    assert thumbnail(color)[1, 2].tolist() == [255, 0, 51]
    volume = np.zeros((1, 2, 3, 5))
    volume[..., 2] = 1
    assert (thumbnail(volume) == 255).all()


def test_a_few_places_are_spread_over_all():
    assert spread(10, 3).tolist() == [0, 4, 9]
    assert spread(2, 5).tolist() == [0, 1]
    assert spread(0, 5).tolist() == []


def told(persons: list[int], images: list) -> dict[str, np.ndarray]:
    described = Description(np.array(persons), {})
    described.images(images)
    arrays, behind = described.found()
    assert set(behind) == set(arrays)
    return arrays


def test_each_person_counts_as_one_in_the_histogram_however_many_images_they_have():
    black, white = np.zeros((1, 4, 4)), np.ones((1, 4, 4))
    found = told([0, 0, 0, 1], [black, black, white, white])
    histogram = found["histogram/image intensities"]
    assert histogram[[0, -1]].tolist() == pytest.approx([2 / 3, 1 + 1 / 3])
    assert found["moments/image"].tolist() == [4, 2, 2]
    assert found[f"count/levels/image/{ONE_LEVEL}"].tolist() == [2]
    assert found["count/known/image"].tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("persons", "without", "shown"), [(60, 0, 60), (60, 1, 50), (60, 12, 20), (300, 0, 200), (7, 3, 0), (3, 0, 3)]
)
def test_the_histogram_does_not_tell_how_many_have_no_image(persons, without, shown):
    found = told(list(range(persons)), [None] * without + [RAMP] * (persons - without))
    assert found.get("histogram/image intensities", np.zeros(1)).sum() == pytest.approx(shown)


class Cohort:
    """A dataset of images alone, of 60 persons."""

    def __init__(self, images: list) -> None:
        self.images = images

    def describe(self, edges):
        described = Description(np.arange(len(self.images)), edges)
        described.images(self.images)
        return described.found()


@pytest.mark.parametrize("without", [0, 2, 12])
def test_nothing_of_an_image_leaves_that_rests_on_fewer_than_the_minimum_cell(without):
    rng = np.random.default_rng(0)
    odd = [np.ones((1, 4, 4))] * 3
    images = [None] * without + odd + [0.2 + 0.4 * rng.random((1, 8, 8)) for _ in range(57 - without)]
    found = description(60, Cohort(images), {}, 5)
    left = suppress_summaries(60, {Topic.DESCRIPTION: found}, 5)[Topic.DESCRIPTION]
    histogram = left["histogram/image intensities"].values
    assert ((histogram == 0) | (histogram >= 5)).all() and histogram.sum() == pytest.approx(
        60 if not without else {2: 50, 12: 20}[without]
    )
    assert f"count/levels/image/{ONE_LEVEL}" not in left  # three persons
    assert f"count/levels/image/{VARIED}" not in left  # from which the three would follow
    assert ("count/known/image" in left) == ("moments/image" in left) == (without != 2)
