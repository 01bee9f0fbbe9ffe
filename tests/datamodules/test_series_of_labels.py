"""Which of several series is read for labels that name none: the only one that has their grid."""

import numpy as np
import pytest

from datamodules.ct.grid import Grid
from datamodules.ct_slices import CTSlices
from datamodules.dicom import Reason, Remark
from tests.datamodules.ct_files import SPACING, body, save, slices_of
from tests.datamodules.ct_sites import SEGMENTS, SHAPE, nifti, numbered, structures
from tests.datamodules.test_labels import segmentation
from tests.datamodules.test_which_series import by_frame


def as_nifti(root, images):
    nifti(root / "labels" / "A.nii.gz", numbered(structures()))


def as_folder(root, images):
    for name in SEGMENTS:
        nifti(root / "labels" / "A" / f"{name}.nii", structures()[name])


def as_seg(root, images):
    """A SEG that names no image."""
    seg = segmentation(images, structures())
    by_frame(seg)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    seg.save_as(root / "labels" / "A.dcm")


FORMS = {"NIfTI": as_nifti, "a folder": as_folder, "SEG": as_seg}


def same(brighter=0):
    """A series on the grid of the labels."""
    return slices_of(body(*SHAPE) + np.int16(brighter))


def numbered_as(images, number, **values):
    for image in images:
        image.SeriesNumber = number
        for name, value in values.items():
            setattr(image, name, value)
    return images


def thin():
    """A reconstruction of twice as many slices, which goes before in the rank."""
    return slices_of(body(2 * SHAPE[0], *SHAPE[1:]), step=(0, 0, SPACING[0] / 2))


def moved():
    images = thin()
    for image in images:
        image.ImagePositionPatient[0] += 5
    return images


def narrow():
    return slices_of(body(2 * SHAPE[0], SHAPE[1] - 2, SHAPE[2] - 2), step=(0, 0, SPACING[0] / 2))


def loaded(root, form, *series):
    (root / "labels").mkdir(parents=True)
    (root / "cohort.csv").write_text("person_id,accession_id,sex,height_m\nP,A,F,1.7\n")
    for number, images in enumerate(series):
        save(root / "dicom" / "A" / str(number), images)
    FORMS[form](root, series[0])
    data = CTSlices(str(root), trains=False, grid=Grid(4.0, 16, 32))
    try:
        data.setup()
    except ValueError:
        assert data.skipped
    return data


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", [thin, moved, narrow])
def test_the_series_is_read_whose_grid_the_labels_have(tmp_path, form, other):
    data = loaded(tmp_path / "site", form, numbered_as(same(60), 9), numbered_as(other(), 1))
    ((_, _, plane),) = data._sets["test"].cases
    np.testing.assert_array_equal(plane.hu, body(*SHAPE)[6] + 60)
    assert data.remarks == {Remark.FITTING_SERIES.value: 1, Remark.OTHER_SERIES.value: 1}
    assert data.series.lines == [
        ("A", "series 9, which has the grid of the labels; 1 series beside those that were read")
    ]


AMBIGUOUS = {
    "a phase of another series": lambda: (same(), numbered_as(same(60), 3)),
    "a derived series": lambda: (same(), numbered_as(same(60), 3, ImageType=["DERIVED", "SECONDARY", "AXIAL"])),
    "a phase of the same series": lambda: (
        numbered_as(same(), 2, SeriesInstanceUID="1.2.3.8", AcquisitionNumber=1),
        numbered_as(same(60), 2, SeriesInstanceUID="1.2.3.8", AcquisitionNumber=2),
    ),
    "two of three": lambda: (same(), numbered_as(same(60), 3), numbered_as(thin(), 1)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("series", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_labels_that_several_series_fit_are_refused(tmp_path, form, series):
    data = loaded(tmp_path / "site", form, *series())
    assert data.skipped == {Reason.LABELS_FIT_SEVERAL.value: 1}


@pytest.mark.parametrize("form", FORMS)
def test_a_series_of_another_unit_is_none_that_the_labels_were_drawn_on(tmp_path, form):
    data = loaded(tmp_path / "site", form, numbered_as(same(), 9), numbered_as(same(60), 1, RescaleType="Z_EFF"))
    assert data.remarks[Remark.FITTING_SERIES.value] == 1


@pytest.mark.parametrize("form", FORMS)
def test_labels_that_no_series_fits_match_none(tmp_path, form):
    root = tmp_path / "site"
    data = loaded(root, form, same(), numbered_as(thin(), 1))
    for path in (root / "dicom" / "A" / "0").iterdir():
        path.unlink()
    save(root / "dicom" / "A" / "0", moved()[:4])
    data = CTSlices(str(root), trains=False)
    with pytest.raises(ValueError, match=str(Reason.LABELS_MISMATCH.value)):
        data.setup()


def test_a_label_file_that_cannot_be_read_is_that_reason(tmp_path):
    root = tmp_path / "site"
    loaded(root, "NIfTI", same(), numbered_as(thin(), 1))
    (root / "labels" / "A.nii.gz").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a usable"):
        CTSlices(str(root), trains=False).setup()
