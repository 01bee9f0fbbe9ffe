"""`flip site peers FOLDER site.yaml`: what the public keys of others would change in a file; its owner writes it.

FOLDER is `peers` of the site's kit, with the request of each site; in its place may stand a file of keys by name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from flip.config.rules import is_sha256
from flip.config.site_file import load_site
from flip.errors import UserError
from flip.federation.kit import Kit
from flip.federation.peers import public_key
from flip.federation.requests import SUFFIX, fingerprint, read_all

USAGE = "flip site peers peers/ site.yaml: a kit's folder of requests, or a file with a line 'name: key' for each site"


def command(arguments: Sequence[str]) -> None:
    """Print each peer beside the file's, and the line that accepts them. Raises UserError.

    Nothing is written: whoever sends keys could else stand in for a site, and so open sums.
    """
    if {"--help", "-h"} & {*arguments}:
        print(USAGE)
        return
    if len(arguments) != 2:
        raise UserError(f"site peers: takes a folder or file, and the site's file: {USAGE}")
    place, path = (Path(each).expanduser() for each in arguments)
    own = public_key(path)
    keys, fingerprints = _requests(place, path) if place.is_dir() else (read(place), {})
    here = [name for name, key in keys.items() if key == own]
    if not here:
        raise UserError(
            f"{place}: has not the key of this site, {own}, so that it is wrong or old; give it to who made it"
        )
    peers = {name: key for name, key in sorted(keys.items()) if name not in here}
    _show(load_site(path).peers, peers, fingerprints, here[0])
    if not peers:
        print(f"This site is {here[0]}, and no other is there: a secure sum needs the keys of others too")
        return
    ask = "fingerprint, by another way" if fingerprints else "key"
    print(f"This site is {here[0]}. Ask each new or changed site itself for its {ask}, then write into {path}:")
    print(f"peers: {{{', '.join(f'{name}: {key}' for name, key in peers.items())}}}")


def _show(known: Mapping[str, str], peers: Mapping[str, str], fingerprints: Mapping[str, str], here: str) -> None:
    """A line for each peer that is known or told, and one for the fingerprint by which to ask for it."""
    for name in sorted({*peers, *known} - {here}):
        print(f"{name:<20} {_change(known.get(name), peers.get(name))}  {peers.get(name, known.get(name))}")
        if name in fingerprints:
            print(f"{'':<20} fingerprint {fingerprints[name]}")


def _requests(folder: Path, file: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """By site the public key in secure sums, and the fingerprint of the key that it joins with. Raises UserError.

    The request is signed by the key of that fingerprint, so that who has compared it has compared all.
    """
    kit = Kit.read(file.absolute().parent)
    found = read_all(folder, sorted(path.stem for path in folder.glob(f"*{SUFFIX}")), kit.backend)
    if kit.site not in found:
        raise UserError(f"{folder / kit.site}{SUFFIX}: is not there, this site's own request; put it back")
    return (
        {name: each.identity for name, each in found.items()},
        {name: fingerprint(each.key) for name, each in found.items()},
    )


def read(roster: Path) -> Mapping[str, str]:
    """Public keys by site. Raises UserError for a file that is no roster, and for a key that two sites have."""
    try:
        keys = yaml.safe_load(roster.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{roster}: cannot be read ({type(error).__name__}); {USAGE}") from error
    if not isinstance(keys, dict) or not keys:
        raise UserError(f"{roster}: is no roster; {USAGE}")
    for name, key in keys.items():
        if not (isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()):
            raise UserError(f"{roster}: {name!a} is no name of a site")
        if not (isinstance(key, str) and is_sha256(key)):
            raise UserError(f"{roster}: {name}: {key!r} is no public key of 64 digits; flip site peer says it there")
    if len({*keys.values()}) < len(keys):
        raise UserError(f"{roster}: two names with one key; each site has its own, which flip site peer says there")
    return keys


def _change(before: str | None, after: str | None) -> str:
    if before == after:
        return "as before"
    return "new" if before is None else "GONE" if after is None else f"CHANGED from {before} to"
