"""A study of volumes declared in YAML alone: NIfTI files and a table at two hospitals, a 3D encoder, a finished run."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from flip.cli.execute import execute
from tests.studies import compose_study

PERSONS = 40
DATASET = """
_target_: datamodules.multimodal.Multimodal
records: {_target_: datamodules.records.Records, person: pid, accession: scan}
target: {_target_: datamodules.targets.Binary, column: tumor, positive: ["yes"]}
tabular: {_target_: datamodules.tabular.Tabular, numeric: [age]}
image:
  _target_: datamodules.images.Images
  size: [12, 12, 8]
  channels: 1
  folder: scans
  window: [-100, 300]
  mean: 0.25
  deviation: 0.1
  transforms: [{_target_: monai.transforms.RandFlip, prob: 0.5, spatial_axis: 2}]
split: {_target_: datamodules.splits.ByPerson, train: 0.5, validate: 0.2}
batch_size: 10
"""
MODEL = """
_target_: models.multimodal.MultimodalModel
encoders:
  image: ENCODER
  tabular: {_target_: models.encoders.tabular.MLP, features: 1, width: 4, hidden: []}
fusion: {_target_: models.fusion.Late, _partial_: true, width: 16}
head: {_target_: models.heads.classification.Binary, _partial_: true}
optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.02}
"""
ENCODERS = {
    "small network": "{_target_: models.encoders.image.SmallCNN, channels: 1, width: 16, spatial_dims: 3}",
    "DenseNet": """
    _target_: models.encoders.image.Network
    width: 16
    network:
      _target_: monai.networks.nets.DenseNet
      spatial_dims: 3
      in_channels: 1
      out_channels: 16
      init_features: 8
      growth_rate: 8
      block_config: [2]
      norm: [GROUP, {num_groups: 4}]
""",
}


def write_hospital(folder: Path, seed: int, ending: str, affine: np.ndarray) -> None:
    """Scans of 40 persons in HU, a bright tumor in half of them; every eighth has no scan."""
    draw = np.random.default_rng(seed)
    (folder / "scans").mkdir(parents=True)
    lines = ["pid,scan,age,tumor"]
    for person in range(PERSONS):
        tumor = person % 2
        lines.append(f"p{person},s{person},{draw.integers(40, 80)},{['no', 'yes'][tumor]}")
        voxels = draw.normal(0, 20, (24, 24, 16)).astype(np.int16)
        if tumor:
            corner = draw.integers(2, 8, 3)
            voxels[tuple(slice(start, start + 8) for start in corner)] += 200
        if person % 8 != 4:
            nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "scans" / f"s{person}{ending}")
    (folder / "cohort.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> dict[str, Path]:
    """Two hospitals, which write their files in other orientations."""
    home = tmp_path_factory.mktemp("volumes")
    write_hospital(home / "north", 0, ".nii.gz", np.diag([-2.0, -2, 3, 1]))
    write_hospital(home / "south", 1, ".nii", np.array([[0, 2.0, 0, 0], [2, 0, 0, 0], [0, 0, -3, 0], [0, 0, 0, 1]]))
    return {name: home / name for name in ("north", "south")}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_3d_encoder_finds_in_files_what_the_table_does_not_tell(hospitals, encoder, tmp_path):
    sites = "\n".join(f"{name}: {{root: {root}, policy: public_data}}" for name, root in hospitals.items())
    files = {
        "dataset/scans.yaml": DATASET,
        "model/scan_classifier.yaml": MODEL.replace("ENCODER", ENCODERS[encoder]),
        "sites/hospitals.yaml": f"# @package sites\n{sites}\n",
    }
    for name, text in files.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(text)
    study = compose_study(
        "dataset=scans", "model=scan_classifier", "sites=[hospitals]", "name=tumor", "federation=inprocess",
        "strategy.rounds=4", "trainer.steps=10", f"paths.data_dir={tmp_path}", config_dir=tmp_path / "own",
    )  # fmt: skip
    result = execute(study, tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    assert result["metrics"]["test/pooled/auroc_binned"] > 0.8  # .5 by the table alone
    assert result["metrics"]["test/site/south/auroc"] > 0.7  # its axes were turned
