"""A number with what it counts, for messages."""


def counted(number: int, noun: str) -> str:
    """`1 row`, `3 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
