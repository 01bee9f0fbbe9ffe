"""Scans on the study's grid: values are averaged, classes are those with the largest share."""

import numpy as np

from datamodules.segmentation.grid import mapping, resampled, resampled_label, turned


def test_classes_are_those_with_the_largest_share_of_all():
    """As shares of each class over the whole scan say, computed without boxes."""
    label = np.random.default_rng(0).integers(0, 4, (6, 7, 5)).astype(np.uint8).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    shape, places = mapping(label.shape, (1.0, 0.7, 2.0), (1.6, 1.1, 1.3))
    shares = np.stack([resampled(label == number, places, shape) for number in range(4)])
    found = resampled_label(label, places, shape)
    assert found.shape == shape and (found == shares.argmax(0)).mean() > 0.999


def test_values_keep_their_place_and_fine_structure_is_averaged():
    ramp = np.arange(40.0)[:, None].repeat(3, 1)
    shape, places = mapping(ramp.shape, (1.0, 1.0), (2.5, 1.0))
    scale, offset = places[0]
    inner = resampled(ramp, places, shape)[2:-2, 0]
    np.testing.assert_allclose(inner, (np.arange(shape[0]) - offset)[2:-2] / scale, atol=1e-4)
    stripes = (np.arange(40) % 2)[:, None].repeat(3, 1)
    assert np.abs(resampled(stripes, *mapping(stripes.shape, (1.0, 1.0), (4.0, 1.0))[::-1]) - 0.5)[1:-1].max() < 0.02


def test_turning_moves_the_spacing_with_the_axes():
    array = np.arange(24).reshape(2, 3, 4)
    found, spacing = turned(array, (3.0, 2.0, 1.0), "RAS")
    assert np.array_equal(found, array.transpose(2, 1, 0)[::-1, ::-1]) and spacing == (1.0, 2.0, 3.0)
