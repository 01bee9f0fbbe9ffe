"""A site's own file: where its data come from, its own columns, its part; each mistake is named with its remedy."""

from pathlib import Path
from typing import Any

import pytest

from flip.__main__ import main
from flip.config import build
from flip.config.checks.sites import site_problems
from flip.config.checks.study import check
from flip.config.envelope import data_of
from flip.config.site_file import load_site
from flip.errors import UserError
from flip.runs.rerun import run_files
from tests.conftest import Acme
from tests.studies import compose_study

SOURCES = '''
"""A hospital's own source, and one that its owner has not allowed."""

import pandas as pd


class Table:
    def __init__(self, path: str, root: str = "", encoding: str = "utf-8"):
        self.path, self.root, self.encoding = path, root, encoding

    def read(self):
        table = pd.read_csv(f"{self.root}/{self.path}", encoding=self.encoding)
        return table.rename(columns={"PATIENT": "person"})
'''
DATASET = """
    _target_: datamodules.multimodal.Multimodal
    records: {_target_: datamodules.records.Records, person: patient}
    target: {_target_: datamodules.targets.Binary, column: died, positive: [1]}
    tabular: {_target_: datamodules.tabular.Tabular, numeric: [weight, age]}
"""
OWN = "sites.north.policy={minimum_persons: 1, minimum_cell: 1, targets: [models., datamodules., acme.]}"
READ = "sites.north.sources={table: {_target_: acme.sources.Table, path: own.csv}}"
COLUMNS = "sites.north.columns={weight: {name: WT_LB, factor: 0.5}, age: null}"


@pytest.fixture
def study(acme: Acme, tmp_path: Path) -> list[str]:
    """The study `acme` on two cohorts, one of them with names and units of its own."""
    (acme.packages / "acme" / "sources.py").write_text(SOURCES)
    acme.write("dataset/clinic.yaml", DATASET)
    path = acme.conf / "experiment" / "acme.yaml"
    text = path.read_text().replace("/sites: [north, south]", "/sites: [north, south]\n  - override /dataset: clinic")
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("dataset:")) + "\n")
    for name, header in (("north", "PATIENT,WT_LB,died"), ("south", "patient,weight,age,died")):
        (tmp_path / name).mkdir()
        rows = [f"p{row},{100 + row}{',50' * (name == 'south')},{row % 2}" for row in range(20)]
        file = {"north": "own.csv", "south": "cohort.csv"}[name]
        (tmp_path / name / file).write_text("\n".join([header, *rows]) + "\n")
        acme.write(f"sites/{name}.yaml", f"# @package sites.{name}\nroot: {tmp_path / name}\npolicy: public_data\n")
    return [*acme.arguments()[2:], OWN, READ, COLUMNS]


def test_a_site_reads_its_own_source_with_its_own_names_and_units(acme: Acme, study: list[str]) -> None:
    settled = compose_study(*study, config_dir=acme.conf)
    check(settled)
    data = build.datamodule(settled.manifest, "north", settled.sites["north"])
    data.setup()
    table = data._read().table
    assert table["weight"].tolist()[:2] == [50, 50.5] and table["age"].isna().all()


def test_a_run_folder_keeps_the_sites_sources_in_the_sites_file_alone(acme: Acme, study: list[str]) -> None:
    files = run_files(compose_study(*study, config_dir=acme.conf))
    assert {name for name, text in files.items() if "own.csv" in text or "WT_LB" in text} == {"sites/north.yaml"}


def test_a_hospitals_owner_alone_allows_a_source(acme: Acme, study: list[str], tmp_path: Path) -> None:
    own = tmp_path / "north.yaml"
    for targets, refused in (("[models., datamodules.]", True), ("[models., datamodules., acme.]", False)):
        own.write_text(
            f"root: {tmp_path / 'north'}\nsources: {{table: {{_target_: acme.sources.Table, path: own.csv}}}}\n"
            f"policy: {{minimum_persons: 2, minimum_cell: 1, targets: {targets}}}\n"
        )
        settled = compose_study("experiment=acme", f"site_file={own}", config_dir=acme.conf)
        said = [text for text in site_problems(settled) if "acme.sources.Table is outside" in text and str(own) in text]
        assert bool(said) is refused


def test_a_site_names_a_folder_of_its_machine_for_its_own_source(acme: Acme, study: list[str], tmp_path: Path) -> None:
    source = f"{{_target_: datamodules.sources.transformer.LocalTransformer, folder: {tmp_path}}}"
    settled = compose_study(*study, f"sites.north.sources.transformer={source}", config_dir=acme.conf)
    assert [*site_problems(settled)] == []
    assert build.sources("north", settled.sites["north"])["transformer"].folder == tmp_path


