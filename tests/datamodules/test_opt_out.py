"""Persons who opted out: in every shipped dataset their rows are gone, and all else is as if they were never there."""

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import phantom
from datamodules.ct_scans import CTScans
from datamodules.ct_slices import CTSlices
from datamodules.multimodal import Multimodal
from datamodules.tabular import Tabular
from datamodules.targets import Binary
from flip.config.places import listed
from flip.contracts import ListsPersons
from tests.datamodules import level_sites, segmentation_sites
from tests.datamodules.test_cohort_table import rows as rows_of_table
from tests.datamodules.test_cohort_table import table, write
from tests.datamodules.test_ct_scans import study
from tests.datamodules.test_ct_slices import SMALL
from tests.datamodules.test_levels_of_scans import of as levels
from tests.datamodules.test_multimodal_data import dataset, write_cohort
from tests.datamodules.test_segmentation_images import as_picture, of


@dataclass(frozen=True)
class Case:
    """A dataset on tiny data: how a site is written, what reads it, who opts out, and whose file says so."""

    write: Callable[[Path], object]
    read: Callable[..., Any]
    person: str  # the table's column
    gone: tuple[str, ...]
    file: str = "cohort.csv"

    def delete(self, root: Path) -> None:
        """Take the persons, and all files that are named after their examples, out of a site."""
        with (root / self.file).open(newline="") as file:
            header, *found = list(csv.reader(file))
        own = header.index(self.person)
        write(root / self.file, [row for row in found if row[own] not in self.gone], header)
        names = {Path(cell).stem for row in found if row[own] in self.gone for cell in row}
        for path in [each for each in root.rglob("*") if each.name.partition(".")[0] in names]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _slices(root: Path) -> None:
    phantom.generate(root, profile=phantom.PROFILES["north"], patients=3)


CASES = {
    "CohortTable": Case(
        lambda root: (root.mkdir(), write(root / "c.csv", [*rows_of_table(), ["p3", "?", 1, 0], ["p9", "?", 2, 1]])),
        lambda root, **given: table(root / "c.csv", person="id", missing="?", **given),
        "id",
        ("p3", "p17"),
        "c.csv",
    ),
    "Multimodal": Case(write_cohort, dataset, "pid", ("p0", "p4", "p11")),
    "SegmentationImages": Case(segmentation_sites.site, of, "person_id", ("P1", "P4")),
    "SegmentationImages of pictures": Case(segmentation_sites.pictures, as_picture, "person_id", ("P0",)),
    "LevelsOfScans": Case(level_sites.site, levels, "person_id", ("P1",)),
    "CTSlices": Case(
        _slices, lambda root, **given: CTSlices(str(root), **{**SMALL, **given}), "person_id", ("north-002",)
    ),
}


def contents(data: Any) -> Iterator[tuple[str, np.ndarray]]:
    """All that the engine can learn of a cohort, as arrays by name."""
    yield "persons", np.array(data.persons())
    data.setup("fit")
    yield "names", np.array(data.person_names())
    for kind in ("skipped", "skipped_persons", "remarks"):
        yield kind, np.array(sorted(getattr(data, kind, {}).items()), dtype=str)
    if hasattr(data, "statistics"):
        sums = data.statistics(2)
        yield from sums.items()
        data.agree(sums)
    for name, array in data.describe({})[0].items():
        yield f"describe/{name}", np.asarray(array)
    if hasattr(data, "fingerprint"):
        yield "fingerprint", data.fingerprint()["data"]
    torch.manual_seed(1)
    for split, loader in zip(
        ("train", "validate", "test"),
        (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()),
        strict=True,
    ):
        yield f"whose/{split}", data.whose(split)
        for number, batch in enumerate(loader or ()):
            yield from ((f"{split}/{number}/{key}", each.numpy()) for key, each in batch.items())


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """By dataset a site with all persons, and one of which those who opt out were deleted."""
    made: dict[str, tuple[Path, Path]] = {}

    def both(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp("sites")
            CASES[name].write(folder / "all")
            made[name] = folder / "all", Path(shutil.copytree(folder / "all", folder / "without"))
            CASES[name].delete(folder / "without")
        return made[name]

    return both


@pytest.mark.parametrize("name", [pytest.param(e, marks=pytest.mark.slow) if e == "CTSlices" else e for e in CASES])
def test_what_a_dataset_gives_is_that_of_a_cohort_of_which_they_were_deleted(sites, name):
    whole, without = sites(name)
    case = CASES[name]
    assert case.read(whole).persons() == case.read(without).persons() + len(case.gone)
    ours, theirs = (list(contents(data)) for data in (case.read(whole, opt_out=case.gone), case.read(without)))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, array), (_, other) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(array, other, name)


