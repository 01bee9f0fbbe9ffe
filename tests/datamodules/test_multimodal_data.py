"""Any subset of image, table and notes as one batch; what is missing is masked, and by its missing tells nothing."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import RandFlip
from PIL import Image

from datamodules.cohort import COPY, NO_PERSON
from datamodules.dicom import Reason
from datamodules.images import UNREADABLE, Images
from datamodules.multimodal import Multimodal
from datamodules.npz import NPZ
from datamodules.records import Records
from datamodules.remarks import GARBLED, NOTHING, OTHER_LEVEL
from datamodules.splits import SPLITS, ByColumn, ByPerson, Dirichlet
from datamodules.tabular import Tabular
from datamodules.targets import Bands, Binary, Levels, MultiClass
from datamodules.text import HashedText
from tests.datamodules.suite import DataModuleSuite
from tests.datamodules.test_radiograph import ORIENTATIONS, write_radiograph

FIELDS = ["pid", "acc", "age", "sex", "note", "dx"]


def write_cohort(folder: Path, persons: int = 30) -> Path:
    """Two rows a person; a picture for every second row, a note for every third."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(2)
    with (folder / "cohort.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(FIELDS)
        for row in range(2 * persons):
            person, ill = row // 2, row // 2 % 3 == 0
            note = ("lesion that bleeds" if ill else "quiet mole") if row % 3 == 0 else ""
            table.writerow([f"p{person}", f"a{row}.png", 40 + person, "FM"[person % 2], note, "MEL" if ill else "NEV"])
            if row % 2 == 0:
                pixels = rng.integers(0, 100, (12, 10, 3)) + 100 * ill
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"a{row}.png")
    return folder


def parts() -> dict:
    return {
        "image": Images([8, 8], 3, transforms=[RandFlip(prob=0.5, spatial_axis=1)]),
        "tabular": Tabular(["age"], {"sex": 2}),
        "text": HashedText("note", buckets=64, length=6),
    }


def dataset(root: Path, **arguments) -> Multimodal:
    declared = {
        "target": Binary("dx", ["MEL"], ["NEV"]), "records": Records(person="pid", accession="acc"), "batch_size": 8,
        "subgroups": {"sex": Levels("sex", ["F", "M"]), "age": Bands("age", [50, 60])}, **parts(),
    }  # fmt: skip
    return Multimodal(str(root), **{**declared, **arguments})


def whole(loader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


class TestContract(DataModuleSuite):
    @pytest.fixture
    def make(self, tmp_path):
        folder = write_cohort(tmp_path / "cohort")
        return lambda **arguments: dataset(**{"root": folder, **arguments})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "site")


def test_a_batch_holds_the_declared_keys_shapes_and_types(cohort):
    batch = next(iter(dataset(cohort).train_dataloader()))
    assert {key: (tuple(value.shape[1:]), value.dtype) for key, value in batch.items()} == {
        "image": ((3, 8, 8), torch.float32), "image_present": ((), torch.float32),
        "tabular": ((3,), torch.float32), "tabular_present": ((), torch.float32),
        "text": ((6,), torch.int64), "text_weight": ((6,), torch.float32), "text_present": ((), torch.float32),
        "label": ((), torch.float32), "subgroup_sex": ((), torch.int64), "subgroup_age": ((), torch.int64),
        "person": ((), torch.int64),
    }  # fmt: skip


@pytest.mark.parametrize("kept", [("image",), ("tabular",), ("text",), ("image", "text")])
def test_any_subset_of_the_parts_can_be_declared(cohort, kept):
    left_out = {name: None for name in parts() if name not in kept}
    batch = next(iter(dataset(cohort, **left_out).test_dataloader()))
    assert {key.split("_")[0] for key in batch if key.endswith("_present")} == set(kept)


def test_missing_parts_are_masked_and_their_rows_are_kept(cohort):
    data = dataset(cohort, trains=False)
    batch = whole(data.test_dataloader())
    assert len(batch["label"]) == 60 and data.skipped == {}
    assert batch["image_present"].tolist() == [1, 0] * 30 and not batch["image"][1::2].any()
    assert batch["text_present"].tolist() == [1, 0, 0] * 20 and not batch["text"][1::3].any()


