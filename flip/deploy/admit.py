"""`flip deploy add AUTHORITY REQUEST out=FOLDER`: one more site; nobody else's kit changes."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from flip.errors import UserError
from flip.federation.kit import AUTHORITY, ROSTER, SERVER, Kit, check_names, whole_or_not, write
from flip.federation.requests import PublicKey, fingerprint, read, shown

USAGE = "flip deploy add kits/authority kings.csr out=added/"


def add(arguments: Sequence[str]) -> None:
    """Make a kit for the site of a request, and the file that has the server let it in. Raises UserError."""
    places = [each for each in arguments if "=" not in each]
    named = [each.partition("=") for each in arguments if "=" in each]
    if len(places) != 2 or [key for key, _, _ in named] != ["out"] or not named[0][2]:
        raise UserError(f"deploy add: takes a kit, a request and out: {USAGE}")
    folder, request, out = (Path(each).expanduser() for each in (*places, named[0][2]))
    authority = Kit.read(folder)
    if authority.party != AUTHORITY:
        raise UserError(f"{folder}: is the kit of {authority.party}; name the folder {AUTHORITY}: {USAGE}")
    name, public = read(request, authority.backend)
    check_names([name])
    check_new(authority.folder / ROSTER, name, public)
    with whole_or_not(out) as made:
        roster = import_module(f"flip.federation.{authority.backend}.provision").admit(authority, made / name, public)
        write(made / SERVER / ROSTER / f"{name}.pub", roster)
        write(authority.folder / ROSTER / f"{name}.pub", roster)
    print(shown({name: public}))
    print(f"{out / name}: for {name}; no key of the site is in it, and nobody else needs a new folder")
    print(f"{out / SERVER / ROSTER / name}.pub: belongs into the server's kit, as {ROSTER}/{name}.pub")
    print("With Flower start the server again; FLARE's lets the site in from then on.")


def check_new(roster: Path, name: str, public: PublicKey) -> None:
    """Refuse a name or a key that a site of the roster has. Raises UserError."""
    if (roster / f"{name}.pub").exists():
        raise UserError(
            f"{name}: is in the federation; if its key is lost, remove sites/{name}.pub here and in the server's kit "
            "and let it in under another name, so that nothing that was given to the old key opens anything"
        )
    for path in sorted(roster.glob("*.pub")):
        if path.stem.lower() == name.lower():
            raise UserError(f"{name}: only case tells it from {path.stem}, which is in the federation; choose another")
        text = path.read_bytes()
        known = load_ssh_public_key(text) if text.startswith(b"ecdsa-") else load_pem_public_key(text)
        if isinstance(known, PublicKey) and fingerprint(known) == fingerprint(public):
            raise UserError(f"{name}: has the key of {path.stem}; each site makes its own")
