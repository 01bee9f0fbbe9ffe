"""A run's folder: written, read back, resumed, run again."""