def test_no_person_is_in_two_splits(cohort):
    data = dataset(cohort)
    data.setup()
    splits = pd.Series(data._splits).groupby(data._read().person).nunique()
    assert len(splits) == 30 and (splits == 1).all() and sum(len(data.whose(split)) for split in SPLITS) == 60


def test_a_whole_batch_is_the_same_as_its_rows_one_by_one(cohort):
    rows = dataset(cohort, trains=False).test_dataloader().dataset
    batch = rows.__getitems__([3, 0, 5])
    assert all(torch.equal(value, torch.stack([rows[i][key] for i in (3, 0, 5)])) for key, value in batch.items())


def test_training_images_are_augmented_and_test_images_are_not(cohort):
    data = dataset(cohort, split=ByPerson(0.5, 0.0))
    train, test = data.train_dataloader().dataset, data.test_dataloader().dataset
    assert len({train[0]["image"].numpy().tobytes() for _ in range(20)}) == 2
    assert len({test[0]["image"].numpy().tobytes() for _ in range(20)}) == 1


def test_images_beyond_the_memory_bound_are_the_same_from_disk(cohort):
    in_memory, on_disk = (
        whole(dataset(cohort, trains=False, image=Images([8, 8], 3, memory_mb=bound)).test_dataloader())["image"]
        for bound in (64, 0)
    )
    assert torch.equal(in_memory, on_disk) and in_memory.any()


def test_rows_without_person_or_target_are_left_out_and_counted(tmp_path):
    folder = write_cohort(tmp_path / "site")
    with (folder / "cohort.csv").open("a") as file:
        file.write("p90,x,50,F,,\n,x,50,F,,MEL\np91,x,50,F,,UNK\n")
    data = dataset(
        folder, target=MultiClass("dx", ["NEV", "MEL"]), records=Records(person="pid", accession="acc", missing=["UNK"])
    )
    data.setup()
    assert data.skipped == {"what the study predicts is missing": 2, NO_PERSON: 1}
    assert set(data.skipped) <= Multimodal.REASONS


def test_a_person_who_is_written_as_a_float_in_some_rows_is_one_person(tmp_path):
    """As pandas writes whole numbers where a value is missing: one person would be in two splits."""
    path = write_cohort(tmp_path) / "cohort.csv"
    lines = [line.removeprefix("p") for line in path.read_text().splitlines()[1:]]
    lines[::2] = [line.replace(",", ".0,", 1) for line in lines[::2]]
    path.write_text("\n".join([",".join(FIELDS), *lines]) + "\n")
    data = dataset(tmp_path)
    assert data.persons() == 30
    assert not set(data.whose("train")) & set(data.whose("test"))


def test_an_image_may_be_named_as_a_float_is_written(tmp_path):
    path = write_cohort(tmp_path, 10) / "cohort.csv"
    path.write_text(path.read_text().replace("a0.png", "7.0"))
    (tmp_path / "images" / "a0.png").rename(tmp_path / "images" / "7.0.png")
    data = dataset(tmp_path)
    data.setup()
    assert [*data.remarks.values()] == [10]


def test_a_copied_row_is_left_out_and_counted(tmp_path):
    folder = write_cohort(tmp_path / "site")
    whole_table = (folder / "cohort.csv").read_text()
    (folder / "cohort.csv").write_text(whole_table + whole_table.splitlines()[2] + "\n")
    data, alone = dataset(folder), dataset(write_cohort(tmp_path / "other"))
    data.setup()
    alone.setup()
    assert data.skipped == data.skipped_persons == {COPY: 1} and COPY in Multimodal.REASONS and not alone.skipped
    assert [len(data.whose(split)) for split in SPLITS] == [len(alone.whose(split)) for split in SPLITS]


