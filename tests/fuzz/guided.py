"""Readers of messages under a fuzzer that is led by what code a case reaches (Atheris): part of `make fuzz`.

    python -m tests.fuzz.guided task|reply|query CASES

It begins from one honest message, and ends with status 0 after so many cases, or at the first that raises what no
reader may; the case is then printed.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flip.messages", "datamodules.sources"]):
    from tests.fuzz.test_files import QUERY, read_query
    from tests.fuzz.test_messages import REPLY, TASK, read_reply, read_task

from flip.messages.wire import pack_reply, pack_task

READERS: dict[str, tuple[Callable[[bytes], None], bytes]] = {
    "task": (read_task, pack_task(TASK)),
    "reply": (read_reply, pack_reply(REPLY)),
    "query": (lambda blob: read_query(blob.decode("utf-8", "replace")), QUERY),
}


def main(name: str, number: int) -> None:
    """Give a reader so many cases."""
    read, honest = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "honest").write_bytes(honest)
        atheris.Setup([sys.argv[0], f"-runs={number}", "-seed=1", "-max_len=4096", folder], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
