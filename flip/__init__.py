"""FLIP: a declarative engine that trains one study on one machine or across hospitals."""

__version__ = "0.1.0"