def test_rows_of_one_accession_that_differ_are_refused(tmp_path):
    folder = write_cohort(tmp_path / "site")
    cells = (folder / "cohort.csv").read_text().splitlines()[1].split(",")
    with (folder / "cohort.csv").open("a") as file:
        file.write(",".join([*cells[:2], "99", *cells[3:]]) + "\n")
    with pytest.raises(ValueError, match="1 row with the accession of another row and other values"):
        dataset(folder).setup()


def test_a_category_that_is_not_declared_is_counted_and_named_at_the_site(tmp_path):
    data = dataset(write_cohort(tmp_path / "site"), tabular=Tabular(["age"], {"sex": ["F"]}))
    data.setup()
    assert data.remarks[OTHER_LEVEL] > 0 and OTHER_LEVEL in Multimodal.REMARKS
    assert any("column sex has levels 'M'" in line for line in data.remarks_in_words)


def in_words(root: Path) -> Path:
    """The cohort with the sexes written as words."""
    path = write_cohort(root) / "cohort.csv"
    path.write_text(path.read_text().replace(",F,", ",female,").replace(",M,", ",male,"))
    return root


def test_a_site_that_writes_a_category_otherwise_is_named_before_anything_is_trained(tmp_path):
    """All of its values would be drawn at random."""
    used = {"image": None, "text": None, "subgroups": {}}
    sites = {"a": dataset(write_cohort(tmp_path / "a", 40), **used), "b": dataset(in_words(tmp_path / "b"), **used)}
    told = {site: data.statistics() for site, data in sites.items()}
    (sentence,) = sites["a"].unlearnable(told)
    assert sentence.startswith("b has none of the 2 levels of sex that most persons have")
    assert "columns: {sex: {values: {own: declared}}}" in sentence
    assert not sites["a"].unlearnable({"a": told["a"], "c": told["a"]})
    four = dataset(tmp_path / "a", **{**used, "tabular": Tabular(["age"], {"sex": 4})})
    assert not four.unlearnable(told)


def test_a_tested_site_that_writes_a_category_otherwise_is_refused(tmp_path):
    used = {"image": None, "text": None, "subgroups": {}}
    tested = dataset(in_words(tmp_path / "b"), **used, trains=False)
    with pytest.raises(ValueError, match=r"column sex holds 2 levels, of which none is among .* \(F, M\)"):
        tested.agree(dataset(write_cohort(tmp_path / "a"), **used).statistics())
    declared = dataset(tmp_path / "b", **{**used, "tabular": Tabular(["age"], {"sex": ["F", "M"]})})
    with pytest.raises(ValueError, match="column sex holds 2 levels"):
        declared.setup()


@pytest.mark.parametrize("used", [{"tabular": Tabular(["age"])}, {"subgroups": {"age": Bands("age", [50])}}])
def test_text_among_numbers_ends_the_reading_by_column_count_and_remedy(used, tmp_path):
    write_cohort(tmp_path)
    table = (tmp_path / "cohort.csv").read_text()
    (tmp_path / "cohort.csv").write_text(table.replace(",45,", ",<45,"))
    with pytest.raises(ValueError, match="column age holds text that is not a number, 2 times; name it in"):
        dataset(tmp_path, **{"tabular": Tabular([], {"sex": 2}), "subgroups": {}, **used}).setup()


def test_a_site_with_nothing_to_predict_from_is_refused_and_single_rows_are_counted(tmp_path):
    write_cohort(tmp_path)
    notes = {"image": None, "tabular": None, "subgroups": {}}
    some = dataset(tmp_path, **notes)
    some.setup()
    assert some.remarks[NOTHING] == 40  # a note for every third row
    table = pd.read_csv(tmp_path / "cohort.csv", dtype=str).assign(note="")
    table.to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(ValueError, match=r"no row has anything to predict from \(note\)"):
        dataset(tmp_path, **notes).setup()


def test_of_several_inputs_it_is_known_which_a_row_has(cohort):
    found = dataset(cohort, labeled=False).row_inputs("test")
    assert found[:4] == ["image tabular text", "tabular", "image tabular", "tabular text"]
    assert dataset(cohort, image=None, text=None, labeled=False).row_inputs("test") == []


