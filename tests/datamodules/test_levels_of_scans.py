"""Whole scans with a level: what the table and masks say of it, parts to train on, and what is left out."""

import csv
import math

import numpy as np
import pytest
import torch

from datamodules.ct.planes import CUT_LEVEL, NO_LEVEL
from datamodules.levels.examples import Pictures, Stretches
from datamodules.levels.positions import NOT_A_NUMBER, OUTSIDE
from datamodules.levels.projections import Projections
from datamodules.levels.stretching import Stretching
from datamodules.levels_of_scans import LevelsOfScans
from datamodules.segmentation.labels import NO_STRUCTURE
from tests.datamodules.level_sites import LEVEL, NAMES, SPACING, site, trunk, vertebrae, written
from tests.datamodules.suite import DataModuleSuite

PROJECTIONS = (6.0, 8.0, 36)
MASKS = {"level_mm": None, **{f"vertebra_{name}": number for number, name in enumerate(NAMES, start=1)}}
OTHERS = [f"vertebra_{name}" for name in NAMES if name != "L3"]


def of(root, **arguments) -> LevelsOfScans:
    given = {"projections": Projections(*PROJECTIONS), "others": OTHERS, **arguments}
    return LevelsOfScans(str(root), **given)


def loaded(root, **arguments) -> LevelsOfScans:
    data = of(root, **arguments)
    data.setup()
    return data


def whole(root, **arguments) -> dict[int, dict[str, torch.Tensor]]:
    """The test batches of all scans of a site, by person."""
    return {int(batch["person"]): batch for batch in loaded(root, trains=False, **arguments).test_dataloader()}


