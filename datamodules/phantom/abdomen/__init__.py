"""SYNTHETIC scans of the whole abdomen, T10 to the pelvis. `python -m datamodules.phantom abdomen OUT` makes them."""

from datamodules.phantom.abdomen.cohort import generate
from datamodules.phantom.abdomen.sites import PROFILES, AbdomenProfile

__all__ = ["PROFILES", "AbdomenProfile", "generate"]
