"""What a table and the header of an image say of the person, and whether and when there was contrast agent."""

from __future__ import annotations

import math
import re
from datetime import time

from pydicom.dataset import Dataset
from pydicom.valuerep import TM

from datamodules.ct.cohort import Study

_SEXES = {"F": 0, "M": 1}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_DAY = 86_400.0  # s
NAMES = ("sex", "height_m", "weight_kg", "age", "followup_days", "event")


def about_person(row: Study | None, head: Dataset | None) -> dict[str, float]:
    """`sex` 0 female, 1 male, `height_m`, `weight_kg` and `age` in years, NaN where unknown: by row, else header; and
    by row alone `followup_days` and `event`, 1 where the person died.

    A height outside 1 to 2.5 m and a weight outside 20 to 400 kg is none: PatientSize is also written in cm.
    """
    said = {} if head is None else _of_header(head)
    told = {name: math.nan if row is None else float(getattr(row, name)) for name in NAMES}
    if told["sex"] < 0:
        told["sex"] = math.nan
    return {name: said.get(name, math.nan) if math.isnan(value) else value for name, value in told.items()}


def _of_header(head: Dataset) -> dict[str, float]:
    age = re.fullmatch(r"(\d{3})([DWMY])", str(head.get("PatientAge") or "").strip())
    found = {
        "sex": float(_SEXES.get(str(head.get("PatientSex") or "").strip().upper(), math.nan)),
        "height_m": _within(head.get("PatientSize"), 1.0, 2.5),
        "weight_kg": _within(head.get("PatientWeight"), 20.0, 400.0),
    }
    return found | ({"age": int(age[1]) * _YEARS[age[2]]} if age else {})


def _within(value: object, low: float, high: float) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return math.nan
    return number if low <= number <= high else math.nan


def has_contrast(head: Dataset) -> bool:
    """Whether the header names a contrast agent, which is not to be had from the pixels alone.

    Its phase DICOM names for enhanced multi-frame images alone (ContrastBolusAgentPhase, of the Contrast/Bolus Usage
    macro); of others `contrast_seconds` tells.
    """
    agent = str(head.get("ContrastBolusAgent") or "").strip().lower()
    named = agent not in ("", "none", "no", "n")
    return named or bool(head.get("ContrastBolusAgentSequence"))


def contrast_seconds(head: Dataset) -> float:
    """From the start of the contrast agent (ContrastBolusStartTime) to an image (AcquisitionTime), s; NaN where the
    header does not say both to the second (DICOM PS3.3 C.7.6.4 and C.7.10.1), as that of an enhanced image does not.

    Both are times of day, so the image is taken to lie within 12 hours of the start: past midnight still counts as
    later, and a longer wait comes out negative.
    """
    told = [str(head.get(name) or "") for name in ("ContrastBolusStartTime", "AcquisitionTime")]
    if not all(re.match(r"\d{6}", each) for each in told):
        return math.nan
    try:
        start, image = (_seconds(TM(each)) for each in told)
    except ValueError:
        return math.nan
    return (image - start + _DAY / 2) % _DAY - _DAY / 2


def _seconds(at: time) -> float:
    return 3600 * at.hour + 60 * at.minute + at.second + at.microsecond / 1e6
