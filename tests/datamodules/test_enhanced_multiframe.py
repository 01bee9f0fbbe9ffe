"""Enhanced multi-frame CT and MR: each frame is a slice, whatever their order in the file."""

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    JPEGLSLossless,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

from datamodules.dicom import Reason, Remark, Unreadable, read_series
from datamodules.dicom.references import read_references
from datamodules.labels import read_labels
from tests.datamodules.ct_files import ORIGIN, SPACING, body, save, slices_of
from tests.datamodules.test_labels import assert_masks, drawn, segmentation


def reason_of(folder, **options):
    with pytest.raises(Unreadable) as caught:
        read_series(folder, **options)
    return caught.value.reason


def converted(images, modality="CT"):
    """The images as one object of many frames, as archives convert them."""
    kind = highdicom.legacy.LegacyConvertedEnhancedCTImage
    if modality == "MR":
        kind = highdicom.legacy.LegacyConvertedEnhancedMRImage
    for image in images:
        image.Modality = modality
        image.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.PositionReferenceIndicator = ""
    return kind(images, generate_uid(), 7, generate_uid(), 1)


def slices_in(made):
    """Which slice each frame is: they are not in the order of the images."""
    frames = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in made.PerFrameFunctionalGroupsSequence]
    return [round((float(position[2]) - ORIGIN[2]) / SPACING[0]) for position in frames]


def enhanced(hu, groups=lambda index: {}):
    """An enhanced CT object as a scanner writes it, each frame with its place; `groups` adds to a frame's."""
    made = converted(slices_of(hu))
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for index, frame in zip(slices_in(made), made.PerFrameFunctionalGroupsSequence, strict=True):
        for name, values in groups(index).items():
            item = frame.get(name, [Dataset()])[0]
            item.update(values)
            setattr(frame, name, Sequence([item]))
    return made


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]], ids=["in order", "in any order"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_each_frame_is_a_slice(tmp_path, modality, order):
    images = slices_of(body())
    volume = read_series(save(tmp_path, [converted([images[k] for k in order], modality)]), modality=modality)
    np.testing.assert_array_equal(volume.voxels, body())
    np.testing.assert_allclose(volume.affine, read_series(save(tmp_path / "single", slices_of(body()))).affine)
    assert volume.series_number == 7 and len(set(volume.sop_instance_uids)) == 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames(tmp_path, syntax):
    made = converted([slices_of(body())[k] for k in (1, 3, 0, 2)])
    made.compress(syntax)
    np.testing.assert_array_equal(read_series(save(tmp_path, [made])).voxels, body())


def test_a_rescaling_of_its_own_for_each_frame(tmp_path):
    images = slices_of(body() // 2 * 2)
    images[1:3] = slices_of(body() // 2 * 2, slope=2, intercept=-1000)[1:3]
    for image in images:
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    np.testing.assert_array_equal(read_series(save(tmp_path, [converted(images)])).voxels, body() // 2 * 2)


def test_the_labels_of_an_enhanced_object_name_it(tmp_path):
    made = converted(slices_of(body()))
    folder = save(tmp_path / "ct", [made, *slices_of(body(6) + 60)])
    file = next(path for path in folder.iterdir() if "NumberOfFrames" in dcmread(path))
    drawn_on = {name: mask[slices_in(made)] for name, mask in drawn().items()}
    segmentation([dcmread(file)], drawn_on).save_as(tmp_path / "seg.dcm")
    volume = read_series(folder, references=read_references(tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.NAMED_SERIES: 1, Remark.OTHER_SERIES: 1}
    assert_masks(read_labels(tmp_path / "seg.dcm", volume), drawn())


def test_phases_among_the_frames_are_scans_of_their_own_and_nothing_names_one(tmp_path):
    hu = np.concatenate([body(), body() + 60])
    single = slices_of(body())

    def groups(index):
        place = Dataset()
        place.ImagePositionPatient = single[index % 4].ImagePositionPatient
        content = Dataset()
        content.FrameAcquisitionNumber, content.FrameAcquisitionDateTime = 1 + index // 4, "20200101120000.5"
        return {"PlanePositionSequence": place, "FrameContentSequence": content}

    assert reason_of(save(tmp_path, [enhanced(hu, groups)])) is Reason.SEVERAL_ACQUISITIONS


def test_a_map_of_another_unit_is_no_hounsfield_unit(tmp_path):
    made = enhanced(body())
    for groups in (*made.PerFrameFunctionalGroupsSequence, *made.SharedFunctionalGroupsSequence):
        for item in groups.get("PixelValueTransformationSequence", ()):
            item.RescaleType = "MGML"
    assert reason_of(save(tmp_path, [made])) is Reason.NOT_HOUNSFIELD


def test_a_frame_without_a_place_is_a_reason(tmp_path):
    made = enhanced(body())
    del made.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    assert reason_of(save(tmp_path, [made])) is Reason.MISSING_GEOMETRY


def test_fewer_groups_than_frames_are_a_reason(tmp_path):
    made = enhanced(body())
    made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[:3]
    assert reason_of(save(tmp_path, [made])) is Reason.MULTIFRAME


def test_a_film_of_many_frames_without_places_is_no_scan(tmp_path):
    made = enhanced(body())
    del made.PerFrameFunctionalGroupsSequence, made.SharedFunctionalGroupsSequence
    assert reason_of(save(tmp_path / "ct", [made])) is Reason.MULTIFRAME
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    np.testing.assert_array_equal(read_series(save(tmp_path / "sc", [made, *slices_of(body())])).voxels, body())


def test_cut_frames_are_a_reason(tmp_path):
    folder = save(tmp_path, [enhanced(body())])
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert reason_of(folder) is Reason.TRUNCATED
