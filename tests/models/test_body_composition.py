"""Biomarkers at L3: the numbers of the field, published cut-offs, and what a site sends of its patients."""

import csv
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.labels import read_labels
from datamodules.nifti import read_nifti_volume
from models.body_composition import derstine_2018, martin_2013, measure, panels, prado_2008
from models.body_composition.outcomes import BodyCompositionOutcomes

PERSONS, SIDE = 6, 40


class Answer(torch.nn.Module):
    """A segmentation that answers with the labels, one column of muscle short."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def segment(self, batch):
        found = batch["label"].clone()
        found[:, :, 19] = 0
        return found


class Cohort:
    """Test batches as a datamodule gives them: a square of muscle that grows with the row."""

    skipped_accessions = (("SKIPPED-1", "slices are missing in between"),)
    series = SimpleNamespace(lines=[("ACC-0", "series 3, which the labels name; 1 series beside those that were read")])
    synthetic = True

    def __init__(self, persons: int = PERSONS) -> None:
        self.accessions = [f"ACC-{row}" for row in range(persons)]

    def test_dataloader(self):
        return [self.case(row) for row in range(len(self.accessions))]

    def case(self, row: int):
        label = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
        label[:, 2 : 12 + 4 * row, 2:20] = 1
        label[:, 2:12, 25:35] = 2
        label[:, 20:30, 25:35] = 3
        area = torch.tensor(0.5)
        return {
            "label": label,
            "hu": torch.where(label == 1, 45.0, -100.0),
            "pixel_area_cm2": area[None],
            "reference_area_cm2": (torch.stack([(label == tissue).sum() for tissue in (1, 2, 3)]) * area)[None],
            "sex": torch.tensor([row % 2]),
            "height_m": torch.tensor([1.7]),
            "weight_kg": torch.tensor([70.0]),
            "age": torch.tensor([60.0]),
            "followup_days": torch.tensor([float("nan") if row == 0 else 100.0 * row]),
            "event": torch.tensor([float(row % 3 == 0)]),
            "index": torch.tensor([row]),
        }


@pytest.fixture
def outcomes() -> BodyCompositionOutcomes:
    return BodyCompositionOutcomes(prado_2008(), bin_days=180, bins=3)


@pytest.fixture
def collected(outcomes, tmp_path):
    return outcomes.collect(Answer(), Cohort(), tmp_path)


def test_measures_area_index_density_and_fat():
    mask = np.array([[1, 1, 1, 0], [2, 2, 3, 0]])
    hu = np.array([[40.0, 60.0, -40.0, 0.0], [-100.0, -100.0, -100.0, 0.0]])
    found = measure(mask, hu, pixel_area_cm2=0.5, height_m=2.0)
    assert found.muscle_area_cm2 == 1.5 and found.muscle_index == 1.5 / 4
    assert found.muscle_density_hu == 50  # the voxel of fat in the mask is not muscle's density
    assert (found.subcutaneous_fat_cm2, found.visceral_fat_cm2) == (1.0, 0.5)


def test_a_plane_without_muscle_has_no_density():
    assert np.isnan(measure(np.zeros((2, 2), int), np.zeros((2, 2)), pixel_area_cm2=1, height_m=1.7).muscle_density_hu)


@pytest.mark.parametrize(("area", "height"), [(0, 1.7), (1, 0), (float("nan"), 1.7)])
def test_refuses_a_size_that_is_none(area, height):
    with pytest.raises(ValueError, match="positive"):
        measure(np.zeros((2, 2), int), np.zeros((2, 2)), pixel_area_cm2=area, height_m=height)


@pytest.mark.parametrize(
    ("cut_off", "index", "sex", "bmi", "low"),
    [
        (prado_2008(), 52.3, 1, 25, 1), (prado_2008(), 52.4, 1, 25, 0),
        (prado_2008(), 38.4, 0, 25, 1), (prado_2008(), 38.5, 0, 25, 0),
        (martin_2013(), 42.9, 1, 24.9, 1), (martin_2013(), 43.0, 1, 24.9, 0),
        (martin_2013(), 52.9, 1, 25, 1), (martin_2013(), 53.0, 1, 25, 0),
        (martin_2013(), 40.9, 0, float("nan"), 1), (derstine_2018(), 45.3, 1, 30, 1), (derstine_2018(), 34.4, 0, 30, 0),
    ],
)  # fmt: skip
def test_published_cut_offs(cut_off, index, sex, bmi, low):
    assert cut_off.low(index, sex, bmi) == low


def test_what_a_cut_off_needs_and_is_not_known_is_unknown():
    assert np.isnan(martin_2013().low(45, 1, float("nan"))) and np.isnan(prado_2008().low(45, -1, 25))


def test_areas_of_a_real_ct_are_those_counted_by_hand(data_dir):
    """Slice 73 of the patient, the center of L3: area in cm2 by structure."""
    folder = data_dir / "ct_patient_a"
    volume = read_nifti_volume(folder / "patientA_ct_3mm.nii.gz")
    names = {
        100: "autochthon_left",
        101: "autochthon_right",
        102: "iliopsoas_left",
        103: "iliopsoas_right",
        20: "vertebra_L3",
    }
    masks = read_labels(folder / "patientA_seg_v1_multilabel.nii.gz", volume, names)
    level = masks.pop("vertebra_L3").sum(axis=(1, 2))
    assert round(float(np.average(np.arange(len(level)), weights=level))) == 73
    pixel = volume.spacing[1] * volume.spacing[2] / 100
    found = {
        name: measure(mask[73].astype(int), volume.voxels[73], pixel_area_cm2=pixel, height_m=1.7).muscle_area_cm2
        for name, mask in masks.items()
    }
    by_hand = {"autochthon_left": 25.38, "autochthon_right": 23.67, "iliopsoas_left": 7.11, "iliopsoas_right": 7.02}
    assert found == pytest.approx(by_hand, abs=0.05)


def test_patients_are_written_at_the_site_for_its_owner_alone(collected, tmp_path):
    with (tmp_path / "biomarkers.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["accession_id"] for row in table] == [f"ACC-{row}" for row in range(PERSONS)]
    assert float(table[0]["reference_muscle_area_cm2"]) == 90 and float(table[0]["predicted_muscle_area_cm2"]) == 85
    assert table[0]["followup_days"] == ""
    for name in ("biomarkers.csv", "report.html"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_sites_page_is_whole_and_says_that_the_demo_is_synthetic(collected, tmp_path):
    page = (tmp_path / "report.html").read_text()
    for text in (
        "SYNTHETIC",
        "Best: ACC-",
        "Median: ACC-",
        "Worst: ACC-",
        "SKIPPED-1",
        "series 3, which the labels name",
        "slices are missing in between",
        "Prado CMM",
    ):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")


def test_only_sums_over_persons_are_sent(collected):
    assert collected["moments/dice"].shape == (3, 3) and (collected["moments/dice"][:, 0] == PERSONS).all()
    assert collected["count/sarcopenia"].sum() == PERSONS
    assert collected["histogram/survival"].shape == (2, 2, 3) and collected["histogram/survival"].sum() == PERSONS - 1
    assert not any(isinstance(array.flat[0], str) for array in collected.values())
    assert all(len(array) != PERSONS for array in collected.values())


def test_metrics_per_site_and_pooled(outcomes, collected):
    found = outcomes.metrics({"a": collected, "b": collected})
    number, total, _ = collected["moments/index_difference"]
    assert found["test/site/a/index_bias"] == found["test/pooled/index_bias"] == pytest.approx(total / number)
    assert found["test/site/b/index_mae"] == pytest.approx(-total / number)  # the answer is short in every case
    assert 0 <= found["test/pooled/prevalence_reference"] <= found["test/pooled/prevalence_predicted"] <= 1


def test_a_site_without_test_persons_sends_nothing_and_still_has_a_page(outcomes, tmp_path):
    assert outcomes.collect(Answer(), Cohort(0), tmp_path) == {}
    assert "No test patient could be measured" in (tmp_path / "report.html").read_text()
    assert outcomes.metrics({"a": {}}) == {}


@pytest.mark.parametrize("sites", [{}, {"empty": {}}, None], ids=["no site", "a site that sent nothing", "two sites"])
def test_panels_are_titled_and_explained(outcomes, collected, sites, tmp_path):
    made = outcomes.panels({"a": collected, "b": collected} if sites is None else sites)
    assert len(made) == 5
    for number, panel in enumerate(made):
        assert panel["title"] and panel["note"]
        if "figure" in panel:
            panel["figure"].savefig(tmp_path / f"{number}.svg")
        else:
            assert len(panel["table"]["rows"][-1]) == len(panel["table"]["columns"])


def test_the_life_table_is_that_of_a_textbook():
    """100 persons; 10 die and 20 are censored in the first bin, 7 of the 70 die in the second."""
    survival, low, high = panels.life_table(np.array([[20.0, 0, 63], [10, 7, 0]]))
    assert survival == pytest.approx([1 - 10 / 90, (1 - 10 / 90) * (1 - 7 / 70), (1 - 10 / 90) * 0.9])
    assert (low < survival).all() and (survival < high).all()


def test_the_log_rank_test_of_equal_groups_finds_nothing_and_of_unequal_ones_something():
    calm, deadly = np.array([[0, 0, 50.0], [5, 5, 5]]), np.array([[0, 0, 20.0], [25, 10, 10]])
    observed, expected, p = panels.log_rank(np.stack([calm, calm]))
    assert observed == pytest.approx(expected) and p == pytest.approx(1)
    assert panels.log_rank(np.stack([calm, deadly]))[2] < 0.001


def test_moments_give_back_mean_and_standard_deviation():
    values = np.array([1.0, 2.0, 4.0])
    number, mean, deviation = panels.spread(np.array([3, values.sum(), (values**2).sum()]))
    assert (number, mean, deviation) == pytest.approx((3, values.mean(), values.std(ddof=1)))
