"""Which scan of a study is read: the one that labels name, and all of it or a reason."""

import shutil

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from datamodules.ct_slices import CTSlices
from datamodules.dicom import Reason, Remark, Unreadable, read_series
from datamodules.dicom.references import NONE, read_references
from datamodules.labels import read_labels
from tests.datamodules.ct_files import SPACING, body, save, slices_of, store
from tests.datamodules.test_labels import drawn, segmentation


def reason_of(folder, **options):
    with pytest.raises(Unreadable) as caught:
        read_series(folder, **options)
    return caught.value.reason


def edited(images, **values):
    """The images with values that are constants or functions of the slice's number."""
    for index, image in enumerate(images):
        for name, value in values.items():
            setattr(image, name, value(index) if callable(value) else value)
    return images


def same_series(images, others):
    """The others in the series of the images."""
    return edited(others, SeriesInstanceUID=images[0].SeriesInstanceUID)


# The series that labels name


@pytest.fixture
def phases(tmp_path):
    """Two series of one place, the second 60 HU brighter, and the SEG of the second."""
    plain, venous = slices_of(body()), edited(slices_of(body() + 60), SeriesNumber=3)
    save(tmp_path / "ct" / "a", plain)
    save(tmp_path / "ct" / "b", venous)
    return tmp_path / "ct", plain, segmentation(venous, drawn())


def written(folder, seg):
    seg.save_as(folder.parent / "seg.dcm")
    return read_references(folder.parent / "seg.dcm")


def by_frame(seg):
    del seg.ReferencedSeriesSequence, seg.SourceImageSequence


def by_source(seg):
    del seg.ReferencedSeriesSequence


def by_series(seg):
    del seg.SourceImageSequence
    del seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence


@pytest.mark.parametrize("left", [lambda seg: None, by_series, by_source, by_frame])
def test_the_series_is_read_that_the_labels_name(phases, left):
    folder, _, seg = phases
    left(seg)
    volume = read_series(folder, references=written(folder, seg))
    np.testing.assert_array_equal(volume.voxels, body() + 60)
    assert volume.remarks == {Remark.NAMED_SERIES: 1, Remark.OTHER_SERIES: 1}


def test_labels_that_name_images_elsewhere_match_none(phases):
    folder, _, seg = phases
    references = written(folder, seg)
    shutil.rmtree(folder / "b")
    assert reason_of(folder, references=references) is Reason.LABELS_MISMATCH


def test_the_series_that_labels_name_has_no_stand_in(phases):
    folder, _, seg = phases
    references = written(folder, seg)
    path = sorted((folder / "b").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-20])
    assert reason_of(folder, references=references) is Reason.TRUNCATED


def test_a_phase_that_labels_name_is_read_of_a_series_that_holds_two(tmp_path):
    first = edited(slices_of(body()), AcquisitionNumber=1)
    second = same_series(first, edited(slices_of(body() + 60), AcquisitionNumber=2))
    folder = save(tmp_path / "ct", [*first, *second])
    volume = read_series(folder, references=written(folder, segmentation(second, drawn())))
    np.testing.assert_array_equal(volume.voxels, body() + 60)


def test_labels_that_name_nothing_leave_the_choice_to_the_rank(phases):
    folder, _, seg = phases
    by_frame(seg)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    references = written(folder, seg)
    assert references == NONE
    volume = read_series(folder, references=references)
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.FIRST_SERIES: 1, Remark.OTHER_SERIES: 1}


def test_of_several_series_that_labels_name_the_one_is_read_of_which_they_name_most_images(phases):
    folder, plain, seg = phases
    listed = Dataset()
    listed.SeriesInstanceUID = plain[0].SeriesInstanceUID
    one = Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = plain[0].SOPClassUID, plain[0].SOPInstanceUID
    listed.ReferencedInstanceSequence = Sequence([one])
    seg.ReferencedSeriesSequence.append(listed)
    volume = read_series(folder, references=written(folder, seg))
    np.testing.assert_array_equal(volume.voxels, body() + 60)


