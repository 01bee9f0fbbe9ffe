"""A newcomer can start: what is proposed runs without a download, and missing data are named with their source."""

import re

import pytest

from flip.cli.help import start_text
from flip.config.data_source import data_source, ready
from flip.files import conf_folder
from tests.commands import flip

DATASETS = sorted(path.stem for path in (conf_folder() / "dataset").glob("*.yaml"))
OWN = ("bundle", "ct_scans", "images", "levels", "segmentation", "table")  # a study's own data


def test_only_what_runs_without_a_download_is_proposed() -> None:
    first, later = start_text().split("With data to get or make first")
    assert "lung_survival" in first
    assert "sarcopenia " in first
    for name in ("heart_disease", "dermatology", "icu_outcome", "sarcopenia_outcome"):
        assert name not in first
        assert name in later
    [proposed] = re.findall(r"experiment=(\w+)", first)
    assert ready(conf_folder() / "experiment" / f"{proposed}.yaml")


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in OWN])
def test_each_dataset_names_its_source_its_license_and_where_to_get_it(name: str) -> None:
    said = data_source(f"conf/dataset/{name}.yaml")
    assert "https://" in said or "python -m datamodules" in said or "job=measure" in said
    if "https://" in said:
        assert re.search(r"CC BY 4.0|MIT", said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "source"),
    [
        ("dermatology", "https://data.mendeley.com"),
        ("heart_disease", "https://archive.ics.uci.edu"),
        ("icu_outcome", "python -m datamodules.critical_care demo/icu"),
    ],
)
def test_a_missing_cohort_is_named_with_the_address_or_the_command_that_makes_it(tmp_path, experiment, source) -> None:
    ended = flip(tmp_path, f"experiment={experiment}", "paths.data_dir=/nowhere", "paths.demo_dir=/nowhere")
    assert ended.status == 2
    assert source in ended.err
    assert re.search("do(es)? not exist", ended.err)