def rewritten(root, number: int, level_mm: str) -> None:
    """Another level_mm in a row of the table."""
    with (root / "cohort.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[number + 1][2] = level_mm
    with (root / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return site(tmp_path_factory.mktemp("levels") / "site", 9, masks=True)


class TestLevels(DataModuleSuite):
    @pytest.fixture
    def make(self, folder):
        return lambda root=folder, **arguments: of(root, **arguments)


def test_a_scan_is_two_pictures_with_the_row_of_its_level(folder):
    batch = whole(folder)[0]
    assert batch["image"].shape == (1, 2, batch["inside"].shape[1], 36) and batch["image"].dtype == torch.float32
    assert batch["inside"].all() and batch["inside"].dtype == torch.bool
    hu, center = trunk(0, *_extent(0))
    assert float(batch["level"]) == pytest.approx(center, abs=0.05) and batch["image"].shape[2] == len(hu)
    assert batch["step_mm"].tolist() == [6.0]
    finer = whole(folder, projections=Projections(4.0, 8.0, 36))[0]
    assert (float(finer["level"]) + 0.5) * 4 == pytest.approx((center + 0.5) * 6, abs=0.5)


def test_a_scan_without_the_level_is_an_example_without_a_row(folder):
    levels = {person: float(batch["level"]) for person, batch in whole(folder).items()}
    assert {person for person, level in levels.items() if math.isnan(level)} == {2, 5, 8}


def test_masks_give_the_row_that_the_table_gives(folder):
    by_table, by_masks = whole(folder), whole(folder, columns=MASKS)
    assert by_masks.keys() == by_table.keys()
    for person, batch in by_masks.items():
        ours, theirs = float(batch["level"]), float(by_table[person]["level"])
        assert math.isnan(ours) == math.isnan(theirs) and not abs(ours - theirs) > 0.5  # masks have whole slices


def test_a_vertebra_that_the_end_of_the_scan_cuts_is_left_out(tmp_path):
    root = site(tmp_path, 4, masks=True)
    hu, center = trunk(0, 6.0, 170.0)
    written(root / "images" / "A0.nii.gz", hu, 0.0)
    written(root / "labels" / "A0.nii.gz", vertebrae(len(hu), center), 0.0)
    assert loaded(root, trains=False, columns=MASKS).skipped == {CUT_LEVEL: 1}


def test_labels_without_any_vertebra_say_nothing_of_the_level(tmp_path):
    root = site(tmp_path, 4, masks=True)
    files = {name: own for name, own in MASKS.items() if not isinstance(own, int)}
    for number, kept in enumerate(("L3", "L1", "L5", "rib")):
        (root / "labels" / f"A{number}.nii.gz").unlink()
        hu, center = trunk(number)
        mask = vertebrae(len(hu), center) == (0 if number == 2 else LEVEL + 1 if number == 0 else LEVEL - 1)
        written(root / "images" / f"A{number}.nii.gz", hu, 0.0)
        written(root / "labels" / f"A{number}" / f"vertebra_{kept}.nii.gz", mask & (number != 2), 0.0)
    data = loaded(root, trains=False, columns=files)
    levels = [float(batch["level"]) for batch in data.test_dataloader()]
    assert data.skipped == {NO_STRUCTURE: 1, NO_LEVEL: 1} and [math.isnan(level) for level in levels] == [False, True]


@pytest.mark.parametrize(("stated", "reason"), [("1e6", OUTSIDE), ("L3", NOT_A_NUMBER), ("inf", NOT_A_NUMBER)])
def test_a_level_of_the_table_that_cannot_be_is_left_out(tmp_path, stated, reason):
    root = site(tmp_path, 3)
    rewritten(root, 0, stated)
    assert loaded(root, trains=False).skipped == {reason: 1}


def test_a_centimeter_in_the_table_is_converted_by_the_sites_file(tmp_path):
    root = site(tmp_path, 3)
    before = float(whole(root)[0]["level"])
    with (root / "cohort.csv").open(newline="") as file:
        stated = list(csv.reader(file))[1][2]
    rewritten(root, 0, str(float(stated) / 10))
    columns = {"level_mm": {"name": "level_mm", "factor": 10}}
    for number in (1, 2):
        rewritten(root, number, "")
    assert float(whole(root, columns=columns)[0]["level"]) == pytest.approx(before, abs=1e-3)


def test_no_coordinate_of_the_patient_is_in_a_batch(folder):
    with (folder / "cohort.csv").open(newline="") as file:
        stated = [float(row[2]) for row in list(csv.reader(file))[1:] if row[2]]
    values = torch.cat([each.flatten().double() for batch in whole(folder).values() for each in batch.values()])
    assert not any(torch.isclose(values, torch.tensor(level).double(), atol=0.05).any() for level in stated)


def pictures(length: int, level: float) -> Pictures:
    """Rows that say by themselves how far they are from the level: .5 there, .01 a row less below it."""
    rows = 0.5 + 0.01 * (np.arange(length, dtype=np.float32) - (0 if math.isnan(level) else level))
    return Pictures(np.tile(np.clip(rows, 0, 1)[None, :, None], (2, 1, 12)), level, 5.0, {"person": 3})


def stretches(scan: Pictures, **changed) -> list[dict[str, torch.Tensor]]:
    stretching = Stretching(300, 60, 10, each=1, **{"absent": 0.4, "augment": 0.0, **changed})
    torch.manual_seed(0)
    return [Stretches([scan], stretching, scan.step_mm)[0] for _ in range(200)]


@pytest.mark.parametrize(("length", "level"), [(48, 22.0), (48, 3.0), (90, 70.0), (14, 7.0)])
def test_a_part_says_where_the_level_is_or_that_it_is_not_in_it(length, level):
    found = stretches(pictures(length, level))
    for part in found:
        seen = part["image"][0, part["inside"], 6]
        in_view = bool(seen.min() < 0.505) and bool(seen.max() > 0.495)
        assert math.isnan(part["level"]) != in_view
        if in_view:
            assert seen[int(part["level"])].item() == pytest.approx(0.5, abs=0.001)
        assert 12 <= len(seen) <= 60 and not part["image"][:, ~part["inside"]].any()
    absent = sum(math.isnan(part["level"]) for part in found) / len(found)
    assert 0.3 < absent < 0.5 if length > 14 else absent == 0


def test_an_altered_part_moves_its_level_along():
    scan = pictures(48, 22.0)
    scan.views[:] = 0
    scan.views[:, 22] = 0.8
    found = stretches(scan, augment=1.0, absent=0.0)
    for part in found:
        brightest = part["image"][:, part["inside"], 4:8].mean(2).argmax(1)
        assert (brightest - part["level"]).abs().max() <= 1
    assert len({int(part["inside"].sum()) for part in found}) > 10


def test_thin_slices_and_thick_ones_look_alike():
    hu, _ = trunk(0)
    views, (scale, offset) = Projections(*PROJECTIONS)(hu, SPACING)
    fine = np.repeat(np.repeat(hu, 6, axis=0), 2, axis=2)
    fine += np.random.default_rng(0).normal(0, 60, fine.shape)  # thin slices are noisy: their maximum is higher
    again, (finer, moved) = Projections(*PROJECTIONS)(fine, (1.0, 8.0, 4.0))
    assert views.shape == again.shape and (again - views).mean() < 0.02 and np.abs(views - again).mean() < 0.04
    assert (scale, finer) == (1.0, pytest.approx(1 / 6)) and 10 * scale + offset == pytest.approx(62.5 * finer + moved)


def test_the_pictures_are_about_the_body_wherever_it_lies():
    hu, _ = trunk(0)
    moved = np.pad(hu, ((0, 0), (0, 6), (9, 0)), constant_values=-1000)
    ours, theirs = (Projections(*PROJECTIONS)(each, SPACING)[0] for each in (hu, moved))
    assert np.abs(ours - theirs).max() < 1e-6


def _extent(number: int) -> tuple[float, float]:
    rng = np.random.default_rng([0, number])
    return float(rng.uniform(90, 170)), float(rng.uniform(100, 190))


def test_a_site_sees_its_scans_head_up_and_tells_how_many_show_the_level(folder):
    data = loaded(folder)
    name, problem, picture = data.thumbnails(1)[0]
    assert (name, problem, picture.shape[1]) == ("A0", "", 2 * 36)
    assert picture[-1].max() > picture[len(picture) // 2].max()  # the pelvis is brighter than the loin
    counts, _ = data.describe({})
    assert counts["count/known/level"].tolist()[:2] == [6, 3]


def test_another_level_in_the_table_is_another_cohort(tmp_path):
    root = site(tmp_path, 4)
    before = loaded(root).fingerprint()["data"]
    rewritten(root, 2, "")
    assert np.array_equal(before, loaded(root).fingerprint()["data"])
    rewritten(root, 0, "")
    assert not np.array_equal(before, loaded(root).fingerprint()["data"])
