"""Which label files of a site are taken, and what is said of structures that none of them marks."""

import os

import numpy as np
import pytest

from datamodules.ct.grid import Grid
from datamodules.ct.labels import NO_NUMBER, ONE_NUMBER
from datamodules.ct.planes import CUT_LEVEL
from datamodules.ct_slices import CTSlices
from datamodules.dicom import Reason
from tests.datamodules.ct_files import body, save, slices_of
from tests.datamodules.ct_sites import SEGMENTS, SHAPE, nifti, numbered, site, structures
from tests.datamodules.test_labels import segmentation

AREA = 15 * 0.56 / 100  # cm2: five rows of three pixels of .8 by .7 mm


def loaded(root, **arguments):
    data = CTSlices(str(root), trains=False, grid=Grid(4.0, 16, 32), **arguments)
    data.setup()
    return data


def areas(data):
    """Reference areas by study, cm2."""
    return [plane.areas_cm2().tolist() for _, _, plane in data._sets["test"].cases]


def as_masks(root, accession, ending=".nii.gz", names=SEGMENTS):
    """A folder of one mask for each structure."""
    for name, own in zip(SEGMENTS, names, strict=True):
        nifti(root / "labels" / accession / f"{own}{ending}", structures()[name])


def as_seg(root, accession):
    images = slices_of(body(*SHAPE))
    save(root / "dicom" / accession, images)
    segmentation(images, structures()).save_as(root / "labels" / f"{accession}.dcm")


