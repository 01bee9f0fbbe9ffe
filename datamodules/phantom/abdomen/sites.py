"""The five SYNTHETIC hospitals with scans of the whole abdomen: four to train at, `coast` to be held out.

Scanner and case mix are those of `datamodules.phantom.sites` at coarser voxels; `coast` is one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pydicom.uid import ExplicitVRLittleEndian

from datamodules.phantom.abdomen.board import STRUCTURES
from datamodules.phantom.anatomy import Contrast
from datamodules.phantom.sites import PROFILES as SCANNERS
from datamodules.phantom.sites import SiteProfile

VIEWS = ("whole", "no_top", "no_bottom", "above_l3", "below_l3")
"""What is in view: T10 to the pelvis; without its upper or lower end; only what is above L3, or below."""


@dataclass(frozen=True)
class AbdomenProfile:
    """A hospital: `scanner`, of which pixels and slices are not used; `labels`, what it segments; `nifti` images with
    NIfTI of numbers instead of DICOM with SEG; shares of the patients by `views`, `prone`, with `metal`, with
    `scoliosis`, and with a `narrow` field of view, which cuts the sides off."""

    scanner: SiteProfile
    labels: tuple[str, ...] = STRUCTURES
    nifti: bool = False
    views: tuple[float, ...] = (0.60, 0.12, 0.12, 0.08, 0.08)
    prone: float = 0.15
    metal: float = 0.10
    scoliosis: float = 0.20
    narrow: float = 0.12


_ORGANS = ("subcutaneous_fat", "visceral_fat", "liver", "spleen", "kidneys")
_COAST = replace(
    SCANNERS["west"],
    name="coast",
    contrast=Contrast("VENOUS", aorta=95, cava=88, kidney=110, liver=42, bowel=32, muscle=9),
    thickness=4.5,
    kvp=120,
    transfer_syntax=ExplicitVRLittleEndian,
    female=0.5,
    age=(66, 12),
    bmi=(26.8, 4.2),
)

PROFILES: Mapping[str, AbdomenProfile] = MappingProxyType(
    {
        "north": AbdomenProfile(SCANNERS["north"]),
        "south": AbdomenProfile(replace(SCANNERS["south"], thickness=4.0), nifti=True),
        "east": AbdomenProfile(replace(SCANNERS["east"], thickness=5.0)),
        "west": AbdomenProfile(replace(SCANNERS["west"], thickness=4.5), labels=_ORGANS),
        "coast": AbdomenProfile(_COAST),
    }
)
