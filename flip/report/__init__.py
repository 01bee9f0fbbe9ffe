"""The page and the tables made from a run's folder."""
