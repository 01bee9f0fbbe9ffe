"""Something at a site that does not seem to fit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something at a site that does not fit, and what the site's file would say to correct it."""

    site: str
    column: str
    what: str
    remedy: str
