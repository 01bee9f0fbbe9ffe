"""Models: one LightningModule a file. None of them knows the engine; a plain Lightning user can take one away."""
