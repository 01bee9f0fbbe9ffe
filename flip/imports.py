"""Importing large libraries in half the time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def importing() -> Iterator[None]:
    """Import in the block without garbage collection, which afterwards never looks at what is there by then.

    Torch and Lightning leave half a million objects that live as long as the process. While they are made Python looks
    through all of them again and again: 1.7 s of 4.9 for Lightning, and .7 s at the process' end. For processes of the
    engine's own alone: cycles that are garbage by then, or become it, are kept.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def load(module: str) -> None:
    """Import a module with all that it imports, as `importing` does; one that is there costs nothing."""
    if module not in sys.modules:
        with importing():
            import_module(module)
