"""Heads: loss, prediction and metrics of what a study predicts."""
