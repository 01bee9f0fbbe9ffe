"""What counts as a whole study, however a PACS sends it."""

import pytest

from datamodules.sources.pacs import PACS, Series


class Archive(PACS):
    """An archive that lists and sends what a test says."""

    def __init__(self, folder, listed, sent, number="", *, address="archive", persons=("p",)):
        super().__init__(address, "cache", 1, "CT", None, str(folder))
        self.listed, self.sent, self.number, self.persons = listed, sent, number, persons

    def _studies(self, query):
        studies = [(name, person) for name in ("A", "AB") for person in self.persons]
        return [{"AccessionNumber": name, "PatientID": person, "StudyInstanceUID": "1"} for name, person in studies]

    def _series(self, study):
        return [Series(study, "1.1", dict.fromkeys(self.listed, "ct"), self.number)]

    def _retrieve(self, series, store):
        for uid in self.sent:
            store(uid, uid.encode())


def test_an_image_that_does_not_arrive_is_counted_and_nothing_kept(tmp_path):
    with pytest.raises(ValueError, match="1 of the 3 images of accession A did not arrive"):
        Archive(tmp_path, ["1", "2", "3"], ["1", "3", "3"]).open("A")
    assert not list(tmp_path.glob("cache/*/files"))


def test_a_list_shorter_than_the_pacs_says_is_not_the_whole_series(tmp_path):
    with pytest.raises(ValueError, match="lists 2 of the 9 images"):
        Archive(tmp_path, ["1", "2"], ["1", "2"], number="9").open("A")


def test_what_nobody_asked_for_is_not_stored(tmp_path):
    folder = Archive(tmp_path, ["1"], ["2", "../../1", "1", "1"]).open("A")
    assert [file.name for file in folder.iterdir()] == ["1.dcm"]
    with pytest.raises(ValueError, match="did not arrive"):
        Archive(tmp_path, ["../1"], ["../1"]).open("AB")


def test_archives_that_share_a_cache_do_not_share_accessions(tmp_path):
    one = Archive(tmp_path, ["1"], ["1"], address="one").open("A")
    other = Archive(tmp_path, ["2"], ["2"], address="other").open("A")
    assert [[file.name for file in folder.iterdir()] for folder in (one, other)] == [["1.dcm"], ["2.dcm"]]


def test_an_accession_of_several_patients_is_nobodys(tmp_path):
    with pytest.raises(ValueError, match="more than one PatientID"):
        Archive(tmp_path, ["1"], ["1"], persons=("p", "q")).open("A")