@pytest.mark.parametrize(("note", "number"), [("\u00c3\u00a9t\u00e9", 60), ("caf\ufffd", 60), ("\u00e9t\u00e9", 0)])
def test_notes_of_a_wrong_encoding_are_counted(note, number, tmp_path):
    write_cohort(tmp_path)
    table = pd.read_csv(tmp_path / "cohort.csv", dtype=str).assign(note=note)
    table.to_csv(tmp_path / "cohort.csv", index=False)
    found = dataset(tmp_path, image=None)
    found.setup()
    assert found.remarks.get(GARBLED, 0) == number


def test_a_note_without_a_word_is_none():
    assert HashedText("note").read(pd.Series(["word", "...", "", None], dtype=object))[1:] == [None] * 3


@pytest.mark.parametrize("same", [True, False])
def test_notes_of_which_none_is_of_a_row_are_refused(same, tmp_path):
    class Notes:
        def read(self) -> pd.DataFrame:
            return pd.DataFrame({"person": [f"{'p' if same else 'P-'}{each}" for each in range(5)], "text": "a note"})

    records = Records(person="pid")
    data = dataset(write_cohort(tmp_path / "site"), sources={"notes": Notes()}, image=None, records=records)
    if same:
        data.setup()
    else:
        with pytest.raises(ValueError, match="none of the notes of 5 is of a row of the table"):
            data.setup()


def test_a_damaged_image_counts_as_missing(tmp_path):
    folder = write_cohort(tmp_path / "site")
    (folder / "images" / "a0.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    data = dataset(folder, trains=False)
    assert whole(data.test_dataloader())["image_present"][:3].tolist() == [0, 0, 1]
    assert (
        data.remarks
        == data.remarks_persons
        == {
            UNREADABLE + Reason.CORRUPT.value: 1,
            UNREADABLE + Reason.NO_IMAGE.value: 30,
        }
    )


def test_an_archive_of_images_and_labels_needs_no_table(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 255, (n, 6, 6), np.uint8) for split, n in (("train", 20), ("test", 8))}
    labels = {f"{split}_labels": np.arange(n)[:, None] % 2 for split, n in (("train", 20), ("test", 8))}
    np.savez(tmp_path / "set.npz", **arrays, **labels)
    data = Multimodal(
        str(tmp_path / "set.npz"), target=Binary("label", [1]), image=Images([6, 6]), split=ByColumn("split"),
    )  # fmt: skip
    assert [len(data.whose(split)) for split in SPLITS] == [20, 0, 8]
    batch = whole(data.test_dataloader())
    assert batch["label"].tolist() == [0, 1] * 4
    expected = (arrays["test_images"][:, None] / 255 - 0.5) / 0.25
    assert batch["image"].numpy() == pytest.approx(expected, abs=2e-3)  # kept as float16


def test_the_parts_of_a_shared_cohort_are_disjoint_and_together_all_of_it(cohort):
    sites = [dataset(cohort, image=None, part=part, partition=Dirichlet(3, 1.0, minimum=4)) for part in range(3)]
    assert sum(site.persons() for site in sites) == 30
    assert sum(len(site.whose(split)) for site in sites for split in SPLITS) == 60


def test_radiographs_of_all_orientations_are_one_picture(tmp_path):
    film = np.arange(48, dtype=np.uint16).reshape(8, 6) * 5
    rows = ["acc,dx"]
    (tmp_path / "images").mkdir()
    for number, (says, turned) in enumerate(ORIENTATIONS.items()):
        write_radiograph(tmp_path / "images" / f"{number}.dcm", turned(film), PatientOrientation=list(says))
        rows.append(f"{number},{number % 2}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    data = Multimodal(
        str(tmp_path), trains=False, records=Records(accession="acc"), target=Binary("dx", [1]), image=Images([8, 6]),
    )  # fmt: skip
    images = whole(data.test_dataloader())["image"]
    assert len(images) == 8 and torch.equal(images, images[:1].expand(8, -1, -1, -1)) and images.std() > 0.5


