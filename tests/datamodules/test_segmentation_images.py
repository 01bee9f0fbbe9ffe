"""Images with masks of declared structures: batches, splits, what is agreed, and what is left out."""

import numpy as np
import pytest
import torch

from datamodules.segmentation.cohort import IN_PART, NOT_MARKED, UNLABELED
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.intensity import Percentiles, Range, Standardized
from datamodules.segmentation.patching import Patching
from datamodules.segmentation_images import FOREGROUND, SegmentationImages
from datamodules.splits import ByPerson
from datamodules.targets import Levels
from tests.datamodules.segmentation_sites import SHAPE, SPACING, body, masks, nifti, numbered, pictures, site, table
from tests.datamodules.suite import DataModuleSuite

NUMBERS = {"liver": 1, "spleen": 6}


PATCHING = ("size", "foreground", "each", "augment", "mirror")
VOLUMES = ("spacing_mm", "orientation", "modality")


def of(root, **arguments) -> SegmentationImages:
    """The dataset; arguments of its parts by their own names."""
    given = {"structures": ["liver", "spleen"], "columns": NUMBERS, "intensity": Percentiles()} | arguments
    patches = {"size": [8, 8, 8]} | {name: given.pop(name) for name in PATCHING if name in given}
    volumes = {"spacing_mm": [2.0, 2.0, 2.0]} | {name: given.pop(name) for name in VOLUMES if name in given}
    given = {"image": Volumes(**volumes)} | given
    return SegmentationImages(str(root), patches=Patching(**patches), **given)


def loaded(root, **arguments) -> SegmentationImages:
    data = of(root, **arguments)
    data.setup()
    return data


def as_picture(root, **arguments):
    given = {"structures": ["square"], "columns": {"square": 255}, "image": Pictures(), "size": [8, 8]}
    return of(root, **{**given, "intensity": Range(), **arguments})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return site(tmp_path_factory.mktemp("volumes") / "site")


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "site")


class TestVolumes(DataModuleSuite):
    @pytest.fixture
    def make(self, volumes):
        return lambda root=volumes, **arguments: of(root, **arguments)


class TestPictures(DataModuleSuite):
    @pytest.fixture
    def make(self, flat):
        return lambda root=flat, **arguments: as_picture(root, **arguments)


def test_a_training_batch_is_patches_with_labels(volumes):
    batch = next(iter(loaded(volumes, batch_size=3).train_dataloader()))
    assert batch["image"].shape == (3, 1, 8, 8, 8) and batch["image"].dtype == torch.float32
    assert batch["label"].shape == (3, 8, 8, 8) and batch["label"].dtype == torch.int64
    assert set(batch["label"].unique().tolist()) <= {0, 1, 2}
    assert batch["labeled"].tolist() == [[True, True]] * 3 and batch["labeled"].dtype == torch.bool


def test_a_test_batch_holds_the_scans_own_grid_turned_and_the_way_to_it(volumes):
    batch = next(iter(loaded(volumes, trains=False).test_dataloader()))
    own = numbered(0)[::-1, ::-1]  # RAS: the file's axes lead to the left and the back
    own = np.select([own == 1, own == 6], [1, 2], 0)
    assert np.array_equal(batch["label"][0].numpy(), own) and batch["label"].dtype == torch.int64
    assert batch["spacing_mm"].tolist() == [list(SPACING)]
    assert batch["image"].shape == (1, 1, 14, 14, 24)
    scale, offset = batch["mapping"][0].T
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.75, 1.5]))
    middle, other = torch.tensor(SHAPE).sub(1) / 2, torch.tensor([14, 14, 24]).sub(1) / 2
    torch.testing.assert_close(scale * middle + offset, other)


