"""Volumes of a cohort of images: which series was read, counted for the study and told to the site."""

import numpy as np
import pytest

from datamodules.dicom import Remark
from datamodules.images import Images
from datamodules.volume_cache import VolumeCache
from tests.datamodules.ct_files import body, save, slices_of


@pytest.fixture
def folder(tmp_path):
    """Two studies, of which the second holds two series of one place."""
    save(tmp_path / "images" / "A1", slices_of(body()))
    other = slices_of(body() + 60)
    for image in other:
        image.SeriesNumber = 3
    save(tmp_path / "images" / "A2" / "more", other)
    save(tmp_path / "images" / "A2", slices_of(body()))
    return tmp_path / "images"


@pytest.mark.parametrize("cached", [False, True])
def test_which_series_was_read_is_remarked_and_told_to_the_site(folder, tmp_path, cached):
    cache = VolumeCache(tmp_path / "cache", 1) if cached else None
    rows = ["A2", "A1", None, "A2"]  # the second study has two rows
    for _ in range(2):
        pixels = Images([10, 8, 4], window=[-1024, 1024]).read(lambda name: folder / name, rows, cache)
        told = {each.reason: each.rows.tolist() for each in pixels.remarks(rows) if each.rows.any()}
        assert told == {Remark.FIRST_SERIES.value: [1, 0, 0, 0], Remark.OTHER_SERIES.value: [1, 0, 0, 0]}
        assert pixels.series_lines() == ["A2: series 2, the first by rank; 1 series beside those that were read"]
        wanted = (np.moveaxis(body(), 0, -1) + 1024) / 2048
        np.testing.assert_allclose(pixels.kept[pixels.index[0]][0], wanted, atol=1e-3)
