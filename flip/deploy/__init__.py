"""Preparing and starting a live federation: `python -m flip deploy`; the README.md beside this says how."""
