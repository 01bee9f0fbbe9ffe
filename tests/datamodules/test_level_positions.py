"""A level's coordinate in the patient, and its position among slices."""

import numpy as np
import pytest

from datamodules.ct.planes import Skip
from datamodules.dicom import Volume
from datamodules.levels.positions import OUTSIDE, TILTED, level_mm_of, position_of


def volume(degrees: float = 0.0, slices: int = 20) -> Volume:
    """Slices of 4 mm from z = -310 up at their middle, turned about the axis to the left."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[2, 0, 0], [0, 2 * cos, -4 * sin], [0, 2 * sin, 4 * cos]])
    affine[:3, 3] = np.array([-15.0, -9.0, -310.0]) - affine[:3, :3] @ np.array([3.5, 4.5, 0])
    return Volume(np.zeros((slices, 10, 8), np.float32), affine, (4.0, 2.0, 2.0), "", "", ())


def test_a_coordinate_is_that_of_the_middle_of_its_slice():
    assert position_of(-310 + 4 * 7.25, volume()) == pytest.approx(7.25)
    assert level_mm_of(7.25, volume()) == pytest.approx(-281.0)


@pytest.mark.parametrize(("slices", "level_mm"), [(20, -312.1), (20, -231.9), (1, -307.9)])
def test_a_coordinate_beyond_the_slices_is_of_another_scan(slices, level_mm):
    with pytest.raises(Skip, match=OUTSIDE):
        position_of(level_mm, volume(slices=slices))


def test_in_a_tilted_scan_a_coordinate_names_no_slice():
    assert position_of(-300, volume(0.9)) == pytest.approx(2.5, abs=0.01)
    with pytest.raises(Skip, match=TILTED):
        position_of(-300, volume(1.1))
