"""Datamodules: one LightningDataModule a file, and the readers that they need. None of them knows the engine."""
