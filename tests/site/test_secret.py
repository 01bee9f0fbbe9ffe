"""The key of privacy noise: the same for the same answer, another for anything else, from a secret that stays."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.config.schema import SIMULATED, Site
from flip.messages import Task
from flip.site.secret import noise_key, site_secret

TASK = Task("run", "study", 0, "fit", {"w": np.ones(2, np.float32)}, {}, {}, '{"seed": 1}')
STATE = {"optimizer/0": np.zeros(2, np.float32)}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "cohort.csv").write_text("age\n50\n")
    return Site(root=str(tmp_path / "cohort.csv"), policy="public_data")


def key(site: Site, home: Path, task: Task = TASK, state=STATE) -> bytes:
    return noise_key("kings", site, home, task, state)


def test_the_same_answer_has_the_same_noise(site, tmp_path):
    assert key(site, tmp_path / "home") == key(site, tmp_path / "home")


def test_another_task_state_site_file_or_data_has_other_noise(site, tmp_path):
    home, first = tmp_path / "home", key(site, tmp_path / "home")
    assert key(site, home, replace(TASK, round=1)) != first
    assert key(site, home, state={"optimizer/0": np.ones(2, np.float32)}) != first
    assert key(replace(site, precision="bf16-true"), home) != first
    (tmp_path / "cohort.csv").write_text("age\n50\n60\n")
    assert key(site, home) != first


@pytest.mark.parametrize("folder", [True, False])
def test_data_that_were_corrected_and_kept_size_and_time_have_other_noise(site, tmp_path, folder):
    path, home = tmp_path / "cohort.csv", tmp_path.parent / f"home of {tmp_path.name}"
    site = replace(site, root=str(tmp_path)) if folder else site
    first, before = key(site, home), path.stat()
    path.write_text("age\n51\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert key(site, home) != first


def test_the_same_table_elsewhere_in_time_has_the_same_noise(site, tmp_path):
    first = key(site, tmp_path / "home")
    os.utime(tmp_path / "cohort.csv", ns=(1, 1))
    assert key(site, tmp_path / "home") == first


def test_a_secret_is_made_at_the_site_and_only_its_owner_reads_it(site, tmp_path):
    secret = site_secret("kings", site, tmp_path / "home", TASK)
    path = tmp_path / "home" / "secret"
    assert len(secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert site_secret("kings", site, tmp_path / "home", TASK) == secret
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_two_sites_have_different_secrets(site, tmp_path):
    assert site_secret("a", site, tmp_path / "a", TASK) != site_secret("b", site, tmp_path / "b", TASK)


def test_a_secret_that_others_can_read_is_refused(site, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(os.urandom(32))
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        site_secret("kings", replace(site, secret=str(path)), tmp_path, TASK)


def test_half_a_secret_is_refused(site, tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    with pytest.raises(ValueError, match="is not 32 bytes"):
        site_secret("kings", replace(site, secret=str(path)), tmp_path, TASK)


def test_a_simulation_derives_it_from_the_seed(site, tmp_path):
    simulated = replace(site, secret=SIMULATED)
    assert site_secret("a", simulated, tmp_path, TASK) == site_secret("a", simulated, tmp_path / "other", TASK)
    assert site_secret("a", simulated, tmp_path, TASK) != site_secret("b", simulated, tmp_path, TASK)