def test_the_mapping_leads_to_the_same_tissue(volumes):
    """At the center of the spleen's box in the label, the image has the spleen's HU."""
    data = loaded(volumes, trains=False, intensity=Range(-1000, 1000))
    batch = next(iter(data.test_dataloader()))
    center = (batch["label"][0] == 2).nonzero().double().mean(0)
    place = (batch["mapping"][0, :, 0] * center + batch["mapping"][0, :, 1]).round().long().tolist()
    assert 1000 * float(batch["image"][0, 0][tuple(place)]) == pytest.approx(220, abs=15)


def test_the_orientation_turns_image_label_and_spacing(volumes):
    ras, spl = (next(iter(loaded(volumes, trains=False, orientation=o, spacing_mm=s).test_dataloader()))
                for o, s in (("RAS", SPACING), ("SPL", SPACING[::-1])))  # fmt: skip
    assert spl["spacing_mm"].tolist() == [list(SPACING[::-1])]
    assert torch.equal(spl["label"][0], ras["label"][0].permute(2, 1, 0).flip(1, 2))
    assert torch.equal(spl["image"][0, 0], ras["image"][0, 0].permute(2, 1, 0).flip(1, 2))


def test_all_patches_are_centered_on_structures_where_the_study_says_so(volumes):
    def share(foreground):
        data = loaded(volumes, size=[2, 2, 2], foreground=foreground, augment=0.0, each=30)
        torch.manual_seed(0)
        label = torch.cat([batch["label"] for batch in data.train_dataloader()])
        return float((label > 0).flatten(1).any(1).float().mean())

    assert share(1.0) == 1 and share(0.0) < 0.5


def test_a_patch_larger_than_the_scan_is_air_and_background_beyond_it(volumes):
    data = loaded(volumes, size=[40, 8, 8], augment=0.0, intensity=Range(-1000, 1000))
    batch = next(iter(data.train_dataloader()))
    assert (batch["image"][:, :, :10] == -1).all() and (batch["label"][:, :10] == 0).all()
    assert (batch["image"] > -0.9).any()


def test_what_a_site_does_not_label_is_said_and_is_no_background(volumes):
    data = loaded(volumes, columns={"liver": 1, "spleen": None})
    batch = next(iter(data.train_dataloader()))
    assert batch["labeled"][0].tolist() == [True, False] and set(batch["label"].unique().tolist()) <= {0, 1}
    assert data.remarks[UNLABELED] == 1 and data.occurs().tolist() == [True, False]


def test_a_structure_that_the_sites_file_maps_to_null_is_not_described_as_missing(volumes):
    told, _ = loaded(volumes, columns={"liver": 1, "spleen": None}).describe({})
    assert told["count/known/liver"].tolist() == [6, 0, 0] and "count/known/spleen" not in told


def test_who_labels_what_is_told_and_never_how_few_do_not(tmp_path):
    root = table(tmp_path, [f"A{number}" for number in range(8)])
    for number in range(8):
        nifti(root / "images" / f"A{number}.nii", body(number))
        for name in ("liver", "spleen")[: 1 if number == 0 else 2]:
            nifti(root / "labels" / f"A{number}" / f"{name}.nii", masks(number)[name].astype(np.uint8))
    data = loaded(root, columns={}, split=ByPerson(1.0, 0.0))
    assert data.statistics()["count/label"].tolist() == [8, 7]
    assert data.statistics(3)["count/label"].tolist() == [8, 5]
    assert data.statistics(9)["count/label"].tolist() == [8, 0]


def test_a_number_that_no_file_has_is_remarked(volumes):
    data = loaded(volumes, columns={"liver": 1, "spleen": 9})
    assert data.remarks == {NOT_MARKED: 1} and NOT_MARKED in data.WARNINGS
    assert any("spleen" in line for line in data.remarks_in_words)


def test_names_for_a_file_of_numbers_are_not_guessed(volumes):
    with pytest.raises(ValueError, match="6 x the site's columns must give a whole number"):
        loaded(volumes, columns={}, trains=False)