def test_labels_whose_frames_name_other_images_than_they_do_as_a_whole_are_refused(phases):
    folder, plain, seg = phases
    by_source(seg)
    seg.SourceImageSequence = Sequence()
    for image in plain:
        named = Dataset()
        named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        seg.SourceImageSequence.append(named)
    volume = read_series(folder, references=written(folder, seg))
    with pytest.raises(Unreadable) as caught:
        read_labels(folder.parent / "seg.dcm", volume)
    assert caught.value.reason is Reason.LABELS_MISMATCH


def test_a_file_that_is_no_segmentation_has_no_references(tmp_path):
    (tmp_path / "seg.dcm").write_text("not DICOM")
    with pytest.raises(Unreadable) as caught:
        read_references(tmp_path / "seg.dcm")
    assert caught.value.reason is Reason.LABELS_UNREADABLE


# All of the scan, or a reason


def test_a_frame_of_reference_of_its_own_for_each_file_means_nothing(tmp_path):
    images = edited(slices_of(body()), FrameOfReferenceUID=lambda index: generate_uid())
    volume = read_series(save(tmp_path, images))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.frame_of_reference_uid == ""


@pytest.mark.parametrize("of_each", [2, 3, 5])
def test_acquisitions_with_frames_of_reference_of_their_own_that_continue_one_another_are_one_scan(tmp_path, of_each):
    images = edited(slices_of(body(6)), FrameOfReferenceUID=lambda index: f"1.2.3.{1 + index // of_each}")
    volume = read_series(save(tmp_path, edited(images, AcquisitionNumber=lambda index: 1 + index // of_each)))
    np.testing.assert_array_equal(volume.voxels, body(6))
    assert volume.frame_of_reference_uid == "" and volume.remarks == {}


def test_a_copy_of_a_file_is_no_image_more(tmp_path):
    images = edited(slices_of(body()), FrameOfReferenceUID=lambda index: generate_uid())
    save(tmp_path / "copy", images[1:2])
    np.testing.assert_array_equal(read_series(save(tmp_path, images)).voxels, body())


@pytest.mark.parametrize("number", [None, 2])
def test_series_without_a_number_do_not_continue_one_another(tmp_path, number):
    chest, abdomen = edited(slices_of(body(4)), SeriesNumber=number), slices_of(body(4), series="1.2.3.9")
    for image in edited(abdomen, SeriesNumber=number):
        image.ImagePositionPatient[2] += 4 * SPACING[0]
    save(tmp_path, [*chest, *abdomen])
    if number is None:
        assert reason_of(tmp_path) is Reason.SEVERAL_ACQUISITIONS  # of two places
    else:
        assert reason_of(tmp_path) is Reason.SERIES_OF_EACH


TURNED = [0.999, 0.03, 0, -0.03, 0.999, 0]
REST = {
    "a series and a frame of reference for each file": (
        {"SeriesInstanceUID": lambda index: generate_uid(), "FrameOfReferenceUID": lambda index: generate_uid()},
        Reason.SERIES_OF_EACH,
    ),
    "a series for each file": ({"SeriesInstanceUID": lambda index: generate_uid()}, Reason.SERIES_OF_EACH),
    "a series for the last": (
        {"SeriesInstanceUID": lambda index: f"1.2.3.{1 + (index == 3)}"},
        Reason.SERIES_OF_EACH,
    ),
    "two frames of reference in turn": (
        {"FrameOfReferenceUID": lambda index: f"1.2.3.{1 + index % 2}"},
        Reason.FRAMES_OF_REFERENCE,
    ),
    "two frames of reference, the second beside the first": (
        {
            "FrameOfReferenceUID": lambda index: f"1.2.3.{1 + index // 2}",
            "ImagePositionPatient": lambda index: [-20 + 2 * (index // 2), -30, 100 + 3 * index],
        },
        Reason.FRAMES_OF_REFERENCE,
    ),
    "two frames of reference with a gap": (
        {
            "FrameOfReferenceUID": lambda index: f"1.2.3.{1 + index // 2}",
            "ImagePositionPatient": lambda index: [-20, -30, 100 + 3 * index + 3 * (index // 2)],
        },
        Reason.FRAMES_OF_REFERENCE,
    ),
    "two orientations": (
        {"ImageOrientationPatient": lambda index: TURNED if index < 1 else [1, 0, 0, 0, 1, 0]},
        Reason.MIXED_ORIENTATION,
    ),
    "two spacings": ({"PixelSpacing": lambda index: [0.8 + 0.2 * (index > 2), 0.7]}, Reason.MIXED_SIZE),
    "two patients": ({"PatientID": lambda index: f"P{index // 2}"}, Reason.SEVERAL_PATIENTS),
}


@pytest.mark.parametrize(("values", "reason"), REST.values(), ids=REST)
def test_the_rest_of_a_scan_is_not_left_out(tmp_path, values, reason):
    assert reason_of(save(tmp_path, edited(slices_of(body()), **values))) is reason


def test_two_patients_in_one_folder_are_refused(tmp_path):
    other = edited(slices_of(body(2)), PatientID="another")
    assert reason_of(save(tmp_path, [*slices_of(body()), *other])) is Reason.SEVERAL_PATIENTS


def cut_in_the_header(content):
    return content[: content.index(b"\x20\x00\x32\x00")]


DAMAGES = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "cut in the modality": lambda content: content[: content.index(b"\x08\x00\x60\x00") + 9],
    "cut before the position": cut_in_the_header,
    "cut in the file meta information": lambda content: content[:200],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_beside_the_slices_is_a_reason(tmp_path, damage):
    folder = save(tmp_path, slices_of(body()))
    last = next(path for path in folder.iterdir() if dcmread(path).InstanceNumber == 4)
    last.write_bytes(damage(last.read_bytes()))
    assert reason_of(folder) is Reason.DAMAGED_BESIDE


def test_a_damaged_file_in_the_folder_of_another_series_is_not_of_this_scan(tmp_path):
    save(tmp_path / "b", slices_of(body(2)))
    (next((tmp_path / "b").iterdir())).write_bytes(b"")
    volume = read_series(save(tmp_path / "a", slices_of(body())).parent)
    np.testing.assert_array_equal(volume.voxels, body())


@pytest.mark.parametrize("name", [".DS_Store", "._003-0.dcm", "notes.txt", "README"])
def test_files_of_the_system_and_texts_are_no_damaged_slices(tmp_path, name):
    folder = save(tmp_path, slices_of(body()))
    (folder / name).write_bytes(b"\0\0" if name.startswith(".") else b"a text")
    assert read_series(folder).remarks == {}


def bolus():
    image = edited(slices_of(body(1) + 9, series="1.2.3.9"), SliceThickness=10, SeriesNumber=1)[0]
    image.ImagePositionPatient[2] += SPACING[0]
    return image


def without_a_slice(images):
    del images[2]


def cut(images):
    images[1].PixelData = images[1].PixelData[:-20]


def without_spacing(images):
    for image in images:
        del image.PixelSpacing


SPOILS = {
    "lacks a slice": (without_a_slice, Reason.MISSING_SLICES),
    "is cut": (cut, Reason.TRUNCATED),
    "has no spacing": (without_spacing, Reason.MISSING_GEOMETRY),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILS.values(), ids=SPOILS)
def test_a_bolus_slice_does_not_stand_in_for_a_scan(tmp_path, spoil, reason):
    images = slices_of(body(6))
    spoil(images)
    assert reason_of(save(tmp_path, [bolus(), *images])) is reason


def test_a_bolus_slice_is_not_read_before_a_derived_scan(tmp_path):
    images = edited(slices_of(body()), ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    volume = read_series(save(tmp_path, [bolus(), *images]))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.FIRST_SERIES: 1, Remark.OTHER_SERIES: 1}


def test_a_scan_with_contrast_does_not_stand_in_for_one_without(tmp_path):
    images = slices_of(body(6))
    without_a_slice(images)
    other = edited(slices_of(body(6), step=(0, 0, SPACING[0])), ContrastBolusAgent="iohexol", SeriesNumber=3)
    cut(other)
    assert reason_of(save(tmp_path, [*images, *other[:5]])) in (Reason.MISSING_SLICES, Reason.TRUNCATED)


# Phases in one series

PARTS = {
    "acquisition": {"AcquisitionNumber": lambda phase, index: phase + 1},
    "temporal position": {"TemporalPositionIdentifier": lambda phase, index: phase + 1},
    "contrast": {"ContrastBolusAgent": lambda phase, index: ["", "iohexol"][phase]},
    "time": {"AcquisitionTime": lambda phase, index: f"1200{30 * phase:02d}"},
    "date and time": {"AcquisitionDateTime": lambda phase, index: f"202001011200{30 * phase:02d}"},
    "time of the content": {"ContentTime": lambda phase, index: f"1200{30 * phase + index:02d}"},
    "time of each slice": {"AcquisitionTime": lambda phase, index: f"1200{30 * phase + index:02d}.5"},
    "time, downwards": {"AcquisitionTime": lambda phase, index: f"1200{30 * phase + 9 - index:02d}.5"},
}


def two_phases(parts, shift):
    """One series of two phases, of which the second begins `shift` mm higher and is 60 HU brighter."""
    first, second = slices_of(body()), slices_of(body() + 60)
    for phase, images in enumerate((first, second)):
        for index, image in enumerate(images):
            image.ImagePositionPatient[2] += phase * shift
            for name, value in parts.items():
                setattr(image, name, value(phase, index))
    return [*first, *same_series(first, second)]


@pytest.mark.parametrize("shift", [0, SPACING[0] / 2], ids=["at the same places", "half a slice apart"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_phases_of_one_series_are_scans_of_their_own(tmp_path, parts, shift):
    if shift and [*parts] == ["ContentTime"]:  # or one scan that was reconstructed in two goes
        assert reason_of(save(tmp_path, two_phases(parts, shift))) is Reason.SEVERAL_SCANS
        return
    folder = save(tmp_path, two_phases(parts, shift))
    volume = read_series(folder, fits=lambda volume: False)
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.FIRST_SERIES: 1, Remark.OTHER_SCAN: 1}
    assert reason_of(folder) is Reason.SEVERAL_ACQUISITIONS


# Without labels

OTHERS = {
    "before and after contrast": {"ContrastBolusAgent": lambda index: "iohexol"},
    "another acquisition": {"AcquisitionNumber": 2},
    "a later time": {"AcquisitionTime": lambda index: f"1201{index:02d}", "AcquisitionDateTime": ""},
    "another study": {"StudyInstanceUID": "1.2.3.5", "AcquisitionDateTime": ""},
    "the same time of a later day": {"AcquisitionDate": "20230101", "AcquisitionDateTime": ""},
    "an earlier time of a later day": {
        "AcquisitionDate": "20230101",
        "AcquisitionTime": "110000",
        "AcquisitionDateTime": "",
    },
    "a later date and time": {"AcquisitionDateTime": lambda index: f"202001011201{index:02d}"},
}
TOLD = {
    "AcquisitionNumber": 1,
    "AcquisitionDate": "20200101",
    "AcquisitionTime": "120000",
    "AcquisitionDateTime": "20200101120000",
}


def beside(tmp_path, values, **told):
    """A study of two series, of which the second is 60 HU brighter and has other values."""
    told |= {name: "" for name, value in values.items() if value == ""}
    first, second = edited(slices_of(body()), **told), edited(slices_of(body() + 60), SeriesNumber=3, **told)
    return save(tmp_path, [*first, *edited(second, **values)])


@pytest.mark.parametrize("values", OTHERS.values(), ids=OTHERS)
def test_of_several_acquisitions_none_is_taken_by_its_number(tmp_path, values):
    folder = beside(tmp_path, values, **TOLD)
    assert reason_of(folder) is Reason.SEVERAL_ACQUISITIONS
    assert read_series(folder, fits=lambda volume: False).remarks == {Remark.FIRST_SERIES: 1, Remark.OTHER_SERIES: 1}


LESSER = {
    "another reconstruction of the same scan": {},
    "a study of its own for each image": {"StudyInstanceUID": lambda index: f"1.2.3.{index}"},
    "a derived series": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "AcquisitionNumber": 2},
    "a scout in steps": {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1.0], "AcquisitionNumber": 2},
}


@pytest.mark.parametrize("values", LESSER.values(), ids=LESSER)
def test_beside_reconstructions_and_what_is_no_axial_scan_the_first_is_read(tmp_path, values):
    volume = read_series(beside(tmp_path, values, **TOLD))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.FIRST_SERIES: 1, Remark.OTHER_SERIES: 1}


def test_a_short_series_of_another_time_is_no_rival(tmp_path):
    bolus_track = edited(slices_of(body(2) + 60), SeriesNumber=1, AcquisitionNumber=2)
    folder = save(tmp_path, [*edited(slices_of(body(6)), AcquisitionNumber=1), *bolus_track])
    np.testing.assert_array_equal(read_series(folder).voxels, body(6))


NUMBERS = {
    "numbered anew": lambda phase, index: index + 1,
    "numbered on": lambda phase, index: 4 * phase + index + 1,
    "numbered on, downwards": lambda phase, index: 4 * phase + 4 - index,
}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_phases_that_nothing_tells_apart_are_refused(tmp_path, number):
    images = two_phases({"InstanceNumber": number}, SPACING[0] / 2)
    assert reason_of(save(tmp_path, images)) is Reason.SEVERAL_SCANS


def test_acquisitions_that_continue_one_another_are_one_scan(tmp_path):
    images = edited(slices_of(body(6)), AcquisitionNumber=lambda index: 3 - index // 2)
    np.testing.assert_array_equal(read_series(save(tmp_path, images)).voxels, body(6))


def test_acquisitions_that_overlap_at_their_ends_are_not_halved(tmp_path):
    lower = edited(slices_of(body(6)), AcquisitionNumber=1)
    upper = same_series(lower, edited(slices_of(body(6)), AcquisitionNumber=2))
    for image in upper:
        image.ImagePositionPatient[2] += 5 * SPACING[0]
    assert reason_of(save(tmp_path, [*lower, *upper])) is Reason.SEVERAL_SCANS


def test_slices_within_one_another_of_one_acquisition_are_one_scan(tmp_path):
    images = edited(slices_of(body(6)), SliceThickness=2 * SPACING[0], AcquisitionNumber=1)
    np.testing.assert_array_equal(read_series(save(tmp_path, images)).voxels, body(6))


# What is left out, and counted


def without_a_place(image):
    del image.ImagePositionPatient, image.ImageOrientationPatient


def colored(image):
    store(image, np.zeros((3, 10, 8), np.uint8), bits=8, photometric="RGB")
    image.SamplesPerPixel, image.PlanarConfiguration = 3, 1


def larger(image):
    store(image, np.zeros((30, 40), np.uint16))
    without_a_place(image)


def screenshot(image):
    image.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]


def numbered_apart(image):
    image.InstanceNumber = 99
    without_a_place(image)


def derived(image):
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    without_a_place(image)


@pytest.mark.parametrize("made", [colored, larger, derived, screenshot, numbered_apart])
def test_one_stray_capture_in_the_series_is_left_out_and_counted(tmp_path, made):
    images = slices_of(body())
    stray = same_series(images, slices_of(body(1)))[0]
    made(stray)
    volume = read_series(save(tmp_path, [stray, *images]))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.CAPTURE: 1}


def test_a_slice_without_a_place_is_no_capture(tmp_path):
    images = slices_of(body())
    without_a_place(images[3])
    assert reason_of(save(tmp_path, images)) is Reason.MISSING_GEOMETRY


def test_images_of_another_size_at_places_of_the_scan_are_counted(tmp_path):
    images = slices_of(body())
    test = same_series(images, slices_of(body(2, 12, 12)))
    volume = read_series(save(tmp_path, [*images, *test]))
    np.testing.assert_array_equal(volume.voxels, body())
    assert volume.remarks == {Remark.OTHER_STACK: 2}


def test_an_empty_file_with_another_name_is_counted(tmp_path):
    folder = save(tmp_path, slices_of(body()))
    (folder / "empty.dcm").touch()
    assert read_series(folder).remarks == {Remark.FOREIGN: 1}


# Tilt


@pytest.mark.parametrize("degrees", [10, 18.5, -30])
def test_a_tilt_is_called_a_tilt(tmp_path, degrees):
    tilt = np.radians(degrees)
    axes = [1, 0, 0, 0, round(float(np.cos(tilt)), 8), round(float(np.sin(tilt)), 8)]
    images = edited(slices_of(body()), ImageOrientationPatient=axes)
    assert reason_of(save(tmp_path / "stack", images)) is Reason.GANTRY_TILT
    assert reason_of(save(tmp_path / "one", edited(images[:1], GantryDetectorTilt=degrees))) is Reason.GANTRY_TILT


def test_oblique_planes_that_follow_their_normal_are_no_tilt_of_the_gantry(tmp_path):
    tilt = np.radians(20)
    step = [round(float(v), 6) for v in SPACING[0] * np.array([0, -np.sin(tilt), np.cos(tilt)])]
    axes = [1, 0, 0, 0, round(float(np.cos(tilt)), 8), round(float(np.sin(tilt)), 8)]
    images = edited(slices_of(body(), step=step), ImageOrientationPatient=axes)
    assert reason_of(save(tmp_path, images)) is Reason.OBLIQUE


def test_a_reference_within_a_reference_is_found(tmp_path):
    """DerivationImageSequence holds SourceImageSequence, in the groups that all frames share."""
    images = slices_of(body())
    seg = segmentation(images, drawn())
    by_frame(seg)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = images[0].SOPClassUID, images[0].SOPInstanceUID
    derivation = Dataset()
    derivation.SourceImageSequence = Sequence([source])
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    seg.SharedFunctionalGroupsSequence[0].DerivationImageSequence = Sequence([derivation])
    seg.save_as(tmp_path / "seg.dcm")
    assert read_references(tmp_path / "seg.dcm").instances == {images[0].SOPInstanceUID}


# What a site says of it


def test_a_dataset_counts_which_series_were_read_and_the_cache_keeps_it(tmp_path):
    names = ("skeletal_muscle", "subcutaneous_fat", "visceral_fat", "vertebra_L3")
    level = np.zeros((4, 10, 8), bool)
    level[1:3, 2:4, 3:5] = True
    masks = dict(zip(names, [*drawn().values(), drawn()["skeletal_muscle"], level], strict=True))
    lines = ["person_id,accession_id,sex,height_m"]
    (tmp_path / "labels").mkdir()
    for person in range(2):
        plain, venous = slices_of(body()), edited(slices_of(body() + 60), SeriesNumber=3)
        save(tmp_path / "dicom" / f"A{person}", plain)
        save(tmp_path / "dicom" / f"A{person}" / "more", venous if person else [])
        segmentation(venous if person else plain, masks).save_as(tmp_path / "labels" / f"A{person}.dcm")
        lines.append(f"P{person},A{person},F,1.7")
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    for _ in range(2):
        data = CTSlices(str(tmp_path), trains=False, cache={"folder": str(tmp_path / "cache"), "gigabytes": 1})
        data.setup()
        assert data.remarks == {Remark.NAMED_SERIES.value: 1, Remark.OTHER_SERIES.value: 1}
        assert data.remarks_persons == data.remarks and set(data.remarks) <= CTSlices.REMARKS
        assert data.series.lines == [
            ("A1", "series 3, which the labels name; 1 series beside those that were read"),
        ]