FORMS = {
    "SEG": as_seg,
    ".nii.gz": lambda root, accession: nifti(root / "labels" / f"{accession}.nii.gz", numbered(structures())),
    ".nii": lambda root, accession: nifti(root / "labels" / f"{accession}.nii", numbered(structures())),
    "a folder of .nii.gz": as_masks,
    "a folder of .nii": lambda root, accession: as_masks(root, accession, ".nii"),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_taken_in_each_form(tmp_path, form):
    root = site(tmp_path / "site", ["A"])
    FORMS[form](root, "A")
    assert areas(loaded(root)) == [pytest.approx([AREA] * 3)]


def test_a_site_may_mix_forms(tmp_path):
    root = site(tmp_path / "site", list("ABCD"))
    for accession, form in zip("ABCD", (".nii.gz", ".nii", "SEG", "a folder of .nii"), strict=True):
        FORMS[form](root, accession)
    assert len(areas(loaded(root))) == 4 and not loaded(root).remarks


@pytest.mark.parametrize("forms", [(".nii", ".nii.gz"), ("SEG", ".nii.gz"), ("SEG", "a folder of .nii")])
def test_two_forms_of_one_study_are_not_chosen_between(tmp_path, forms):
    root = site(tmp_path / "site", ["A", "B"])
    FORMS[".nii"](root, "B")
    for form in forms:
        FORMS[form](root, "A")
    assert loaded(root).skipped == {Reason.SEVERAL_LABELS.value: 1}


def test_the_files_of_a_folder_have_the_sites_own_names(tmp_path):
    root = site(tmp_path / "site", ["A"])
    as_masks(root, "A", names=("skeletal_muscle", "subcutaneous_fat", "torso_fat", "vertebrae_L3"))
    nifti(root / "labels" / "A" / "liver.nii.gz", np.full(SHAPE, 7))  # of what the study does not ask
    data = loaded(root, columns={"visceral_fat": "torso_fat", "vertebra_L3": "vertebrae_L3"})
    assert len(areas(data)) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_changed_mask_of_a_folder_is_read_anew(tmp_path, cached):
    root = site(tmp_path / "site", ["A"])
    as_masks(root, "A")
    cache = {"folder": str(tmp_path / "cache"), "gigabytes": 1} if cached else None
    before = areas(loaded(root, cache=cache))
    smaller = structures()["visceral_fat"]
    smaller[:, :5] = False
    nifti(root / "labels" / "A" / "visceral_fat.nii.gz", smaller)
    assert areas(loaded(root, cache=cache))[0][2] == pytest.approx(before[0][2] * 4 / 5)


def without(root, spoil):
    as_masks(root, "A")
    spoil(root / "labels" / "A")


def outside(folder):
    os.rename(folder, folder.parent.parent / "elsewhere")
    os.symlink(folder.parent.parent / "elsewhere", folder)


SPOILED = {
    "no file": (lambda folder: (folder / "visceral_fat.nii.gz").unlink(), "the labels have no segment visceral_fat"),
    "two files": (lambda f: nifti(f / "visceral_fat.nii", np.zeros(SHAPE)), Reason.SEVERAL_LABELS.value),
    "two numbers": (lambda f: nifti(f / "visceral_fat.nii.gz", numbered(structures())), Reason.LABELS_UNREADABLE.value),
    "no mask": (
        lambda f: nifti(f / "visceral_fat.nii.gz", 0.5 * structures()["visceral_fat"]), Reason.LABELS_UNREADABLE.value
    ),
    "another grid": (
        lambda f: nifti(f / "visceral_fat.nii.gz", np.zeros((11, 24, 20))), Reason.LABELS_MISMATCH.value
    ),
    "a folder that is elsewhere": (outside, Reason.OUTSIDE_FOLDER.value),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_folder_that_cannot_be_used_is_skipped_with_the_reason(tmp_path, case):
    spoil, reason = SPOILED[case]
    root = site(tmp_path / "site", ["A", "B"])
    FORMS[".nii"](root, "B")
    without(root, spoil)
    data = loaded(root)
    assert data.skipped == {reason: 1} and reason in CTSlices.REASONS


def test_a_level_that_the_scan_cuts_is_skipped_with_the_reason(tmp_path):
    root, masks = site(tmp_path / "site", ["A", "B"]), structures()
    FORMS[".nii"](root, "B")
    masks["vertebra_L3"][8:] = masks["vertebra_L3"][8]
    nifti(root / "labels" / "A.nii", numbered(masks))
    data = loaded(root)
    assert data.skipped == {CUT_LEVEL: 1} and CUT_LEVEL in CTSlices.REASONS


@pytest.mark.parametrize(
    ("declared", "reason"),
    [("muscle", NO_NUMBER), ("7.0", NO_NUMBER), ("label 7", NO_NUMBER), (7.5, NO_NUMBER), (2, ONE_NUMBER)],
)
def test_a_structure_of_one_file_needs_a_number_of_its_own(tmp_path, declared, reason):
    root = site(tmp_path / "site", ["A", "B"])
    FORMS[".nii"](root, "A")
    own = {"skeletal_muscle": declared, "subcutaneous_fat": 2, "visceral_fat": 3, "vertebra_L3": 4}
    as_masks(root, "B", names=[str(name) for name in own.values()])
    data = loaded(root, columns=own)
    assert data.skipped == {reason: 1} and reason in CTSlices.REASONS


@pytest.mark.parametrize("declared", [7, "7", 7.0])
def test_a_whole_float_is_its_number(tmp_path, declared):
    root = site(tmp_path / "site", ["A"])
    nifti(root / "labels" / "A.nii", numbered(structures(), (7, 2, 3, 4)))
    columns = dict(zip(SEGMENTS, (declared, 2.0, "3", 4), strict=True))
    assert areas(loaded(root, columns=columns)) == [pytest.approx([AREA] * 3)]


# A structure that no labels mark


REMARK = "studies, no label file of which marks visceral_fat by its declared number or name"


def test_a_declared_number_that_no_file_holds_is_remarked_on(tmp_path):
    root = site(tmp_path / "site", ["A", "B"])
    for accession in "AB":
        nifti(root / "labels" / f"{accession}.nii", numbered(structures(), (1, 2, 7, 4)))
    data = loaded(root)
    assert data.remarks == data.remarks_persons == {REMARK: 2}
    assert REMARK in CTSlices.WARNINGS <= CTSlices.REMARKS and not data.skipped
    numbers = dict(zip(SEGMENTS, ("1", "2", "7", "4"), strict=True))
    assert not loaded(root, columns=numbers).remarks


@pytest.mark.parametrize("second", [".nii", "a folder of .nii", "SEG"])
def test_a_number_that_one_file_holds_is_not(tmp_path, second):
    root, masks = site(tmp_path / "site", ["A", "B"]), structures()
    nifti(root / "labels" / "A.nii", numbered(masks | {"visceral_fat": np.zeros(SHAPE, bool)}))
    FORMS[second](root, "B")
    assert not loaded(root).remarks


def test_empty_masks_in_a_folder_are_remarked_on_too(tmp_path):
    root = site(tmp_path / "site", ["A"])
    as_masks(root, "A")
    nifti(root / "labels" / "A" / "visceral_fat.nii.gz", np.zeros(SHAPE))
    assert loaded(root).remarks == {REMARK: 1}


def test_what_comes_from_the_cache_is_remarked_on_as_well(tmp_path):
    root = site(tmp_path / "site", ["A"])
    nifti(root / "labels" / "A.nii", numbered(structures(), (1, 2, 7, 4)))
    cache = {"folder": str(tmp_path / "cache"), "gigabytes": 1}
    assert [loaded(root, cache=cache).remarks for _ in range(2)] == [{REMARK: 1}] * 2


@pytest.mark.parametrize(("numbers", "absent"), [((1, 2, 3, 9), "vertebra_L3"), ((9, 2, 3, 4), "skeletal_muscle")])
def test_a_site_of_which_nothing_can_be_read_for_it_says_so(tmp_path, numbers, absent):
    root = site(tmp_path / "site", ["A"])
    nifti(root / "labels" / "A.nii", numbered(structures(), numbers))
    with pytest.raises(
        ValueError, match=rf"no study to test on: 1 x .*; 1 x studies, no label file of which marks {absent}"
    ):
        loaded(root)