CALLED = "_target_: acme.sources.Table, path: own.csv"
MISTAKES = {
    "a source that the owner has not allowed": (
        ["sites.north.sources={table: {_target_: shutil.copytree}}"],
        ["sites.north.sources.table._target_ (the command line): shutil.copytree is outside the allowed prefixes"],
    ),
    "a source that there is not": (
        ["sites.north.sources={table: {_target_: acme.sources.Tabel}}"],
        ["sites.north.sources.table._target_", "'Tabel' is not in acme.sources", "did you mean 'Table'"],
    ),
    "a source of a part that there is not": (
        [f"sites.north.sources={{tables: {{{CALLED}}}}}"],
        ["sites.north.sources.tables (the command line): Multimodal has no such part; did you mean 'table'"],
    ),
    "an argument that a source does not take": (
        [f"sites.north.sources={{table: {{{CALLED}, encodign: x}}}}"],
        ["sites.north.sources.table.encodign (the command line): Table has no such argument", "'encoding'"],
    ),
    "a source that is none": (
        ["sites.north.sources={table: own.csv}"],
        ["sites.north.sources.table (the command line): must hold _target_ and its arguments, not 'own.csv'"],
    ),
    "a conversion that there is not": (
        ["sites.north.columns={weight: {name: WT_LB, facter: 2}, age: null}"],
        ["sites.north.columns.weight.facter (the command line): no such key; did you mean 'factor'"],
    ),
    "a factor that is no number": (
        ["sites.north.columns={weight: {name: WT_LB, factor: lb}, age: null}"],
        ["sites.north.columns.weight.factor (the command line): 'lb' must be a number"],
    ),
    "values that are no mapping": (
        ["sites.north.columns={weight: {name: WT_LB, values: [M, F]}, age: null}"],
        ["sites.north.columns.weight.values (the command line)", "must map the site's own values"],
    ),
    "a column that is a list": (
        ["sites.north.columns={weight: [WT_LB], age: null}"],
        ["sites.north.columns.weight (the command line): ['WT_LB'] must be the site's own name"],
    ),
    "a column that the table has not": (
        ["sites.north.columns={weight: WT_KG, age: null}"],
        ["sites.north.root", "no column WT_KG; map it in the site's `columns`"],
    ),
    "a column that the study does not declare": (
        ["sites.north.columns={weight: WT_LB, age: null, wieght: WT_LB}"],
        ["columns.wieght: the study declares no such column"],
    ),
    "a part of a cohort that is not parted": (["sites.north.part=1"], ["is of a cohort that dataset.partition parts"]),
    "two sites with one cohort": (
        ["sites.south=${sites.north}"],
        ["sites.south.root (the command line)", "is the cohort of north as well; give each its part of it"],
    ),
    "a part that is no number": (["sites.north.part=first"], ["sites.north.part", "'first' is the wrong type"]),
    "the site's own argument in the study": (
        ["+dataset.part=1"],
        ["dataset.part (the command line): is the site's to set, in its own file (sites.NAME.part)"],
    ),
    "sources for a dataset that takes none": (
        ["dataset._target_=acme.parts.Data", "~dataset.records", "~dataset.target", "~dataset.tabular"],
        ["sites.north.sources (the command line): Data takes no sources", "takes the site's own name alone"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_remedy(name: str, acme: Acme, study: list[str], folder: Path, capsys: Any) -> None:
    overrides, parts = MISTAKES[name]
    replaced = {each.split("=")[0] for each in overrides}
    kept = [each for each in study if each.split("=")[0] not in replaced]
    assert main(["--config-dir", str(acme.conf), *kept, *overrides]) == 2
    text = capsys.readouterr().err
    assert [part for part in parts if part not in text] == [], text
    assert "Traceback" not in text and not list(folder.iterdir())


def test_the_sites_of_a_live_federation_have_their_cohorts_in_their_own_files():
    live = ("federation=flower_superlink", "federation.kit=kits/admin")
    study = compose_study("experiment=lung_survival", *live)
    assert [each for each in site_problems(study) if "is the cohort of" in each] == []


@pytest.mark.parametrize(
    "content",
    [b"\x80root: x", b"root: 2026-13-45\npolicy: x\n", b"[" * 5000, b"root: \x00", b"? {a: 1}\n: 2", b"5", b"- a"],
)
def test_a_file_that_is_no_text_or_no_settings_is_a_named_mistake(content, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"site\.yaml"):
        load_site(path)


def test_a_relative_place_is_beside_the_sites_file_wherever_it_is_read_from(tmp_path, monkeypatch):
    kit = tmp_path / "kit"
    (tmp_path / "elsewhere").mkdir()
    kit.mkdir()
    (kit / "site.yaml").write_text(
        "root: data/rows.csv\npolicy: public_data\nopt_out: out.txt\nmodels: [given.safetensors]\n"
    )
    (kit / "out.txt").write_text("7\n")
    found = []
    for start, file in ((kit, "site.yaml"), (tmp_path / "elsewhere", "../kit/site.yaml")):
        monkeypatch.chdir(start)
        found.append(load_site(Path(file)))
        assert Path(found[-1].root).resolve() == kit / "data" / "rows.csv"
        assert [Path(each).resolve() for each in found[-1].models] == [kit / "given.safetensors"]
    assert data_of(found[0]) == data_of(found[1])  # an approval holds for the same data, wherever it was signed


@pytest.mark.parametrize("text", ["0e0", "c0e0", "[1]", "kings"])
def test_a_file_that_holds_no_keys_is_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError, match="must hold keys and values"):
        load_site(tmp_path / "site.yaml")


@pytest.mark.parametrize("text", ["[]", "- root", "0", "''", "false"])
def test_a_file_of_no_keys_and_values_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError, match=r"must hold keys and values, such as 'root: /data/cohort'"):
        load_site(tmp_path / "site.yaml")
