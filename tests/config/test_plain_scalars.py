"""What YAML reads otherwise than it is written is refused by file and line, in a study's files and in a hospital's."""

from pathlib import Path

import pytest

from flip.__main__ import main
from flip.config.plain_scalars import misread
from flip.config.site_file import load_site
from flip.errors import UserError
from tests.conftest import Acme


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("010", "8"),
        ("1:30", "90"),
        ("yes", "true"),
        ("No", "false"),
        ("off", "false"),
        ("0x1F", "31"),
        ("1E30", "1e+30"),
    ],
)
def test_a_value_that_yaml_turns_is_named_with_what_it_becomes(written: str, read: str) -> None:
    assert misread(f"policy: public_data\ncolumns: {{sex: {{values: {{F: {written}}}}}}}\n", "north.yaml") == [
        f"columns.sex.values.F (north.yaml, line 2): {written} is read as {read}; write {read}, or '{written}' in "
        "quotes for the text"
    ]


def test_a_key_that_yaml_turns_is_named() -> None:
    assert (
        "columns.sex.values (n, line 1): yes is read as true" in misread("columns: {sex: {values: {yes: 1}}}", "n")[0]
    )


@pytest.mark.parametrize("written", ["10", "007", "-1.5", ".5", "1e-4", "true", "False", "'010'", "'yes'", "08", "1_0"])
def test_what_is_read_as_it_is_written_passes(written: str) -> None:
    assert misread(f"a: [{written}]", "north.yaml") == []


def test_a_hospitals_own_file_is_read_as_written_or_refused(tmp_path: Path) -> None:
    own = tmp_path / "north.yaml"
    base = f"root: {tmp_path}\npolicy: {{minimum_persons: 1, minimum_cell: 1}}\n"
    own.write_text(base + "columns: {dose: {name: dose, values: {low: 010}}}\n")
    with pytest.raises(UserError, match="010 is read as 8"):
        load_site(own)
    own.write_text(base + "columns: {dose: {name: dose, values: {low: '010', late: 2020-01-01}}}\n")
    assert load_site(own).columns["dose"]["values"] == {"low": "010", "late": "2020-01-01"}


def test_a_key_that_stands_twice_in_a_hospitals_file_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "north.yaml"
    own.write_text(f"root: {tmp_path}\npolicy: {{minimum_cell: 20}}\npolicy: {{minimum_cell: 1}}\n")
    with pytest.raises(UserError, match="policy"):
        load_site(own)


def test_a_study_and_a_simulated_site_are_refused_before_anything_runs(
    acme: Acme, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = acme.conf / "sites" / "north.yaml"
    site.write_text(site.read_text() + "columns: {sex: {values: {yes: 1}}}\n")
    experiment = acme.conf / "experiment" / "acme.yaml"
    experiment.write_text(experiment.read_text().replace("batch_size: 2", "batch_size: 010"))
    assert main(acme.arguments()) == 2
    told = capsys.readouterr().err
    assert "dataset.batch_size" in told and "010 is read as 8" in told and "columns.sex.values" in told
