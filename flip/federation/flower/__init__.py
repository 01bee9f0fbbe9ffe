"""Flower: its simulation and its live SuperLink."""
