"""`job=predict` of a segmentation: a mask of each study without labels on its image's own grid, and its volumes."""

import shutil
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from datamodules.dicom import read_series
from datamodules.labels import read_labels
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.intensity import Range
from datamodules.segmentation.patching import Patching
from datamodules.segmentation_images import SegmentationImages
from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.messages.model_file import load_model
from models.body_composition.source_headers import TAKEN_OVER
from models.body_composition.whole_scans import file_name
from models.masks import write_masks
from tests.conf.test_segmentation_study import STUDY
from tests.datamodules.ct_files import body as series
from tests.datamodules.ct_files import save, slices_of
from tests.datamodules.segmentation_sites import AFFINE, SHAPE, SPACING, body, nifti, pictures, site, table
from tests.studies import compose_study

BRIGHT = 50  # HU, or gray levels, above which `marked` says 1


def unlabeled(root: Path, image: Volumes | Pictures, intensity: Range) -> SegmentationImages:
    """A folder without labels."""
    size = Patching([8] * image.dimensions)
    return SegmentationImages(
        str(root), structures=["bright"], intensity=intensity, image=image, patches=size, labeled=False
    )


def marked(data: SegmentationImages, folder: Path, above: float) -> pd.DataFrame:
    """What is written of the voxels above a value that the network sees, and the table of it."""
    write_masks(
        data, folder, structures=["bright"], apply=lambda batch: (batch["image"][0, 0] > above).short(), digest="ab"
    )
    return pd.read_csv(folder / "predictions.csv").set_index("accession")


def hu(spacing: tuple[float, ...], orientation: str) -> tuple[Volumes, Range]:
    return Volumes(spacing, orientation), Range(-1000, 1000)


@pytest.mark.parametrize(("orientation", "order"), [("RAS", (0, 1, 2)), ("SPL", (2, 1, 0)), ("PIR", (1, 2, 0))])
@pytest.mark.parametrize("stored", ["LAS", "PSR"])
def test_a_nifti_has_a_mask_on_its_own_axes(tmp_path, orientation, order, stored):
    turn = nib.orientations.ornt_transform(*(nib.orientations.axcodes2ornt(tuple(each)) for each in ("LAS", stored)))
    image = nib.Nifti1Image(body(), AFFINE).as_reoriented(turn)
    (tmp_path / "images").mkdir()
    nib.save(image, tmp_path / "images" / "A.nii")
    spacing = tuple(SPACING[axis] for axis in order)
    found = marked(unlabeled(table(tmp_path, ["A"]), *hu(spacing, orientation)), tmp_path / "out", BRIGHT / 1000)
    mask, wanted = nib.load(tmp_path / "out" / "masks" / "A.nii.gz"), np.asarray(image.dataobj) > BRIGHT
    np.testing.assert_allclose(mask.affine, image.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), wanted)
    assert found.loc["A", "bright_ml"] == pytest.approx(wanted.sum() * np.prod(SPACING) / 1000, rel=1e-4)


def test_accessions_that_are_long_have_files_of_their_own(tmp_path):
    names = ["Ä" * 81 + end for end in "ab"]  # six bytes a letter where it is quoted
    assert len({file_name(each) for each in names}) == 2
    for each in (*names, "plain"):
        (tmp_path / f"{file_name(each)}.nii.gz.part").touch()  # which a disk takes
    assert file_name("A/1") == "A%2F1"


@pytest.mark.parametrize("turn", [{}, {"transpose": True}, {"flip_rows": True, "flip_columns": True}])
def test_a_series_has_a_segmentation_that_opens_on_it(tmp_path, turn):
    source = save(tmp_path / "images" / "A", slices_of(series(), **turn))
    volume = read_series(source)
    above = float(np.median(volume.voxels))
    grid = hu(tuple(volume.spacing), "SPL")
    found = marked(unlabeled(table(tmp_path, ["A"]), *grid), tmp_path / "out", above / 1000)
    assert found.loc["A", "mask"] == "masks/A.dcm"
    wanted = np.clip(volume.voxels, -1000, 1000) / 1000 > np.float32(above / 1000)
    assert wanted.any() and not wanted.all()
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "masks" / "A.dcm", volume)["bright"], wanted)


def without(*keywords):
    """Slices whose headers lack these."""
    slices = slices_of(series())
    for each in slices:
        for keyword in keywords:
            if keyword in each:
                delattr(each, keyword)
    return slices


