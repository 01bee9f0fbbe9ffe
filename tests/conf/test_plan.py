"""job=plan: grid, patch and network from the sites' scans, told as sums, and laid over the study as YAML."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules.segmentation_images import SegmentationImages
from flip.cli.execute import execute
from flip.config import build
from flip.config.checks.study import check
from flip.errors import UserError
from flip.messages import Task
from flip.messages.summary import Topic
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.cohorts.organs import SPACINGS, organs
from tests.studies import compose_study, tiny_heart_study


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sites of other spacings, and one that holds all of their scans."""
    return organs(tmp_path_factory.mktemp("organs"))


def planned(conf: Path, run: Path, *overrides: str) -> str:
    result = execute(compose_study("experiment=organs", "job=plan", *overrides, config_dir=conf), run)
    assert result["status"] == "ok", result["reason"]
    return (run / "plan.yaml").read_text()


@pytest.fixture(scope="module")
def plan(conf, tmp_path_factory) -> str:
    return planned(conf, tmp_path_factory.mktemp("runs") / "run")


def test_the_plan_of_four_sites_is_that_of_their_scans_together(conf, plan, tmp_path):
    pooled = planned(conf, tmp_path / "run", "sites=[everyone]")
    settings = [line for line in plan.splitlines() if not line.startswith("#")]
    assert settings == [line for line in pooled.splitlines() if not line.startswith("#")]
    told = yaml.safe_load(plan)["dataset"]
    spacings = np.array([(plane, plane, along) for plane, along, scans in SPACINGS.values() for _ in range(scans)])
    assert told["image"]["spacing_mm"] == pytest.approx(np.median(spacings, axis=0).tolist(), abs=0.01)
    shapes = np.array([(14 - n, 18, 16) for *_, scans in SPACINGS.values() for n in range(scans)])
    size = np.median(spacings * shapes, axis=0) / np.median(spacings, axis=0)
    assert f"the median scan has {np.rint(size).astype(int).tolist()}" in plan


def test_every_setting_has_a_comment_and_the_command_that_uses_it_is_named(plan):
    lines = [line for line in plan.splitlines() if ":" in line and not line.lstrip().startswith(("#", "_target_"))]
    assert all("  # " in line for line in lines if not line.endswith(":"))
    assert "flip --config-dir my_conf experiment=... plan=organs" in plan and "Settings of organs" in plan


def test_the_plan_stands_in_the_page_and_in_the_last_words(conf, tmp_path, capsys):
    text = planned(conf, tmp_path / "run", "sites=[b]", "federation=none")
    page = (tmp_path / "run" / "report.html").read_text()
    assert text.splitlines()[-1].strip() in page and "Nothing was trained" in page
    assert "run/plan.yaml" in capsys.readouterr().out


def test_the_plan_composes_as_the_studys_own_and_trains_a_step(conf, plan, tmp_path):
    path = conf / "plan" / "organs.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(plan)
    study = compose_study("experiment=organs", "plan=organs", "sites=[a,b]", config_dir=conf)
    told = yaml.safe_load(plan)
    assert study.manifest["dataset"]["patches"]["size"] == told["dataset"]["patches"]["size"]
    assert study.manifest["model"]["network"]["strides"] == told["model"]["network"]["strides"]
    check(study)
    small = ["dataset.split.train=0.5", f"model.network.filters={[4] * len(told['model']['network']['filters'])}"]
    study = compose_study("experiment=organs", "plan=organs", "sites=[a,b]", *small, config_dir=conf)
    assert execute(study, tmp_path / "run")["digest"]


@pytest.mark.slow
def test_a_plan_without_federation_is_that_of_the_sites(conf, plan, tmp_path):
    assert planned(conf, tmp_path / "run", "federation=none") == plan  # over both backends: test_carried_jobs.py


def asked(conf: Path, home: Path, policy: object):
    study = compose_study("experiment=organs", "job=plan", config_dir=conf)
    site = study.sites["a"]
    site.policy = policy
    return Silo("a", site, home).answer(Task("run", "study", 0, "plan", {}, {}, {}, study.manifest_text))


def test_a_site_tells_no_bin_of_fewer_persons_than_its_minimum_cell(conf, tmp_path):
    reply = asked(conf, tmp_path, {"minimum_persons": 2, "minimum_cell": 2})
    told = reply.summaries[Topic.DESCRIPTION]
    assert told["histogram/shape/0"].values.sum() == 4
    assert all(np.all((each.values == 0) | (each.values >= 2)) for name, each in told.items() if "histogram" in name)
    assert all(each.persons >= 2 for each in told.values())
    few = asked(conf, tmp_path / "few", {"minimum_persons": 2, "minimum_cell": 5})
    assert few.fault or not few.summaries


def test_a_site_that_describes_nothing_refuses(conf, tmp_path):
    reply = asked(conf, tmp_path, {"minimum_persons": 2, "minimum_cell": 2, "releases": ["statistics", "metrics"]})
    assert reply.fault.refused and not reply.summaries


def test_where_no_site_tells_enough_the_study_says_so(conf, tmp_path):
    policies = [f"sites.{name}.policy={{minimum_persons: 1, minimum_cell: 9}}" for name in SPACINGS]
    study = compose_study("experiment=organs", "job=plan", *policies, config_dir=conf)
    result = execute(study, tmp_path / "run")
    assert result["status"] == "refused" and not (tmp_path / "run" / "plan.yaml").exists()


def test_a_dataset_that_plans_nothing_is_refused_by_name(tmp_path):
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"), "job=plan")
    with pytest.raises(UserError, match="plan is for a dataset that can propose settings"):
        check(study)


def test_mr_is_scaled_image_by_image_and_pictures_keep_what_was_declared(conf):
    manifest = json.loads(compose_study("experiment=organs", config_dir=conf).manifest_text)["dataset"]
    sums = {f"histogram/{kind}/{axis}": np.eye(1, 99, place)[0] for kind, place in KINDS.items() for axis in range(3)}
    mr = manifest | {"image": manifest["image"] | {"modality": "MR"}}
    for intensity, words in (("Standardized", "intensity.Standardized"), ("Percentiles", "Percentiles stays")):
        own = mr | {"intensity": {"_target_": f"datamodules.segmentation.intensity.{intensity}"}}
        data = build.declared(own)
        assert isinstance(data, SegmentationImages) and words in data.planned(sums)


KINDS = {"spacing": 90, "shape": 30, "extent": 27}