def test_a_scan_whose_folder_lacks_a_structure_is_not_labeled_for_it(tmp_path):
    root = table(tmp_path, ["A", "B"])
    for number, name in enumerate("AB"):
        nifti(root / "images" / f"{name}.nii", body(number))
        nifti(root / "labels" / name / "hepar.nii", masks(number)["liver"].astype(np.uint8))
    nifti(root / "labels" / "A" / "spleen.nii", masks(0)["spleen"].astype(np.uint8))
    data = loaded(root, columns={"liver": "hepar"}, trains=False)
    assert [batch["labeled"][0].tolist() for batch in data.test_dataloader()] == [[True, True], [True, False]]
    assert data.remarks == {IN_PART: 1} and data.remarks_persons == {IN_PART: 1}


def test_unusable_scans_are_counted_by_declared_reasons(volumes, tmp_path):
    root = site(tmp_path / "site", 6)
    (root / "images" / "A0.nii.gz").write_bytes(b"no image")
    nifti(root / "labels" / "A1.nii.gz", numbered(1)[1:])
    nifti(root / "labels" / "A2.nii.gz", numbered(2) + 0.5)
    nifti(root / "images" / "A3.nii.gz", (body(3) > 0).astype(np.uint8))
    (root / "images" / "A4.nii.gz").unlink()
    data = loaded(root, trains=False)
    assert len(data.test_dataloader()) == 1 and sum(data.skipped.values()) == 5
    assert set(data.skipped) <= data.REASONS and len(data.skipped) == 5 and data.skipped_persons == data.skipped


def test_sites_agree_on_what_the_pooled_voxels_have(volumes, tmp_path):
    other = site(tmp_path / "other", 9)
    sites, values = (
        [loaded(root, split=ByPerson(1.0, 0.0), intensity=Percentiles(bin_hu=1.0)) for root in (volumes, other)],
        [],
    )
    told = [data.statistics()[FOREGROUND] for data in sites]
    sites[0].agree({FOREGROUND: sum(told)})
    for number in [*range(6), *range(9)]:
        values.append(body(number)[numbered(number) > 0])
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in values])
    pooled = np.concatenate(values).astype(float)
    order = np.argsort(pooled)
    exact = [pooled[order][np.searchsorted(np.cumsum(weights[order]) / weights.sum(), q)] for q in (0.005, 0.995)]
    assert sites[0].intensity.window == pytest.approx(exact, abs=1.5)
    mean = np.average(pooled, weights=weights)
    assert sites[0].intensity.mean == pytest.approx(mean, abs=0.6)
    assert sites[0].intensity.deviation == pytest.approx(
        np.sqrt(np.average((pooled - mean) ** 2, weights=weights)), abs=0.6
    )


@pytest.mark.parametrize("cell", [2, 4])
def test_each_bin_that_leaves_rests_on_so_many_persons(volumes, cell):
    data = loaded(volumes, split=ByPerson(1.0, 0.0), intensity=Percentiles(bin_hu=1.0))
    plain, told = data.statistics()[FOREGROUND], data.statistics(cell)[FOREGROUND]
    assert (
        data.behind()[FOREGROUND] >= cell
        and told.sum() == pytest.approx(plain.sum())
        and told.sum() == pytest.approx(6)
    )
    assert np.count_nonzero(told) < np.count_nonzero(plain)
    data.statistics(7)
    assert data.behind()[FOREGROUND] == 0


def test_nothing_agreed_is_one_sentence(volumes):
    with pytest.raises(ValueError, match="no site tells the HU"):
        loaded(volumes).agree({})


def test_mr_is_standardized_image_by_image(volumes):
    data = loaded(volumes, intensity=Standardized(), modality="MR", trains=False)
    image = next(iter(data.test_dataloader()))["image"]
    assert abs(float(image.mean())) < 0.01 and float(image.std()) == pytest.approx(1, abs=0.01)
    assert not data.fitted and set(data.statistics()) == {"count/label"}


