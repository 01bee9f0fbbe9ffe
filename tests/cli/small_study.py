"""A small study of one's own with a validation split, which any process can run: two tables, one predictor."""

import csv
import random
from pathlib import Path

EXPERIMENT = """
# @package _global_
# Whether a number is large.
defaults:
  - override /dataset: table
  - override /model: risk_classifier
  - override /sites: [near, far]
  - override /federation: inprocess
name: small
dataset:
  target: {_target_: datamodules.targets.Binary, column: ill, positive: [1]}
  tabular: {numeric: [marker]}
model:
  encoders: {text: null}
strategy: {rounds: 2}
"""


def write_small_study(folder: Path) -> list[str]:
    """Write the study into a folder; returns the words of its command line."""
    conf, draw = folder / "conf", random.Random(1)
    for site in ("near", "far"):
        table = folder / "private" / f"{site}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["marker", "ill"])
            for _ in range(80):
                ill = draw.random() < 0.5
                rows.writerow([round(draw.gauss(float(ill), 1.0), 3), int(ill)])
        (conf / "sites").mkdir(parents=True, exist_ok=True)
        (conf / "sites" / f"{site}.yaml").write_text(f"# @package sites.{site}\nroot: {table}\npolicy: public_data\n")
    (conf / "experiment").mkdir(parents=True, exist_ok=True)
    (conf / "experiment" / "small.yaml").write_text(EXPERIMENT)
    return ["--config-dir", str(conf), "experiment=small"]
