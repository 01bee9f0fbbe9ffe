"""FLIP: a declarative engine that trains one study on one machine or across hospitals."""

from flip.version import __version__

__all__ = ["__version__"]