def test_batches_name_persons_and_subgroups(volumes):
    data = loaded(volumes, subgroups={"sex": Levels("sex", ["F", "M"])}, split=ByPerson(0.5, 0.2))
    batches = [batch for loader in (data.train_dataloader(), data.test_dataloader()) for batch in loader]
    for batch in batches:
        assert batch["subgroup_sex"].tolist() == [person % 2 for person in batch["person"].tolist()]
    persons = {split: set(data.whose(split).tolist()) for split in ("train", "validate", "test")}
    assert sorted(each for found in persons.values() for each in found) == list(range(6))
    assert data.sizes() == {"train": 3, "validate": 1, "test": 2} and len(data.whose("train")) == 3


def test_an_epoch_has_each_scan_as_often_as_declared_and_an_example_is_a_scan(volumes):
    data = loaded(volumes, split=ByPerson(0.5, 0.2), each=4, batch_size=3)
    drawn = torch.cat([batch["person"] for batch in data.train_dataloader()]).tolist()
    assert sorted(drawn) == sorted(4 * data.whose("train").tolist()) and data.sizes()["train"] == 3
    first, second = (next(iter(data.train_dataloader()))["image"] for _ in range(2))
    assert not torch.equal(first, second)


def test_a_person_is_tested_on_one_scan(tmp_path):
    root = site(tmp_path, 4)
    table(root, [f"A{number}" for number in range(4)], ["P", "P", "Q", "Q"])
    assert len(loaded(root, trains=False).test_dataloader()) == 2


def test_a_cache_gives_the_same_batches_and_decodes_once(volumes, tmp_path, monkeypatch):
    def batches(cache):
        data = loaded(volumes, cache=cache)
        torch.manual_seed(0)
        return [batch for loader in (data.train_dataloader(), data.test_dataloader()) for batch in loader]

    kept = {"folder": tmp_path / "cache", "gigabytes": 1.0}
    plain, first = batches(None), batches(kept)
    monkeypatch.setattr("datamodules.segmentation.reader.Reader.read", None)
    for found in (first, batches(kept)):
        for ours, theirs in zip(plain, found, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_change_of_labels_changes_the_fingerprint(tmp_path):
    root = site(tmp_path, 4)
    before = loaded(root).fingerprint()["data"]
    assert np.array_equal(before, loaded(root).fingerprint()["data"])
    nifti(root / "labels" / "A1.nii.gz", numbered(2))
    assert not np.array_equal(before, loaded(root).fingerprint()["data"])


def test_a_site_sees_its_scans_and_what_is_wrong(tmp_path):
    root = site(tmp_path, 4)
    (root / "labels" / "A1.nii.gz").unlink()
    found = loaded(root, trains=False).thumbnails(4)
    assert found[0][0] == "A1" and found[0][2] is None and len(found) == 4
    told, _ = loaded(root, trains=False).describe({})
    assert told["count/known/liver"].tolist() == [3, 1, 0] and told["count/labels"].tolist() == [3]


def test_pictures_have_pixels_and_no_spacing(flat):
    data = as_picture(flat, trains=False)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (1, 1, 24, 20) and batch["label"].shape == (1, 24, 20)
    assert batch["spacing_mm"].tolist() == [[1, 1]] and batch["mapping"].tolist() == [[[1, 0], [1, 0]]]
    assert float(batch["image"][batch["label"][:, None] == 1].min()) > float(
        batch["image"][batch["label"][:, None] == 0].max()
    )


def test_settings_that_do_not_go_together_are_refused(volumes):
    for wrong in (
        {"image": Pictures()},
        {"spacing_mm": [1, 1]},
        {"size": [8, 8]},
        {"orientation": "RAL"},
        {"structures": []},
    ):
        with pytest.raises(ValueError, match=r"dataset|structures"):
            of(volumes, **wrong)
    for columns in (
        {"liver": None, "spleen": None},
        {"liver": 1, "spleen": 1},
        {"liver": {"code": "SCT"}},
        {"liver": 1.5},
    ):
        with pytest.raises(ValueError, match="columns"):
            of(volumes, columns=columns)
