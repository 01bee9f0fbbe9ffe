"""A finished run's model handed on: a MONAI Bundle that runs without the engine, and ONNX."""
