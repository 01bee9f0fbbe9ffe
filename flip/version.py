"""The engine's version, as every part of it reads it."""

__version__ = "0.1.0"
