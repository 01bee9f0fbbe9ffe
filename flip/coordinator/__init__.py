"""The coordinator's side: rounds, checks of replies, pooled scores, the result."""
