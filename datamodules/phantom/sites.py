"""The four SYNTHETIC demo hospitals: how each scans, whom it sees, and how its patients fare.

They differ as real sites do: contrast phase, tube voltage, kernel, noise, slice thickness, pixels, table, the way that
pixels are encoded, and the case mix. `west` is meant to be held out: its scanner's settings are its own, yet none lies
far from all the others'.

Skeletal muscle index (SMI, cm2/m2) at L3 is drawn as 54 (men) or 42 (women), plus the site's shift, less .15 a year
over 60, plus .5 (men) or .4 (women) per kg/m2 of body mass index over 26, standard deviation 6 or 5. Low SMI is below
52.4 (men) or 38.5 (women): Prado et al., Lancet Oncol 2008;9:629-635. Time to death is Weibull, shape 1.2 and scale
1900 days at 65 years, with hazard ratio 2.2 for low SMI (in the middle of L3, by the labels) and 1.03 per year of age;
censored at a time drawn uniformly from 1 to 5 years.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from datamodules.phantom.anatomy import Contrast, Physique

LOW_SMI = MappingProxyType({"M": 52.4, "F": 38.5})  # cm2/m2, Prado 2008
HAZARD_RATIO_LOW_SMI = 2.2
HAZARD_RATIO_YEAR = 1.03
_WEIBULL_SHAPE, _WEIBULL_SCALE = 1.2, 1900.0


@dataclass(frozen=True)
class SiteProfile:
    """How one hospital scans and whom it sees.

    Scanner: `pixels` a side, `margin` mm of air around the body, `thickness` mm (slices are contiguous), `slices`,
    `kvp`, `energy` (what iodine and bone gain over 120 kVp), `kernel` (name), `blur` (standard deviation in pixels),
    `sharpen` (share of the unsharp mask), `noise` (HU, standard deviation for a person of middle size), `grain` (its
    correlation, pixels), `offset` (HU of calibration), `table` (curved or flat), `transfer_syntax` of the files.
    Case mix: share of `female`, mean and standard deviation of `age` (years) and `bmi` (kg/m2), `smi_shift` (cm2/m2),
    `oral` (probability that a bowel loop holds oral contrast).
    """

    name: str
    contrast: Contrast
    pixels: int
    margin: float
    thickness: float
    slices: int
    kvp: int
    energy: float
    kernel: str
    blur: float
    sharpen: float
    noise: float
    grain: float
    offset: float
    table: str
    transfer_syntax: str
    female: float
    age: tuple[float, float]
    bmi: tuple[float, float]
    smi_shift: float
    oral: float


@dataclass(frozen=True)
class Person:
    """A row of the cohort table before follow-up."""

    sex: str
    age: int
    height_m: float
    weight_kg: float
    physique: Physique


_NATIVE = Contrast("")
_PORTAL = Contrast("VENOUS", aorta=110, cava=105, kidney=95, liver=50, bowel=38, muscle=9)
_ARTERIAL = Contrast("ARTERIAL", aorta=250, cava=25, kidney=85, liver=12, bowel=30, muscle=4)
_LATE = Contrast("DELAYED", aorta=70, cava=72, kidney=95, liver=32, bowel=26, muscle=8)

PROFILES: Mapping[str, SiteProfile] = MappingProxyType(
    {
        "north": SiteProfile(
            "north",
            _PORTAL,
            pixels=176,
            margin=26,
            thickness=5.0,
            slices=9,
            kvp=120,
            energy=1.0,
            kernel="STANDARD",
            blur=0.45,
            sharpen=0.0,
            noise=11.0,
            grain=0.6,
            offset=0.0,
            table="curved",
            transfer_syntax=ExplicitVRLittleEndian,
            female=0.42,
            age=(64, 10),
            bmi=(26.5, 3.8),
            smi_shift=0.5,
            oral=0.10,
        ),
        "south": SiteProfile(
            "south",
            _NATIVE,
            pixels=192,
            margin=14,
            thickness=4.0,
            slices=11,
            kvp=120,
            energy=1.0,
            kernel="SOFT",
            blur=0.65,
            sharpen=0.0,
            noise=13.0,
            grain=0.9,
            offset=-3.0,
            table="flat",
            transfer_syntax=RLELossless,
            female=0.50,
            age=(70, 9),
            bmi=(27.5, 4.2),
            smi_shift=-1.0,
            oral=0.10,
        ),
        "east": SiteProfile(
            "east",
            _ARTERIAL,
            pixels=168,
            margin=40,
            thickness=3.0,
            slices=13,
            kvp=100,
            energy=1.22,
            kernel="BONEPLUS",
            blur=0.40,
            sharpen=0.35,
            noise=16.0,
            grain=0.5,
            offset=2.0,
            table="curved",
            transfer_syntax=JPEGLosslessSV1,
            female=0.38,
            age=(58, 11),
            bmi=(25.0, 3.4),
            smi_shift=1.0,
            oral=0.05,
        ),
        "west": SiteProfile(
            "west",
            _LATE,
            pixels=184,
            margin=20,
            thickness=3.75,
            slices=12,
            kvp=110,
            energy=1.10,
            kernel="B40f",
            blur=0.50,
            sharpen=0.15,
            noise=14.0,
            grain=0.7,
            offset=4.0,
            table="flat",
            transfer_syntax=JPEG2000Lossless,
            female=0.46,
            age=(67, 11),
            bmi=(26.0, 4.4),
            smi_shift=0.0,
            oral=0.12,
        ),
    }
)


def draw_person(profile: SiteProfile, rng: np.random.Generator) -> Person:
    """One patient of the site's case mix, 30 to 92 years old, body mass index 17 to 40."""
    male = bool(rng.random() >= profile.female)
    age = int(np.clip(rng.normal(*profile.age), 30, 92))
    height = round(float(rng.normal(1.76, 0.07) if male else rng.normal(1.63, 0.065)), 2)
    bmi = float(np.clip(rng.normal(*profile.bmi), 17.5, 40))
    smi = (54 if male else 42) + profile.smi_shift - 0.15 * (age - 60) + (0.5 if male else 0.4) * (bmi - 26)
    smi = max(smi + rng.normal(0, 6 if male else 5), 30 if male else 25)
    weight = round(bmi * height**2, 1)
    physique = Physique(male=male, age=age, height_m=height, bmi=bmi, muscle_cm2=smi * height**2)
    return Person("M" if male else "F", age, height, weight, physique)


def draw_follow_up(person: Person, smi: float, rng: np.random.Generator) -> tuple[int, int]:
    """Days of follow-up, and 1 for death or 0 for censored, given the index (cm2/m2) that the labels show."""
    ratio = HAZARD_RATIO_YEAR ** (person.age - 65) * (HAZARD_RATIO_LOW_SMI if smi < LOW_SMI[person.sex] else 1.0)
    death = _WEIBULL_SCALE * (-math.log(1 - rng.random()) / ratio) ** (1 / _WEIBULL_SHAPE)
    censored = rng.uniform(365, 1825)
    return max(1, round(min(death, censored))), int(death <= censored)
