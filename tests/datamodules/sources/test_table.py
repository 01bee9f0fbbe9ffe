"""A table as a source: CSV, gzip, Parquet or a member of a zip, in the site's own names."""

import gzip
import math
import zipfile

import duckdb
import pytest

from datamodules.sources.table import Table

TEXT = "patient;site;Age;smoker\n007;3;61;yes\n12;3.0;?;\n13;4;50;no\n"


def write(folder, kind):
    (folder / "cohort.csv").write_text(TEXT)
    if kind == "gz":
        (folder / "cohort.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
        return "cohort.csv.gz"
    if kind == "zip":
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            archive.writestr("tables/cohort.csv", TEXT)
        return "all.zip/tables/cohort.csv"
    if kind == "parquet":
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (FROM read_csv('{folder}/cohort.csv', all_varchar=true)) TO '{folder}/cohort.parquet'"
            )
        return "cohort.parquet"
    return "cohort.csv"


@pytest.mark.parametrize("kind", ["csv", "gz", "zip", "parquet"])
def test_each_format_gives_the_same_persons(tmp_path, kind):
    table = Table(write(tmp_path, kind), person="patient", missing=["?"], root=str(tmp_path)).read()
    assert table["person"].tolist() == ["007", "12", "13"]
    assert table.columns.tolist() == ["person", "patient", "site", "Age", "smoker"]


def test_numbers_are_numbers_and_what_is_missing_is_missing(tmp_path):
    table = Table(write(tmp_path, "csv"), person="patient", missing=["?"], root=str(tmp_path)).read()
    assert table["Age"].tolist()[0] == 61 and math.isnan(table["Age"].tolist()[1])
    assert table["smoker"].tolist() == ["yes", None, "no"]


def test_an_institution_takes_its_own_rows(tmp_path):
    table = Table(write(tmp_path, "csv"), person="patient", where={"site": 3}, root=str(tmp_path)).read()
    assert table["person"].tolist() == ["007", "12"]
    with pytest.raises(ValueError, match="no row with"):
        Table("cohort.csv", person="patient", where={"site": 9}, root=str(tmp_path)).read()


def test_an_accession_links_rows_to_images_and_notes(tmp_path):
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 5.0 AS id, 17 AS study, 1.5 AS x) TO '{tmp_path}/t.parquet'")
    table = Table("t.parquet", person="id", accession="study", root=str(tmp_path)).read()
    assert table[["person", "accession", "x"]].iloc[0].tolist() == ["5", "17", 1.5]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "none.csv", "person": "patient"}, FileNotFoundError, "no table at"),
        ({"path": "cohort.csv", "person": "id"}, ValueError, "has no column id .its columns: patient, site"),
        ({"path": "cohort.csv", "person": "patient", "where": {"clinic": 1}}, ValueError, "has no column clinic"),
        ({"path": "all.zip/other.csv", "person": "patient"}, FileNotFoundError, "no item named .other.csv"),
        ({"path": "broken.parquet", "person": "patient"}, ValueError, "broken.parquet is not a table"),
        ({"path": "latin.csv", "person": "patient"}, ValueError, "latin.csv is not a table"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, arguments, error, message):
    write(tmp_path, "zip")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "latin.csv").write_bytes("patient,name\n1,Jos\xe9\n".encode("latin-1"))
    with pytest.raises(error, match=message):
        Table(**arguments, root=str(tmp_path)).read()


@pytest.mark.parametrize("header", ["patient,x,x", "patient,x,X"])
def test_a_name_that_two_columns_have_is_said(tmp_path, header):
    (tmp_path / "t.csv").write_text(f"{header}\n1,2,3\n")
    with pytest.raises(ValueError, match="has two columns called x: rename one"):
        Table("t.csv", person="patient", root=str(tmp_path)).read()


@pytest.mark.parametrize("code", ["010", "1E5", "123456789012345678", "nan", "Infinity"])
def test_codes_that_a_number_would_turn_stay_text(tmp_path, code):
    (tmp_path / "t.csv").write_text(f"patient,code\n1,{code}\n2,12\n3,\n")
    table = Table("t.csv", person="patient", root=str(tmp_path)).read()
    assert table["code"].tolist() == [code, "12", None]
