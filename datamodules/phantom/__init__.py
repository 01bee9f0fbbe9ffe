"""The demo cohort: SYNTHETIC abdominal phantoms written as true DICOM. `python -m datamodules.phantom OUT` makes it."""

from datamodules.phantom.cohort import PROFILES, SiteProfile, ensure, generate

__all__ = ["PROFILES", "SiteProfile", "ensure", "generate"]
