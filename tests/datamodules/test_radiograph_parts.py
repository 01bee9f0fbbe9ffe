"""Which film of a study: of the body part that the study declares, and said where only a number tells it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset

from datamodules.dicom import Reason, Unreadable
from datamodules.dicom.radiograph import chosen_film
from datamodules.dicom.remarks import Remark
from datamodules.images import Images
from datamodules.multimodal import Multimodal
from datamodules.records import Records
from datamodules.targets import Binary
from tests.datamodules.test_radiograph import FILM, read, write_radiograph

CHEST = ["CHEST", "THORAX"]
NEGATIVE = FILM.max() - FILM
RIGHT = pytest.approx(FILM / FILM.max())


def region(meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = "1", "SCT", meaning
    return made


def refused(path: Path, **options: object) -> Reason:
    with pytest.raises(Unreadable) as why:
        read(path, **options)
    return why.value.reason


@pytest.mark.parametrize(
    "chest",
    [
        {"BodyPartExamined": "CHEST"},
        {"BodyPartExamined": "THORAX PA"},
        {"AnatomicRegionSequence": [region("Chest")]},
        {},
    ],
    ids=["word", "words", "code", "nothing"],
)
@pytest.mark.parametrize("hand", [{"BodyPartExamined": "HAND"}, {"AnatomicRegionSequence": [region("Hand")]}])
def test_a_hand_beside_a_chest_is_not_read(chest, hand, tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, InstanceNumber=1, **hand)
    assert refused(tmp_path, body_part=CHEST) is Reason.NO_SUCH_PART
    assert refused(tmp_path / "a.dcm", body_part=CHEST) is Reason.NO_SUCH_PART
    write_radiograph(tmp_path / "b.dcm", FILM, InstanceNumber=2, **chest)
    assert read(tmp_path, body_part=CHEST) == RIGHT


def test_a_film_of_the_part_goes_before_one_that_does_not_say(tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, InstanceNumber=1)
    write_radiograph(tmp_path / "b.dcm", FILM, InstanceNumber=2, BodyPartExamined="CHEST", ViewPosition="AP")
    assert read(tmp_path, body_part=CHEST) == RIGHT


def test_films_of_several_parts_need_a_declared_one(tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, BodyPartExamined="HAND")
    write_radiograph(tmp_path / "b.dcm", FILM, BodyPartExamined="CHEST")
    assert refused(tmp_path) is Reason.SEVERAL_PARTS
    assert read(tmp_path, body_part=["hand"]) == pytest.approx(NEGATIVE / FILM.max())


@pytest.mark.parametrize(
    ("second", "remarked"),
    [({}, True), ({"InstanceNumber": None}, True), ({"ViewPosition": "AP"}, False), ({"SOPInstanceUID": "1.2"}, False)],
    ids=["another", "no number", "AP after PA", "a copy"],
)
def test_a_film_that_only_its_number_chose_is_remarked(second, remarked, tmp_path):
    first: dict[str, Any] = {"SOPInstanceUID": "1.2"} if "SOPInstanceUID" in second else {}
    write_radiograph(tmp_path / "a.dcm", FILM, InstanceNumber=1, **first)
    write_radiograph(tmp_path / "b.dcm", NEGATIVE, **{"InstanceNumber": 2, **second})
    assert chosen_film(tmp_path)[1] == ({Remark.FIRST_FILM: 1} if remarked else {})


def test_the_choice_is_counted_and_named_at_the_site(tmp_path):
    for study in ("s1", "s2"):
        (tmp_path / "images" / study).mkdir(parents=True)
        write_radiograph(tmp_path / "images" / study / "a.dcm", FILM, InstanceNumber=1)
    write_radiograph(tmp_path / "images" / "s1" / "b.dcm", NEGATIVE, InstanceNumber=2)
    pd.DataFrame({"acc": ["s1", "s2"], "dx": [0, 1]}).to_csv(tmp_path / "cohort.csv", index=False)
    records = Records(accession="acc")
    data = Multimodal(str(tmp_path), trains=False, target=Binary("dx", [1]), image=Images([6, 4]), records=records)
    data.setup()
    assert data.remarks == data.remarks_persons == {Remark.FIRST_FILM.value: 1}
    assert set(data.remarks) <= data.REMARKS and any(
        line.startswith("s1: several films") for line in data.remarks_in_words
    )
    assert np.isfinite(data._pixels.kept).all()


@pytest.mark.parametrize("part", ["CHEST", []])
def test_a_part_is_a_list_of_words(part):
    with pytest.raises(ValueError, match=r"dataset\.image\.body_part"):
        Images([8, 8], body_part=part)
