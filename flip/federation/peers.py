"""The folder `peers` of a site's kit: the request of each site, this one's too, so that it tells whom a sum is with.

It is told, not believed: a secure sum takes the keys of the site's own file alone (`peers`). Whoever prepares kits
can put in requests that they made; people see that by the fingerprints.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from flip.config.site_file import load_site
from flip.errors import UserError
from flip.federation.kit import KIT, SECRET, Kit, write
from flip.federation.requests import SUFFIX, Request, read

PEERS = "peers"


def write_peers(kits: Iterable[Path], requests: Collection[Request]) -> None:
    """Put requests into kits; one that is there under the name of a site goes."""
    for kit in kits:
        for each in requests:
            path = kit / PEERS / f"{each.site}{SUFFIX}"
            path.unlink(missing_ok=True)
            write(path, each.text)


def own_request(file: Path) -> Request | None:
    """The request of the site of a file, in its kit; None where there is no kit, or one that was made without requests.

    Others' requests may be in such a one: then the site's file names no secret. Raises UserError.
    """
    folder = file.absolute().parent
    if not (folder / KIT).is_file() or not (folder / PEERS).is_dir():
        return None
    kit = Kit.read(folder)
    own = folder / PEERS / f"{kit.site}{SUFFIX}"
    return read(own, kit.backend) if own.exists() or load_site(file).secret is not None else None


def check_own(file: Path) -> None:
    """Refuse a site's file, in a kit made from requests, of another secret than its own request. Raises UserError."""
    if own_request(file):
        public_key(file)


def public_key(file: Path) -> str:
    """The key by which others know the site of a file in secure sums, in hexadecimal.

    Raises UserError for an unfit secret, and for one that the request in the site's kit was not made with. One that is
    missing is made, unless a request tells of another.
    """
    from flip.site.identity import public_identity
    from flip.site.secret import secret_file

    own, home = load_site(file), file.absolute().with_suffix("")
    request, place = own_request(file), secret_file(own, home)
    remedy = (
        f"put the file {SECRET} that flip site request made there, or name its place by secret in {file}; a site whose "
        "secret is lost asks to be let in under another name, by a new request"
    )
    if request and not place.is_file():
        raise UserError(f"{place}: is missing; {remedy}")
    try:
        found = public_identity(own, home)
    except (OSError, ValueError) as error:
        damaged = request and isinstance(error, ValueError)
        raise UserError(f"{place}: is no secret; {remedy}" if damaged else f"secret ({file}): {error}") from error
    if request and found != request.identity:
        raise UserError(f"{place}: is not the secret that {PEERS}/{request.site}{SUFFIX} was made with; {remedy}")
    return found
