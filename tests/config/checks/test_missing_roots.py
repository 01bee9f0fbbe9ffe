"""A folder of data that is not there is one mistake, however many sites are in it; so is what several sites say."""

from pathlib import Path

import pytest

from flip.cli.closing import show_logs
from flip.config.checks.study import check
from flip.errors import UserError
from tests.studies import compose_study


def test_a_folder_that_is_not_there_is_said_once_with_the_sites(tmp_path):
    study = compose_study("experiment=heart_disease", f"paths.data_dir={tmp_path / 'nowhere'}")
    with pytest.raises(UserError) as refused:
        check(study)
    (problem,) = refused.value.problems
    assert problem.count("set root to the cohort") == 1 and "do not exist" in problem
    assert all(f"sites.{site}.root" in problem for site in ("cleveland", "hungarian", "switzerland", "va"))


def test_a_root_that_all_sites_share_is_named_once(tmp_path):
    study = compose_study("experiment=chest_xray", f"paths.data_dir={tmp_path / 'nowhere'}")
    with pytest.raises(UserError) as refused:
        check(study)
    (problem,) = refused.value.problems
    assert problem.count(str(tmp_path / "nowhere")) == 1 and ".npz does not exist" in problem


def test_what_several_logs_say_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for site, words in {"a": "no cohort at /x", "b": "no cohort at /x", "c": "another"}.items():
        (tmp_path / "sites" / site).mkdir(parents=True)
        (tmp_path / "sites" / site / "site.log").write_text(f"flip.config.build.DataError: {words}\n")
    show_logs(tmp_path, None)
    assert capsys.readouterr().out.splitlines() == ["a, b: no cohort at /x", "c: another"]
