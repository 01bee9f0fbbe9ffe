"""One part of a study alone reaches what the table of experiments says of it."""

from pathlib import Path

import pytest

from datamodules.critical_care import generate, published
from tests.commands import flip
from tests.conf.stated import TOLERANCE, stated_without

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("part", ["text", "tabular"])
def test_intensive_care_by_one_part(part: str, tmp_path: Path) -> None:
    generate(published(), tmp_path / "demo" / "icu")
    without, demo = f"model.encoders.{part}=null", f"paths.demo_dir={tmp_path / 'demo'}"
    ran = flip(tmp_path, "experiment=icu_outcome", "federation=inprocess", without, demo)
    assert ran.status == 0, ran.err
    found = ran.result["metrics"]["test/pooled/auroc_binned"]
    assert found == pytest.approx(stated_without("icu_outcome", part), abs=TOLERANCE)
