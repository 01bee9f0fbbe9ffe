"""Labels in NIfTI that are not stored as whole numbers."""

import nibabel as nib
import numpy as np
import pytest

from datamodules.dicom import Reason
from datamodules.labels import read_labels
from tests.datamodules.test_labels import NAMES, assert_masks, drawn, ids_of, nifti, reason_of, study


def stored_as(path, masks, affine, values, *, dtype=np.float32, slope=None):
    """NIfTI whose two structures have these values; with a slope, stored as whole multiples of it."""
    ids = masks["skeletal_muscle"] * values[0] + masks["subcutaneous_fat"] * values[1]
    if slope is None:
        return nifti(path, ids, affine, dtype=dtype)
    image = nib.Nifti1Image(np.round(ids / slope).transpose(2, 1, 0).astype(dtype), np.diag([-1, -1, 1, 1]) @ affine)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ((5, 8.9999998), {}),
        ((4.9995, 8.9991), {}),
        ((5.0009, 9.0009), {"dtype": np.float64}),
        ((5, 9), {"dtype": np.int16, "slope": 1 / 3}),
    ],
    ids=["rounded in float32", "times .9999", "a little above", "by slope and intercept"],
)
def test_nifti_labels_near_a_whole_number_are_that_number(tmp_path, values, form):
    volume, _ = study(tmp_path)
    path = stored_as(tmp_path / "labels.nii.gz", drawn(), volume.affine, values, **form)
    assert_masks(read_labels(path, volume, NAMES), drawn())
    assert list(read_labels(path, volume)) == ["5", "9"]


@pytest.mark.parametrize("odd", [5.5, 4.99, 0.0011, np.nan, np.inf], ids=["half", "resampled", "ringing", "nan", "inf"])
@pytest.mark.parametrize("names", [NAMES, None])
def test_nifti_labels_between_whole_numbers_are_refused(tmp_path, odd, names):
    volume, _ = study(tmp_path)
    ids = ids_of(drawn()).astype(np.float64)
    ids[0, 0, 0] = odd
    path = nifti(tmp_path / "labels.nii", ids, volume.affine, dtype=np.float64)
    assert reason_of(read_labels, path, volume, names) is Reason.LABELS_UNREADABLE
