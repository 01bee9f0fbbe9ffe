"""Sums of what several sites send, of which nobody sees a single one (Bonawitz et al., CCS 2017)."""
