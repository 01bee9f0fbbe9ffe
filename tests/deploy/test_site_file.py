"""`flip site`: a hospital's file is written with every rule, and read back in words, or with every mistake."""

from dataclasses import fields
from pathlib import Path

import pytest

from flip.__main__ import main
from flip.config.policy import Policy
from flip.config.rules import DECLARED, DEPLOYED
from flip.config.site_file import load_site
from flip.config.site_template import RULES
from flip.deploy.permits import WORDS


def filled(folder: Path, **values: str) -> Path:
    """The file that `init` writes, with values for its ??? ones, and others by key."""
    path = folder / "site.yaml"
    assert main(["site", "init", str(path)]) == 0
    (folder / "cohort.csv").write_text("age,MRN\n")
    given = {"root": str(folder / "cohort.csv"), "person": "MRN", "minimum_persons": "50", "minimum_cell": "5"}
    given |= {"approval": "none"} | values
    lines = path.read_text().splitlines()
    for key, value in given.items():
        lines = [f"{line.partition(key)[0]}{key}: {value}" if line.strip().startswith(f"{key}:") else line
                 for line in lines]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_rule_of_a_policy_stands_in_a_new_file_and_is_said_in_words():
    rules = {field.name for field in fields(Policy)}
    assert set(RULES) == rules and set(WORDS) == rules


def test_a_new_file_states_what_a_hospital_has_without_it(tmp_path):
    path = filled(tmp_path)
    stated = Policy(50, 5, **DEPLOYED, releases=DECLARED, models=(), trackers=())
    assert Policy.read("kings", load_site(path).policy, deployed=True) == stated
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_left_as_it_is(tmp_path, capsys):
    path = tmp_path / "site.yaml"
    path.write_text("mine")
    assert main(["site", "init", str(path)]) == 2
    assert path.read_text() == "mine" and "is there already" in capsys.readouterr().err


def test_a_check_says_what_the_file_permits(tmp_path, capsys):
    demand = "{mechanism: dp_sgd, epsilon: 3, delta: 1.0e-5}"
    assert main(["site", "check", str(filled(tmp_path, privacy=demand, releases="[statistics, weights]"))]) == 0
    said = capsys.readouterr().out
    for words in (
        "the column MRN says whose a row is",
        "A study may",
        "50 distinct persons or more",
        "flip.privacy.dp_sgd.DPSGD; all studies together spend epsilon 3 at delta 1e-05",
        "These stay: a description of the cohort; losses and metrics; what a study adds to the report; the names of",
        "Nothing leaves that rests on fewer than 5 persons.",
    ):
        assert words in said


def test_a_check_names_every_mistake_with_its_key(tmp_path, capsys):
    wrong = {"minimum_cell": "many", "share": "2", "privacy": "{mechanism: dp_sgdd}", "releases": "[wieghts]"}
    path = filled(tmp_path, root="nowhere.csv", secret="simulated", accelerator="gpus", **wrong)
    path.write_text(path.read_text().replace("policy:", "policy:\n  minimum_cels: 3", 1))
    assert main(["site", "check", str(path)]) == 2
    said = capsys.readouterr().err
    for words in (
        "policy.minimum_cels: no such rule; did you mean 'minimum_cell'?",
        "policy.minimum_cell='many': must be a whole number of persons",
        "policy.share=2: must be a number above 0, at most 1",
        "policy.privacy.mechanism='dp_sgdd': no such mechanism; did you mean 'dp_sgd'?",
        "policy.privacy.epsilon=None: must be a number above 0",
        "policy.releases: 'wieghts' is no kind of what may leave; did you mean 'weights'?",
        "secret: 'simulated' protects nothing",
        "accelerator: 'gpus' is none of",
        "root: there is nothing at",
    ):
        assert words in said


@pytest.mark.parametrize("arguments", [["inti", "x"], ["init"], ["check", "nowhere.yaml"]])
def test_a_mistake_on_the_command_line_has_an_answer(arguments):
    assert main(["site", *arguments]) == 2


def test_a_file_that_is_not_filled_in_is_no_sites_file(tmp_path, capsys):
    assert main(["site", "init", str(tmp_path / "site.yaml")]) == 0
    assert main(["site", "check", str(tmp_path / "site.yaml")]) == 2
    said = capsys.readouterr().err
    assert all(
        f"{key} (" in said
        for key in ("root", "person", "policy.minimum_persons", "policy.minimum_cell", "policy.approval")
    )
    assert said.count("write one there, in place of ???") == 5 and "=..." not in said


@pytest.mark.parametrize("person", ["MNR", "'1'"])
def test_a_column_of_persons_that_the_table_lacks_is_told(tmp_path, capsys, person):
    assert main(["site", "check", str(filled(tmp_path, person=person))]) == 2
    assert "is no column of" in capsys.readouterr().err


@pytest.mark.parametrize(("person", "header"), [("MRN", '"age";"MRN"'), ("row", "age"), ("MRN", "\ufeffMRN\tage")])
def test_a_table_that_has_the_column_of_persons_or_needs_none_is_permitted(tmp_path, person, header):
    path = filled(tmp_path, person=person)
    (tmp_path / "cohort.csv").write_text(f"{header}\n1;2\n", encoding="utf-8")
    assert main(["site", "check", str(path)]) == 0


def test_a_rule_that_is_misspelt_is_one_mistake(tmp_path, capsys):
    path = filled(tmp_path)
    path.write_text(path.read_text().replace("  minimum_cell:", "  minimum_cels:", 1))
    assert main(["site", "check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "policy.minimum_cels: no such rule" in said and "minimum_cell=None" not in said
