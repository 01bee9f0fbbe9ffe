"""job=check and job=statistics: what the sites' cohorts hold, on the screen and as a page, with nothing trained."""

import json
from pathlib import Path

import pytest

from flip.cli.execute import execute
from flip.config import build
from flip.config.build import initial_module
from flip.config.jobs import JOBS
from flip.errors import UserError
from flip.site.fit import try_step
from tests.cohorts.heart import write_tiny_heart
from tests.cohorts.studies import TINY
from tests.commands import Finished, flip
from tests.studies import compose_study, tiny_heart_study

HEART = "experiment=heart_disease"


@pytest.fixture(scope="module")
def heart(tmp_path_factory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def here(heart, tmp_path_factory) -> Finished:
    """job=statistics on this machine."""
    return flip(tmp_path_factory.mktemp("here"), HEART, f"paths.data_dir={heart}", "job=statistics")


def test_every_site_is_counted_and_nothing_is_trained(here):
    assert here.status == 0, here.err
    (run,) = here.runs
    assert not (run / "weights").exists()
    assert here.result["digest"] is None
    told = here.description
    cohort = json.loads((run / "cohort.json").read_text())
    assert set(told["sites"]) == {"cleveland", "hungarian", "switzerland", "va"}
    for site, named in told["sites"].items():
        assert named["count/studies"]["values"] == [cohort[site]["persons"]]
        classes = sum(each["values"][0] for name, each in named.items() if name.startswith("count/label/"))
        assert classes == named["count/labels"]["values"][0]
        assert told["shapes"][site]["features"]["values"] == [13.0]
        assert site in here.out
    bins = told["sites"]["va"]["histogram/age"]["values"]
    assert len(told["edges"]["age"]) == len(bins) + 1
    assert sum(bins) == told["sites"]["va"]["moments/age"]["values"][0]
    page = (run / "report.html").read_text()
    assert "Nothing was trained" in page
    assert page.count("<svg") >= 3


@pytest.mark.slow
def test_statistics_over_a_federation_are_those_of_this_machine(here, heart, tmp_path):
    done = flip(tmp_path, HEART, f"paths.data_dir={heart}", "job=statistics", "federation=inprocess")
    assert done.status == 0, done.err
    assert done.description == here.description


@pytest.mark.slow
def test_one_hospital_checks_itself_under_its_own_file(heart, tmp_path):
    file = tmp_path / "va.yaml"
    table = heart / "uci_heart" / "processed.va.data"
    file.write_text(f"root: {table}\npolicy: {{minimum_persons: 5, minimum_cell: 3}}\n")
    done = flip(tmp_path, HEART, "job=check", f"site_file={file}")
    assert done.status == 0, done.err
    assert list(done.description["sites"]) == ["va"]
    assert not done.description["edges"]  # a check has no histograms
    assert str(heart) not in (done.runs[0] / "report.html").read_text() + json.dumps(done.description)


@pytest.mark.slow
def test_a_site_that_cannot_be_read_is_named_with_its_remedy(heart, tmp_path):
    wrong = ["sites.va.root=nowhere.csv", "strategy.min_sites=4"]
    done = flip(tmp_path, HEART, f"paths.data_dir={heart}", "job=check", *wrong)
    assert done.status == 1
    assert "no table at" in done.out  # the site's own log: it is this machine's
    page = (done.runs[0] / "report.html").read_text()
    assert "the site could not read its cohort" in page
    assert "nowhere.csv" not in page


@pytest.mark.parametrize("job", [["job=check"], ["federation=inprocess"]], ids=["check", "train"])
def test_a_model_that_does_not_take_the_data_is_found_with_its_cause(heart, job, tmp_path, capsys):
    result = execute(tiny_heart_study(heart, "model.features=12", *job), tmp_path / "run")
    assert result["status"] == "failed"
    out = capsys.readouterr().out
    assert "va: RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x13 and 12x1)" in out
    if job == ["job=check"]:
        told = json.loads((tmp_path / "run" / "description.json").read_text())
        assert told["sites"]["va"]["count/studies"]["values"]  # it is counted all the same
        assert "raised an error" in (tmp_path / "run" / "report.html").read_text()


def test_a_check_leaves_the_model_as_it_was(heart):
    manifest = json.loads(tiny_heart_study(heart).manifest_text)
    module, data = initial_module(manifest), build.datamodule(manifest, "va", tiny_heart_study(heart).sites["va"])
    before = module.linear.weight.clone()
    try_step(manifest, tiny_heart_study(heart).sites["va"], module, data)
    assert module.linear.weight.equal(before)


def test_an_unknown_job_is_refused():
    with pytest.raises(UserError, match=f"there is no job 'verify'; valid: {', '.join(sorted(JOBS))}"):
        compose_study(HEART, "job=verify")


@pytest.mark.slow
@pytest.mark.parametrize("federation", ["flower", pytest.param("nvflare", marks=pytest.mark.long)])
def test_statistics_over_a_backend_are_those_of_this_machine(here, heart, tmp_path, federation):
    done = flip(tmp_path, HEART, f"paths.data_dir={heart}", "job=statistics", f"federation={federation}")
    assert done.status == 0, done.err
    assert done.description == here.description


@pytest.mark.slow
def test_a_cohort_of_images_is_checked_with_its_shapes(tmp_path):
    done = flip(tmp_path, "experiment=sarcopenia", "job=check", *TINY["sarcopenia"](tmp_path / "demo"))
    assert done.status == 0, done.err
    north = done.description["sites"]["north"]
    assert north["count/labels"]["values"] == north["count/studies"]["values"] == [6.0]
    assert done.description["shapes"]["north"]["image"]["values"] == [1.0, 96.0, 96.0]
    assert north["count/levels/sex/female"]["values"][0] + north["count/levels/sex/male"]["values"][0] == 6
