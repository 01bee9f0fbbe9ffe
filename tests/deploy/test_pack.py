"""`flip site pack`: what output checkers of a trusted research environment get, with nothing of persons in it."""

import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from flip.__main__ import main
from flip.deploy.pack import gaps
from tests.site.test_release import Holding

PERSONS = ("MRN-4711", "MRN-4712")
PURL = re.compile(r"pkg:pypi/[a-z0-9._-]+@\S+")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Holding:
    folder = tmp_path_factory.mktemp("pack") / "marked-path"
    folder.mkdir()
    made = Holding(folder)
    made.holds("results")
    assert made.fault("statistics") is None and made.fault("training") is None
    made.fault("results")
    made.desk("results")
    made.fault("results")
    made.fault("statistics", run="other")
    return made


@pytest.fixture(scope="module")
def pack(hospital: Holding) -> Path:
    out = hospital.folder.parent / "out"
    assert main(["site", "pack", "run", str(out), str(hospital.file)]) == 0
    return out


class Text(HTMLParser):
    """The words of a page, and whether each element that was opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.open = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_every_answer_of_the_run_and_no_other_is_in_the_table_with_its_digest(hospital, pack):
    rows = list(csv.DictReader((pack / "egress.csv").open()))
    entries = [each for each in hospital.entries() if each["run"] == "run"]
    assert [row["digest"] for row in rows] == [each["digest"] for each in entries]
    assert [row["outcome"] for row in rows] == ["answered", "answered", "held", "released", "answered"]
    assert [row["by"] for row in rows] == ["", "", "", "ada", ""]
    assert rows[1]["kinds"].startswith("weights ")


def test_the_page_names_controls_by_who_holds_them_egress_privacy_risks_and_a_checklist(hospital, pack):
    page = Text((pack / "index.html").read_text())
    assert not page.open
    for words in ("The site", "The coordinator", "The network", "Privacy spent", "No attack was run on this study"):
        assert words in page.words
    assert all(each["digest"] in page.words for each in hospital.entries() if each["run"] == "run")
    heads = [head for head, _ in gaps()]
    assert len(heads) > 10 and all(head in page.words for head in heads)
    assert "Nothing leaves that rests on fewer than 5 persons." in page.words


def test_the_crate_describes_each_file_as_it_is(pack):
    crate = json.loads((pack / "ro-crate-metadata.json").read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    graph = {each["@id"]: each for each in crate["@graph"]}
    assert len(graph) == len(crate["@graph"])
    descriptor, root = graph["ro-crate-metadata.json"], graph["./"]
    assert (descriptor["@type"], descriptor["about"]) == ("CreativeWork", {"@id": "./"})
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset" and all(root[key] for key in ("name", "description", "datePublished", "license"))
    assert {root[key]["@id"] for key in ("license", "author", "publisher")} == {"#terms", "#site"} <= {*graph}
    files = {path.name for path in pack.iterdir()} - {"ro-crate-metadata.json"}
    assert {each["@id"] for each in root["hasPart"]} == files
    for name in files:
        assert graph[name]["@type"] == "File"
        assert graph[name]["identifier"] == f"sha256:{hashlib.sha256((pack / name).read_bytes()).hexdigest()}"


def test_the_components_are_a_cyclonedx_document_of_what_is_installed(pack):
    """The rules of bom-1.6.schema.json for the keys that are used."""
    bom = json.loads((pack / "components.cdx.json").read_text())
    assert {*bom} == {"bomFormat", "specVersion", "serialNumber", "version", "metadata", "components"}
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bom["serialNumber"])
    listed = bom["components"]
    assert all({"type", "name"} <= {*each} <= {"type", "bom-ref", "name", "version", "purl"} for each in listed)
    assert len({each["bom-ref"] for each in listed}) == len(listed)
    assert all(PURL.fullmatch(each["purl"]) for each in listed if each["type"] == "library")
    assert {"torch", "cryptography", "python"} <= {each["name"] for each in listed}


def test_the_validator_of_owasp_takes_the_components(pack):
    text = (pack / "components.cdx.json").read_text()
    check = JsonStrictValidator(SchemaVersion.V1_6).validate_str
    assert check(text) is None and check(text.replace('"purl"', '"url"', 1)) is not None


def test_nothing_of_persons_and_no_path_of_the_site_is_in_it(hospital, tmp_path):
    listed = tmp_path / "withdrawn-list.txt"
    listed.write_text("\n".join(PERSONS))
    file = hospital.file
    before = file.read_text()
    file.write_text(before.replace("person: row", "person: MARKED_COLUMN") + f"opt_out: {listed}\n")
    assert main(["site", "pack", "run", str(tmp_path / "out"), str(file)]) == 0
    file.write_text(before)
    marks = ["marked-path", "processed.cleveland", "withdrawn-list", "MARKED_COLUMN", *PERSONS, str(tmp_path)]
    data = (hospital.folder / "data" / "uci_heart" / "processed.cleveland.data").read_text().splitlines()
    cohorts = [path.name for path in (hospital.silo.home / "persons").glob("*")]
    for path in (tmp_path / "out").iterdir():
        text = path.read_text()
        assert [mark for mark in [*marks, *data, *cohorts] if mark in text] == []


def test_a_run_that_the_site_was_never_asked_and_a_journal_that_was_changed_give_no_folder(hospital, tmp_path, capsys):
    assert main(["site", "pack", "unknown", str(tmp_path / "out"), str(hospital.file)]) == 2
    assert "has no task of this run" in capsys.readouterr().err
    journal = hospital.silo.home / "journal.jsonl"
    before = journal.read_text()
    journal.write_text(before.replace('"fit"', '"fat"', 1))
    assert main(["site", "pack", "run", str(tmp_path / "out"), str(hospital.file)]) == 2
    assert "cannot be vouched for" in capsys.readouterr().err
    journal.write_text(before)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_written_over(hospital, pack, capsys):
    assert main(["site", "pack", "run", str(pack), str(hospital.file)]) == 2
    assert "is there already" in capsys.readouterr().err