@pytest.mark.parametrize("name", CASES)
def test_whose_each_example_is_has_a_name_as_it_has_a_code(sites, name):
    data = CASES[name].read(sites(name)[0])
    data.persons()
    everybody = {*data.person_names()}
    data.setup("fit")
    named = {split: data.example_persons(split) for split in ("train", "validate", "test")}
    for split, names in named.items():
        codes = data.whose(split).tolist()
        assert sorted(Counter(names).values()) == sorted(Counter(codes).values()), split
        assert {*names} <= everybody | {*data.example_persons("")}
        assert all({*names}.isdisjoint(others) for other, others in named.items() if other != split)
    assert everybody <= {*data.example_persons("")}
    assert any(named.values())


@pytest.mark.parametrize("name", CASES)
def test_their_rows_are_counted_and_no_name_of_theirs_is_left(sites, name):
    case = CASES[name]
    data = case.read(sites(name)[0], opt_out=(*case.gone, "somebody elsewhere"))
    data.persons()
    rows, persons = data.opted_out
    assert rows >= persons == len(case.gone)
    data.setup("test")
    assert data.person_names() and not {*case.gone} & {*data.person_names()}


@pytest.mark.parametrize("name", CASES)
def test_without_a_list_nothing_is_left_out(sites, name):
    data = CASES[name].read(sites(name)[0])
    data.persons()
    assert data.opted_out == (0, 0)


def test_every_dataset_that_a_study_may_name_is_tested_here():
    named = {each.rsplit(".")[-1] for each in listed()["dataset"]}
    assert named == {name.partition(" ")[0] for name in CASES} | {"CTScans"}


# Scans without labels.


def scans(root: Path, **given: Any) -> tuple[int, list[str], tuple[int, int]]:
    data = CTScans(str(root), **given)
    return data.persons(), [scan.accession for scan in data.scans()], data.opted_out


def test_scans_of_a_folder_go_by_the_person_of_their_headers(tmp_path):
    for number in (1, 2, 3):
        study(tmp_path / str(number), number)
    study(tmp_path / "4", 4, PatientID="")
    assert scans(tmp_path, opt_out=["P2"]) == (2, ["A-1", "A-3"], (2, 1))


def test_scans_of_a_table_go_by_its_persons_and_corrections_of_those_gone_are_no_mistake(tmp_path):
    from tests.datamodules.ct_sites import site

    (site(tmp_path, ["A-1", "A-2"]) / "levels.csv").write_text("accession,level_mm\nA-2,10\n")
    assert scans(tmp_path, opt_out=["P1"]) == (1, ["A-1"], (1, 1))


# Where names are not what they seem.


def test_a_row_that_does_not_say_whose_it_is_may_be_theirs_and_goes_too(tmp_path):
    path = write(tmp_path / "c.csv", [*rows_of_table(), ["?", 50, 1, 0]])
    data = table(path, person="id", missing="?", opt_out=["p3"])
    assert (data.persons(), data.opted_out) == (39, (2, 1))


def test_a_list_needs_a_column_that_says_whose_a_row_is(tmp_path):
    with pytest.raises(ValueError, match="no column of this cohort says whose a row is"):
        table(write(tmp_path / "c.csv", rows_of_table()), opt_out=["p3"]).persons()


def test_the_column_of_persons_may_have_another_name_at_the_site(tmp_path):
    path = write(tmp_path / "c.csv", rows_of_table(), ["MRN", "age", "pain", "outcome"])
    assert table(path, person="id", columns={"id": "MRN"}, opt_out=["p3"]).persons() == 39


class Source:
    """A site's source of rows, whose persons are numbers and which remarks on some of them."""

    def read(self) -> pd.DataFrame:
        number = np.arange(30)
        return pd.DataFrame({"person": number // 2 * 1.0, "age": number * 1.0, "dx": number % 2})


def test_rows_of_a_source_go_by_the_persons_that_it_gives():
    data = Multimodal(
        "unused",
        target=Binary("dx", [1], [0]),
        tabular=Tabular(["age"]),
        sources={"table": Source()},
        opt_out=["7"],
    )
    assert (data.persons(), data.opted_out, "7" in data.person_names()) == (14, (2, 1), False)


def test_the_engine_knows_that_a_dataset_lists_its_persons():
    assert isinstance(table(Path("unused")), ListsPersons)
