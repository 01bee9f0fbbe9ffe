"""Where the third lumbar vertebra is found in labels, and when the scan does not show the whole of it."""

import numpy as np
import pytest

from datamodules.ct.planes import CUT_LEVEL, CUT_MUSCLE, NO_LEVEL, Skip, level_slice, planes_at_level


def marked(*parts, slices=60):
    """A mask of L3, of which each part is (first slice, slice after the last, rows)."""
    mask = np.zeros((slices, 8, 8), bool)
    for first, end, rows in parts:
        mask[first:end, rows] = True
    return {"vertebra_L3": mask}


def reason_of(masks):
    with pytest.raises(Skip) as caught:
        level_slice(masks)
    return str(caught.value)


WHOLE, STRAY = (30, 41, slice(None)), (0, 4, slice(0, 4))


@pytest.mark.parametrize(
    "parts",
    [[WHOLE], [WHOLE, (2, 4, slice(0, 4))], [WHOLE, STRAY], [WHOLE, (58, 60, slice(0, 1))]],
    ids=["alone", "and an island", "and an island at the first slice", "and an island at the last slice"],
)
def test_the_level_is_the_center_of_its_largest_part(parts):
    assert level_slice(marked(*parts)) == 35


def test_parts_that_touch_by_a_corner_are_one():
    masks = marked((30, 35, slice(0, 4)), (35, 40, slice(4, 8)))
    assert level_slice(masks) == 34


@pytest.mark.parametrize(
    "parts",
    [[(0, 10, slice(None))], [(50, 60, slice(None))], [(0, 60, slice(None))], [(0, 10, slice(None)), (30, 34, [1])]],
    ids=["below", "above", "on both sides", "with an island inside"],
)
def test_a_level_that_touches_the_edge_of_the_scan_is_cut(parts):
    assert reason_of(marked(*parts)) == CUT_LEVEL


def test_the_only_slice_of_a_scan_is_the_chosen_level():
    assert level_slice(marked((0, 1, slice(None)), slices=1)) == 0
    assert reason_of(marked((0, 2, slice(None)), slices=2)) == CUT_LEVEL


@pytest.mark.parametrize("masks", [{}, marked()], ids=["no such segment", "an empty one"])
def test_without_a_level_there_is_no_slice(masks):
    assert reason_of(masks) == NO_LEVEL


def test_a_level_without_muscle_at_its_center_is_not_labeled():
    masks = marked(WHOLE) | {name: np.zeros((60, 8, 8), bool) for name in ("subcutaneous_fat", "visceral_fat")}
    masks["skeletal_muscle"] = marked((30, 33, slice(None)))["vertebra_L3"]
    with pytest.raises(Skip, match=NO_LEVEL):
        planes_at_level(np.zeros((60, 8, 8), np.float32), (5.0, 1.0, 1.0), masks, count=3, step_mm=5.0)


def at_level(rows, columns, slices=(30, 41)):
    """Masks whose muscle is these pixels of some slices."""
    masks = marked(WHOLE) | {name: np.zeros((60, 8, 8), bool) for name in ("subcutaneous_fat", "visceral_fat")}
    masks["skeletal_muscle"] = np.zeros((60, 8, 8), bool)
    masks["skeletal_muscle"][slice(*slices), rows, columns] = True
    return masks


def planes(masks):
    return planes_at_level(np.zeros((60, 8, 8), np.float32), (5.0, 1.0, 1.0), masks, count=3, step_mm=5.0)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(0, 3), slice(2, 4)), (slice(5, 8), 3), (3, slice(0, 2)), (3, slice(6, 8))],
    ids=["front", "back", "right", "left"],
)
def test_muscle_that_the_picture_cuts_at_the_level_has_no_area(rows, columns):
    with pytest.raises(Skip, match=CUT_MUSCLE):
        planes(at_level(rows, columns))


def test_muscle_within_the_picture_and_cut_fat_are_measured():
    masks = at_level(slice(1, 7), slice(1, 7))
    masks["subcutaneous_fat"][:, :, [0, -1]] = True
    assert len(planes(masks)) == 3