def test_a_series_whose_headers_were_emptied_has_its_segmentation_and_one_without_a_place_says_why(tmp_path):
    emptied = [*TAKEN_OVER, "SliceThickness"]
    volume = read_series(save(tmp_path / "images" / "A", without(*emptied)))
    save(tmp_path / "images" / "B", without(*emptied, "FrameOfReferenceUID"))
    data = unlabeled(table(tmp_path, ["A", "B"]), *hu(tuple(volume.spacing), "SPL"))
    found = marked(data, tmp_path / "out", float(np.median(volume.voxels)) / 1000)
    assert read_labels(tmp_path / "out" / "masks" / "A.dcm", volume)["bright"].any()
    assert "FrameOfReferenceUID" in found.loc["B", "reason"]
    assert pd.isna(found.loc["B", "mask"])


def test_a_series_in_which_nothing_is_found_has_volumes_of_0_and_no_segmentation(tmp_path):
    volume = read_series(save(tmp_path / "images" / "A", slices_of(series())))
    found = marked(unlabeled(table(tmp_path, ["A"]), *hu(tuple(volume.spacing), "SPL")), tmp_path / "out", 2.0)
    assert (found.loc["A", "bright_ml"], found["mask"].isna().all(), found["reason"].isna().all()) == (0.0, True, True)
    assert not (tmp_path / "out" / "masks").exists()


def test_of_a_picture_the_mask_has_its_pixels(tmp_path):
    root = pictures(tmp_path / "site", 2)
    shutil.rmtree(root / "labels")
    found = marked(unlabeled(root, Pictures(), Range(0, 255)), tmp_path / "out", 0.0)
    wanted = np.array(Image.open(root / "images" / "A1.png")) > 127
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "masks" / "A1.png")), wanted)
    assert found.loc["A1", "bright_pixels"] == wanted.sum()


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A hospital's folder of three scans without labels, one unread; what the engine writes there; the digest."""
    folder = tmp_path_factory.mktemp("masks")
    for name in ("north", "south"):
        path = folder / "conf" / "sites" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        root = site(folder / name, 8)
        path.write_text(
            f"# @package sites.{name}\n{{root: {root}, policy: public_data, columns: {{liver: 1, spleen: 6}}}}\n"
        )
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "abdomen.yaml").write_text(STUDY)
    words, conf = ["experiment=abdomen", "trainer.epochs=1", "strategy.rounds=1"], folder / "conf"
    assert execute(compose_study(*words, config_dir=conf), folder / "run")["status"] == "ok"
    model = load_model(folder / "run")
    root = table(folder / "new", ["X", "Y", "Z"])
    for number, name in enumerate("XY"):
        nifti(root / "images" / f"{name}.nii.gz", body(number))
    policy = {"minimum_persons": 20, "minimum_cell": 5, "models": [model.whole_digest]}
    own = folder / "own.yaml"
    own.write_text(yaml.safe_dump({"root": str(root), "policy": policy}))
    words += ["federation=none", "job=predict", f"model_from={folder / 'run'}", f"site_file={own}"]
    study = compose_study(*words, config_dir=conf)
    check(study)
    result = execute(study, folder / "out")
    assert result["status"] == "ok", result
    return root, folder / "out" / "sites" / "own", model.digest


@pytest.mark.slow
def test_a_hospital_gets_masks_on_its_scans_grid_without_a_label(predicted):
    root, out, digest = predicted
    found = pd.read_csv(out / "predictions.csv").set_index("accession")
    for name in "XY":
        mask, image = nib.load(out / found.loc[name, "mask"]), nib.load(root / "images" / f"{name}.nii.gz")
        assert mask.shape == SHAPE and np.array_equal(mask.affine, image.affine)
        voxels = int((np.asarray(mask.dataobj) == 1).sum())
        assert found.loc[name, "liver_ml"] == pytest.approx(voxels * np.prod(SPACING) / 1000, rel=1e-4)
    assert found["model"].tolist() == [digest] * 3 and found["person"].tolist() == ["P0", "P1", "P2"]


@pytest.mark.slow
def test_why_a_study_has_no_mask_is_said_in_its_line_and_in_the_sites_log(predicted):
    _, out, _ = predicted
    found = pd.read_csv(out / "predictions.csv").set_index("accession")
    assert found["reason"].isna().tolist() == [True, True, False] and np.isnan(found.loc["Z", "liver_ml"])
    assert f"1 not predicted: {found.loc['Z', 'reason']}" in (out / "site.log").read_text()


@pytest.mark.slow
def test_the_owner_alone_reads_what_is_predicted(predicted):
    _, out, _ = predicted
    files = [out / "predictions.csv", *(out / "masks").iterdir()]
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o600] * 3
