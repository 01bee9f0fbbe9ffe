"""What a DICOM object says of the model that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MANUFACTURER = "FLIP"  # of the object; there is no device
MODEL_NAME = "FLIP body composition"
SERIAL = "none"


@dataclass(frozen=True)
class Origin:
    """The model: its name, the digest of its weights (or other version), and the error that is known of it.

    `errors`: by the name of a column of `biomarkers.csv`, the mean absolute error of the model's evaluation, in that
    column's unit; what is not there is not known.
    """

    model: str = MODEL_NAME
    version: str = "unknown"
    errors: Mapping[str, float] = field(default_factory=dict)
