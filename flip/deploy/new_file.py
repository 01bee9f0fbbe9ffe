"""A new file of a person's or a hospital's own."""

import os
from pathlib import Path

from flip.errors import UserError


def write_new(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read. Raises UserError where there is one, or no folder for it."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise UserError(f"{path}: is there already, and is left as it is; name another file") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file in a folder that you can write to") from error
