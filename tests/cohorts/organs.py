"""A study of two organs at four sites whose scans have other spacings, as NIfTI with labels."""

from pathlib import Path

import numpy as np

from tests.datamodules.segmentation_sites import body, nifti, numbered, table

STUDY = """
# @package _global_
defaults:
  - override /dataset: segmentation
  - override /model: segmenter
  - override /sites: [a, b, c, d]
  - override /federation: inprocess
name: organs
dataset:
  structures: [liver, spleen]
  image: {_target_: datamodules.segmentation.forms.Volumes, spacing_mm: [4.0, 4.0, 4.0]}
  intensity: {_target_: datamodules.segmentation.intensity.Percentiles}
  patches: {size: [8, 8, 8]}
  split: {train: 1.0, validate: 0.0}
strategy: {rounds: 1}
trainer: {steps: 1, epochs: null}
"""
SPACINGS = {"a": (1.5, 3.0, 4), "b": (2.0, 3.0, 3), "c": (1.25, 5.0, 5), "d": (1.75, 2.5, 3)}  # in plane, along, scans


def organs(folder: Path) -> Path:
    """The configuration of the study, with a fifth site that holds the scans of all."""
    everyone = folder / "everyone"
    for name, (plane, along, scans) in SPACINGS.items():
        affine = np.diag([-plane, -plane, along, 1.0])
        accessions = [f"{name}{number}" for number in range(scans)]
        for number, accession in enumerate(accessions):
            for root in (folder / name, everyone):
                nifti(root / "images" / f"{accession}.nii", body(number)[: 14 - number], affine)
                nifti(root / "labels" / f"{accession}.nii", numbered(number)[: 14 - number], affine)
        table(folder / name, accessions, [f"P{each}" for each in accessions])
    names = [f"{name}{number}" for name, (*_, scans) in SPACINGS.items() for number in range(scans)]
    table(everyone, names, [f"P{each}" for each in names])
    sites = folder / "conf" / "sites"
    sites.mkdir(parents=True)
    for name in (*SPACINGS, "everyone"):
        (sites / f"{name}.yaml").write_text(
            f"# @package sites.{name}\nroot: {folder / name}\npolicy: public_data\ncolumns: {{liver: 1, spleen: 6}}\n"
        )
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "organs.yaml").write_text(STUDY)
    return folder / "conf"
