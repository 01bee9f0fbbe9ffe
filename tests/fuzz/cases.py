"""How many cases a fuzz test takes, and bytes and values that something hostile could send.

`make fuzz` takes 100,000 each, drawn anew; the fast tests a few hundred, always the same.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as some

FUZZ = settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
THOROUGH = settings.get_current_profile_name() == "fuzz"


def cases(number: int = 300) -> Any:
    """The settings of a test: so many cases among the fast ones."""
    return FUZZ if THOROUGH else settings(FUZZ, max_examples=number, derandomize=True, database=None)


NUMBERS = some.one_of(
    some.integers(-(2**70), 2**70), some.floats(), some.sampled_from([0, -1, 10**6, 10**9, 10**400, 3e38, True])
)
TEXTS = some.one_of(
    some.text(max_size=20),
    some.sampled_from(["fit", "kings", "loss", "w", "metric/x", "../x", "\n\x1b[2Jok", "9" * 400]),
)
SCALARS = some.one_of(some.none(), some.booleans(), NUMBERS, TEXTS)
JSON = some.recursive(
    SCALARS, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@some.composite
def spoiled(draw: Any, whole: bytes) -> bytes:
    """Bytes with some of them replaced, left out or put in."""
    found = bytearray(whole)
    for _ in range(draw(some.integers(1, 5))):
        at = draw(some.integers(0, len(found)))
        found[at : at + draw(some.integers(0, 12))] = draw(some.binary(max_size=8))
    return bytes(found)


@some.composite
def changed(draw: Any, whole: dict[str, Any]) -> dict[str, Any]:
    """A mapping with up to three of its entries, wherever in it, left out or anything else."""
    found = dict(whole)
    for _ in range(draw(some.integers(1, 3))):
        if not found:
            break
        key = draw(some.sampled_from(sorted(found)))
        if isinstance(found[key], dict) and found[key] and draw(some.booleans()):
            found[key] = draw(changed(found[key]))
        elif draw(some.booleans()):
            found[key] = draw(JSON)
        else:
            del found[key]
    return found
