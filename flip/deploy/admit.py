"""`flip deploy add AUTHORITY REQUEST out=FOLDER`: one more site; nobody else's kit changes."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from flip.errors import UserError
from flip.federation.kit import AUTHORITY, ROSTER, SERVER, Kit, check_names, whole_or_not, write
from flip.federation.peers import PEERS, write_peers
from flip.federation.requests import SUFFIX, PublicKey, Request, fingerprint, read, read_all, shared, shown

USAGE = "flip deploy add kits/authority kings.csr out=added/"


def add(arguments: Sequence[str]) -> None:
    """Make a kit for the site of a request, and the file that has the server let it in. Raises UserError."""
    places = [each for each in arguments if "=" not in each]
    named = [each.partition("=") for each in arguments if "=" in each]
    if len(places) != 2 or [key for key, _, _ in named] != ["out"] or not named[0][2]:
        raise UserError(f"deploy add: takes a kit, a request and out: {USAGE}")
    folder, path, out = (Path(each).expanduser() for each in (*places, named[0][2]))
    authority = Kit.read(folder)
    if authority.party != AUTHORITY:
        raise UserError(f"{folder}: is the kit of {authority.party}; name the folder {AUTHORITY}: {USAGE}")
    request = read(path, authority.backend)
    name = request.site
    check_names([name])
    check_new(authority.folder / ROSTER, name, request.key)
    peers = known(authority) | {name: request}
    if problems := [*shared(path, peers.values())]:
        raise UserError(problems)
    with whole_or_not(out) as made:
        roster = import_module(f"flip.federation.{authority.backend}.provision").admit(
            authority, made / name, request.key
        )
        write_peers([made / name], peers.values())
        write_peers([authority.folder], [request])
        write(made / SERVER / ROSTER / f"{name}.pub", roster)
        write(authority.folder / ROSTER / f"{name}.pub", roster)
    print(shown({name: request}))
    print(f"{out / name}: for {name}; no key of the site is in it, and nobody else needs a new folder")
    print(f"{out / SERVER / ROSTER / name}.pub: belongs into the server's kit, as {ROSTER}/{name}.pub")
    print("With Flower start the server again; FLARE's lets the site in from then on.")
    if others := sorted({*peers} - {name}):
        print(f"For secure sums its kit has the requests of {', '.join(others)}; give {path} to each other site, for")
        print(f"{PEERS}/ of its kit: flip site peers peers/ site.yaml says there what that changes.")
    else:
        print("No other site is known by a request: for secure sums each takes the keys of a roster that you make,")
        print("as each site's flip site peer site.yaml says its own: flip site peers roster.yaml site.yaml")


def known(authority: Kit) -> dict[str, Request]:
    """The requests of the sites of an authority's roster, as far as they came by one.

    Raises UserError for one that is not of the key in the roster.
    """
    folder, keys = authority.folder / PEERS, held(authority.folder / ROSTER)
    names = [path.stem for path in keys if (folder / f"{path.stem}{SUFFIX}").is_file()]
    found = read_all(folder, names, authority.backend)
    problems = [
        f"{folder / path.stem}{SUFFIX}: is not of the key in {ROSTER}/{path.name}; put the request of that key there"
        for path, key in keys.items()
        if path.stem in found and fingerprint(found[path.stem].key) != fingerprint(key)
    ]
    if problems:
        raise UserError(problems)
    return {**found}


def held(roster: Path) -> Mapping[Path, PublicKey]:
    """The public keys of a roster's folder, by file. Raises UserError for one that cannot be read."""
    return {path: key for path in sorted(roster.glob("*.pub")) if isinstance(key := _public(path), PublicKey)}


def _public(path: Path) -> PublicKeyTypes:
    text = path.read_bytes()
    try:
        return load_ssh_public_key(text) if text.startswith(b"ecdsa-") else load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: is no public key; put that of the server's kit there") from error


def check_new(roster: Path, name: str, public: PublicKey) -> None:
    """Refuse a name or a key that a site of the roster has. Raises UserError."""
    if (roster / f"{name}.pub").exists():
        raise UserError(
            f"{name}: is in the federation; if its key is lost, remove sites/{name}.pub here and in the server's kit "
            "and let it in under another name, so that nothing that was given to the old key opens anything"
        )
    for path, known in held(roster).items():
        if path.stem.lower() == name.lower():
            raise UserError(f"{name}: only case tells it from {path.stem}, which is in the federation; choose another")
        if fingerprint(known) == fingerprint(public):
            raise UserError(f"{name}: has the key of {path.stem}; each site makes its own")
