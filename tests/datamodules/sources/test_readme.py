"""What the guide shows works as it stands."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import datamodules.sources
from datamodules.sources.omop import OMOP

TEXT = (Path(datamodules.sources.__file__).parent / "README.md").read_text()
BLOCKS = [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
SOURCES = [source for block in BLOCKS for source in block.get("sources", {}).values()]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source["_target_"].rpartition(".")[2])
def test_each_source_of_the_guide_can_be_made(source, tmp_path):
    module, _, name = source["_target_"].rpartition(".")
    arguments = {key: value for key, value in source.items() if key != "_target_"}
    assert getattr(importlib.import_module(module), name)(**arguments, root=str(tmp_path))


def test_every_source_is_in_the_guide():
    shown = {source["_target_"] for source in SOURCES}
    assert shown == {
        f"datamodules.sources.{name}" for name in re.findall(r"^\| `\w+` \| `([\w.]+)`", TEXT, re.MULTILINE)
    }


def test_the_cohort_and_features_of_the_guide_are_accepted():
    (study,) = [block for block in BLOCKS if "cohort" in block]
    assert OMOP("export.zip", **study).features.keys() == study["features"].keys()
