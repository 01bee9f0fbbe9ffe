"""Volumes of a cohort of images: which series was read, counted for the study and told to the site."""

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

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


def as_nifti(path, values):
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1])), path / "mr.nii.gz")
    return path / "mr.nii.gz"


def as_dicom(path, values):
    for file in save(path / "mr", slices_of(values, intercept=0)).iterdir():
        image = dcmread(file)
        image.Modality = "MR"
        image.save_as(file)
    return path / "mr"


@pytest.mark.parametrize("form", [as_nifti, as_dicom])
def test_volumes_of_a_declared_modality_other_than_ct_keep_their_values(tmp_path, form):
    values = np.linspace(0, 20_000, 4 * 10 * 8).reshape(4, 10, 8).astype(np.int16)
    path, cache = form(tmp_path, values), VolumeCache(tmp_path / "cache", 1)

    def read(modality):
        return Images([10, 8, 4], window=[0, 20_000], modality=modality).read(lambda name: path, ["A"], cache)

    np.testing.assert_allclose(read("MR").kept[0, 0], np.moveaxis(values, 0, -1) / 20_000, atol=1e-3)
    with pytest.raises(ValueError, match="none of 1 image could be read"):
        read("CT")