def test_other_data_have_another_fingerprint(tmp_path):
    prints = []
    for number in range(4):
        folder = write_cohort(tmp_path / str(number))
        if number == 2:
            (folder / "cohort.csv").write_text((folder / "cohort.csv").read_text().replace("p3,", "p31,"))
        if number == 3:
            Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(folder / "images" / "a0.png")
        prints.append(dataset(folder).fingerprint()["data"].tobytes())
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_a_volume_has_its_three_axes_and_its_window(tmp_path):
    (tmp_path / "images").mkdir()
    voxels = np.full((10, 12, 6), -1000, np.int16)  # to the patient's left, to the front, to the head
    voxels[:5] = 40  # the patient's right half is soft tissue
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1])), tmp_path / "images" / "a.nii.gz")
    (tmp_path / "cohort.csv").write_text("acc,dx\na.nii.gz,1\n")
    image = Images([6, 5, 3], window=[-160, 240], mean=0, deviation=1)
    data = Multimodal(
        str(tmp_path), trains=False, records=Records(accession="acc"), target=Binary("dx", [1]), image=image
    )
    (volume,) = whole(data.test_dataloader())["image"]
    assert volume.shape == (1, 6, 5, 3)
    assert volume[0, :, 0].unique().tolist() == [0.5] and volume[0, :, -1].unique().tolist() == [0]


class Notes:
    """A source of notes, as those of datamodules.sources."""

    def read(self) -> pd.DataFrame:
        return pd.DataFrame({"person": ["1", "2", "1"], "text": ["first note", "another", "second note"]})


class Table:
    """A source of a table with the site's own names."""

    def read(self) -> pd.DataFrame:
        return pd.DataFrame({"person": [1, 2, 3], "AGE_M": [480, 600, 720], "dead": [True, False, None]})


def test_a_site_takes_its_table_and_notes_from_sources_and_converts_its_columns(tmp_path):
    data = Multimodal(
        str(tmp_path), columns={"age": {"name": "AGE_M", "factor": 1 / 12}}, trains=False,
        records=Records(person="pid"), sources={"table": Table(), "notes": Notes()}, target=Binary("dead", [True]),
        tabular=Tabular(["age"]), text=HashedText(buckets=64, length=8),
    )  # fmt: skip
    data.setup()
    assert data._read().table["age"].tolist() == [40, 50]  # one is not known to be dead or alive
    assert whole(data.test_dataloader())["text_present"].tolist() == [1, 1]
    assert data._read().table["text"].tolist() == ["first note\nsecond note", "another"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": None, "tabular": None, "text": None}, "has nothing to predict from"),
        ({"part": 1}, "is of a cohort that dataset.partition parts"),
        ({"columns": {"agee": "AGE"}}, "columns.agee: the study declares no such column"),
        ({"columns": {"age": "AGE"}}, "the table has no column AGE"),
        ({"records": Records("other.csv")}, "no table at"),
        ({"image": Images([8, 8], folder="scans")}, "no folder of images"),
        ({"image": Images([8, 8, 8])}, "none of 60 images could be read"),
        ({"target": MultiClass("dx", ["a", "b"])}, "no row can be used: what the study predicts is outside"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(cohort, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataset(cohort, **arguments).setup()


def test_an_archive_without_labels_is_named(tmp_path):
    np.savez(tmp_path / "set.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="has no array train_labels"):
        NPZ("set.npz", root=str(tmp_path)).read()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.savez(path, images=np.zeros((5, 4, 4), np.uint8), labels=np.zeros(8)), "5 images .* 8 labels"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "not an archive of arrays"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "holds one array"),
        (lambda path: path.write_bytes(b""), "not an archive of arrays"),
    ],
)
def test_an_archive_that_does_not_hold_an_image_for_each_label_is_named(write, message, tmp_path):
    write(tmp_path / "set.npz")
    with pytest.raises(ValueError, match=message):
        NPZ("set.npz", root=str(tmp_path)).read()
