"""`flip site request BACKEND NAME FOLDER`: a hospital makes its own key and secret, and the request to send away."""

from collections.abc import Sequence
from pathlib import Path

from flip.deploy.new_file import write_new
from flip.errors import UserError, nearest
from flip.federation.kit import SECRET, check_names
from flip.federation.requests import KEYS, SUFFIX, fingerprint, make

USAGE = "flip site request flower kings own/: the backend, the site's name, and a new folder (or nvflare)"


def command(arguments: Sequence[str]) -> None:
    """Make a private key and a secret, of mode 600, and a request with the public half of each. Raises UserError."""
    from flip.site.identity import identity
    from flip.site.secret import make_secret

    if {"--help", "-h"} & {*arguments}:
        print(USAGE)
        return
    if len(arguments) != 3:
        raise UserError(f"site request: takes three words: {USAGE}")
    backend, name, folder = arguments[0], arguments[1], Path(arguments[2]).expanduser()
    if backend not in KEYS:
        raise UserError(f"site request {backend}: there is no such backend; {nearest(backend, list(KEYS))}")
    check_names([name])
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name a new folder in one that you can write to") from error
    secret, key, sent = folder / SECRET, folder / Path(KEYS[backend]).name, folder / f"{name}{SUFFIX}"
    make_secret(secret)
    private, request, public = make(backend, name, identity(secret.read_bytes()))
    write_new(key, private)
    write_new(sent, request)
    print(f"{sent}: send it to who prepares the kits, and tell them and each site by another way this fingerprint:")
    print(fingerprint(public))
    print(f"{key}: never leaves; copy it into the kit that comes back, as {KEYS[backend]}")
    print(f"{secret}: never leaves; copy it into the kit, as {SECRET}")
