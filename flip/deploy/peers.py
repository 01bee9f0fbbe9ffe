"""`flip site peers ROSTER site.yaml`: what a roster of public keys would change in a file; its owner writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from flip.config.rules import is_sha256
from flip.config.site_file import load_site
from flip.deploy.site_file import public_key
from flip.errors import UserError

USAGE = "flip site peers ROSTER site.yaml: ROSTER is a file with a line 'name: key' for each site, this one too"


def command(arguments: Sequence[str]) -> None:
    """Print each peer of a roster beside the file's, and the line that accepts them. Raises UserError.

    Nothing is written: whoever sends a roster could else stand in for a site, and so open sums.
    """
    if {"--help", "-h"} & {*arguments}:
        print(USAGE)
        return
    if len(arguments) != 2:
        raise UserError(f"site peers: takes two files: {USAGE}")
    roster, path = (Path(each).expanduser() for each in arguments)
    keys, known, own = read(roster), load_site(path).peers, public_key(path)
    here = [name for name, key in keys.items() if key == own]
    if not here:
        raise UserError(
            f"{roster}: has not the key of this site, {own}, so that it is wrong or old; give it to who made the roster"
        )
    peers = {name: key for name, key in keys.items() if name not in here}
    for name in sorted({*peers, *known} - {*here}):
        print(f"{name:<20} {_change(known.get(name), peers.get(name))}  {peers.get(name, known.get(name))}")
    print(f"This site is {here[0]}. Ask each new or changed site itself for its key, then write into {path}:")
    print(f"peers: {{{', '.join(f'{name}: {key}' for name, key in sorted(peers.items()))}}}")


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
