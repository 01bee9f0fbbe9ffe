"""The level of a vertebra in whole CT scans: what a network sees of a scan, and where labels say that the level is."""
