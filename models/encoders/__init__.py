"""Encoders: each turns one part of a batch into an embedding [n, width]."""
