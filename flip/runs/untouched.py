"""A run's folder as it was before a resume that is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flip.errors import StudyUnfit, UserError
from flip.files import relative, write_atomic

UNREAD = ("state", "weights")  # folders that hold weights: nothing in them changes before the first round


class OtherData(StudyUnfit):
    """A run would go on over other data than it was begun with."""


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Give the folder of a run back as it was where the block raises OtherData; that is a UserError then."""
    found = list(folder.rglob("*"))
    before = {
        path: (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in found
        if path.is_file() and not {*path.relative_to(folder).parts} & {*UNREAD}
    }
    try:
        yield
    except OtherData as other:
        for path in sorted({*folder.rglob("*")} - {*found}, reverse=True):  # a folder after what lies in it
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for path, (content, mode) in before.items():
            if not path.is_file() or path.read_bytes() != content:
                write_atomic(path, content, mode)
        raise UserError(f"resume={relative(folder)}: {other}") from other
