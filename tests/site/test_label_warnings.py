"""What puts a site's labels in doubt: from the site over the coordinator to the report's first lines."""

import numpy as np
import pytest
from rich.console import Console

from flip.cli.execute import execute
from flip.messages.summary import EVERYBODY, Topic
from flip.report.cohorts import screen_table
from flip.report.notices import notices
from flip.runs.record import RunRecord
from flip.site.complementary import suppress_total
from flip.site.statistics import cohort_counts, cohort_summaries
from tests.datamodules.ct_sites import nifti, numbered, site, structures
from tests.studies import compose_study

CELL = 5
DOUBT, BESIDE = "studies of which no label has the number", "series beside those that were read"
WORDS = "8 studies, no label file of which marks visceral_fat by its declared number or name"


class Data:
    """A dataset of 42 persons with two remarks, one of which puts it in doubt; of them 34 are used."""

    REASONS, REMARKS, WARNINGS = frozenset({"no level"}), frozenset({DOUBT, BESIDE}), frozenset({DOUBT})

    def __init__(self, persons: int = 42) -> None:
        self.skipped = self.skipped_persons = {"no level": 6}
        self.remarks = self.remarks_persons = {DOUBT: persons, BESIDE: 42}

    def whose(self, split: str) -> np.ndarray:
        """25 to train on, 9 to test on."""
        return np.arange({"train": 25, "test": 9}.get(split, 0))


@pytest.mark.parametrize(("persons", "told"), [(42, {EVERYBODY + DOUBT}), (5, {DOUBT}), (4, set()), (40, set())])
def test_what_puts_data_in_doubt_leaves_a_site_as_a_remark_does(persons, told):
    found, _ = cohort_summaries(42, Data(persons), CELL)
    assert set(found[Topic.WARNINGS]) == told and set(found[Topic.REMARKS]) == {EVERYBODY + BESIDE} | told


def test_persons_that_are_remarked_on_are_not_taken_for_skipped_ones():
    assert cohort_counts(42, Data(), CELL)["persons"] == suppress_total(42, [25, 0, 9], CELL, skipped=6) == 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """job=check over two sites, of which north gives visceral fat another number than it declares."""
    home, lines = tmp_path_factory.mktemp("doubts"), []
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
    assert f"north: {WORDS}." in shown and "south: 8 studies" not in shown
    assert WORDS in (run.path / "report.html").read_text()


def test_it_stands_among_the_first_lines_of_a_report(run):
    assert notices(run)[0] == f"north: {WORDS}."


def test_it_stands_in_the_log_of_that_site(run):
    logs = {path.parent.name: path.read_text() for path in run.path.glob("sites/*/site.log")}
    assert WORDS in logs["north"] and WORDS not in logs.get("south", "")
