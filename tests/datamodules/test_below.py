"""A name that a study gives never leads out of a site's folder."""

from pathlib import Path

import pytest

from datamodules.below import below


@pytest.mark.parametrize("name", ["../other.csv", "/etc/passwd", "a/../../other.csv", "link", "link/other.csv", "file"])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "other.csv").write_text("")
    (root / "link").symlink_to(tmp_path)
    (root / "file").symlink_to(tmp_path / "other.csv")
    with pytest.raises(ValueError, match="lies outside of the site's root"):
        below(root, name)


@pytest.mark.parametrize("name", ["cohort.csv", "a/cohort.csv", "a/../cohort.csv", "inner"])
def test_a_name_in_it_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "inner").symlink_to(tmp_path / "cohort.csv")
    assert below(tmp_path, name) == tmp_path / name
