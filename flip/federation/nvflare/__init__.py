"""NVIDIA FLARE: its simulator and its provisioned server."""
