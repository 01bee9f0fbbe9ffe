"""What is to know of examples that a site uses: counted by a closed list of words, from the site to the report."""

import pytest
from rich.console import Console

from flip.cli.execute import execute
from flip.report.cohorts import screen_table
from flip.report.notices import notices
from flip.runs.record import RunRecord
from flip.site.disclosure import suppress_total
from flip.site.statistics import cohort_counts, remarks, skipped
from tests.datamodules.ct_sites import nifti, numbered, site, structures
from tests.studies import compose_study

CELL = 5
KNOWN = "a number that no file holds"
REMARK = "no label file marks visceral_fat under the number or name that is declared for it"


class Data:
    """A dataset of persons, of which some are remarked on."""

    REASONS = frozenset({KNOWN, "no level"})

    def __init__(self, **persons: int) -> None:
        self.skipped = self.skipped_persons = {"no level": 6}
        self.remarks = {name.replace("_", " "): 40 for name in persons}
        self.remarked_persons = {name.replace("_", " "): number for name, number in persons.items()}


@pytest.mark.parametrize(("persons", "told"), [(34, {KNOWN}), (5, {KNOWN}), (4, set())])
def test_a_remark_leaves_a_site_if_it_is_of_enough_persons(persons, told):
    found, everything = remarks(48, Data(a_number_that_no_file_holds=persons), CELL)
    assert set(found) == told and everything == {KNOWN: 40}


def test_a_remark_that_the_dataset_does_not_declare_stays_at_the_site():
    assert remarks(48, Data(P17_has_no_file=40), CELL)[0] == {}


def test_persons_that_are_remarked_on_are_not_taken_for_skipped_ones():
    data = Data(a_number_that_no_file_holds=34)
    data.whose = lambda split: list(range({"train": 25, "test": 9}.get(split, 0)))
    assert set(skipped(42, data, CELL)[0]) == {"no level"}
    assert cohort_counts(42, data, CELL)["persons"] == suppress_total(42, [25, 0, 9], CELL, skipped=6) == 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """job=check over two sites, of which north gives visceral fat another number than it declares."""
    home, lines = tmp_path_factory.mktemp("remarks"), []
    for name, fat in (("north", 7), ("south", 3)):
        root = site(home / name, list("ABCDEFGH"))
        for accession in "ABCDEFGH":
            nifti(root / "labels" / f"{accession}.nii", numbered(structures(), (1, 2, fat, 4)))
        lines.append(f"{name}: {{root: {root}, policy: public_data}}")
    (home / "own" / "sites").mkdir(parents=True)
    (home / "own" / "sites" / "ct.yaml").write_text("# @package sites\n" + "\n".join(lines) + "\n")
    study = compose_study(
        "experiment=sarcopenia", "sites=[ct]", "dataset.demo=false", "notice=null", "federation=inprocess",
        "dataset.grid.size=32", "dataset.grid.plane=32", "job=check", config_dir=home / "own",
    )  # fmt: skip
    assert execute(study, home / "run")["status"] == "ok"
    return RunRecord.read(home / "run")


def test_a_number_that_no_file_of_a_site_holds_is_named_by_the_check(run, capsys):
    Console(width=300).print(screen_table(run))
    shown = capsys.readouterr().out
    assert f"north: {REMARK} (8 examples)" in shown and "south: no label" not in shown
    page = (run.path / "report.html").read_text()
    assert REMARK in page


def test_it_stands_among_the_first_lines_of_a_report(run):
    assert notices(run) == [f"north: {REMARK} (8 examples)."]


def test_it_stands_in_the_log_of_that_site(run):
    logs = {path.parent.name: path.read_text() for path in run.path.glob("sites/*/site.log")}
    assert REMARK in logs["north"] and REMARK not in logs.get("south", "")
