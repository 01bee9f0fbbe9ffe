"""A site: how it answers, and what may leave it."""
