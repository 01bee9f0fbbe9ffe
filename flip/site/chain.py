"""Lines of JSON that are sealed, each together with the one before it: a site's ledger and its journal.

Who lacks the key changes, moves or takes out no line but the last without being seen.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")
SEAL = "seal"
START = "0" * 64  # in place of the seal of a line before the first


def seal_of(key: bytes, before: str, line: Mapping[str, object]) -> str:
    """The HMAC-SHA256 over the seal of the line before and a line without its own, 64 hexadecimal digits."""
    return hmac.new(key, json.dumps([before, line], sort_keys=True).encode(), hashlib.sha256).hexdigest()


def sealed(key: bytes, before: str, line: Mapping[str, Value]) -> dict[str, Value | str]:
    """A line with its seal."""
    return {**line, SEAL: seal_of(key, before, line)}


def fits(key: bytes, before: str, line: Mapping[str, object]) -> bool:
    """Whether a line is as it was sealed, behind the line with the seal `before`."""
    own = seal_of(key, before, {name: value for name, value in line.items() if name != SEAL})
    return hmac.compare_digest(str(line.get(SEAL)).encode(), own.encode())


def written(line: Mapping[str, object]) -> bytes:
    """A line as the file has it."""
    return (json.dumps(line) + "\n").encode()


def read(text: str) -> dict[str, Any]:
    """A line as it was written, or an empty one, which no seal fits."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
