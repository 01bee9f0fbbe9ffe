"""`flip site init` writes a hospital's own file, `check` says what it permits or what is wrong, `peer` its key."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flip.config.schema import Site

HELP = """\
flip site init site.yaml     a site's own file, with every rule and what it means, to be filled in
flip site check site.yaml    what it permits, in words; or every mistake in it
flip site request flower kings own/            this site's own key and secret, and the request to join that is sent away
flip site audit site.yaml    what the site was asked and what left it, and whether its journal is whole; --help
flip site peer site.yaml     this site's public key, which the other sites of a secure sum write under peers
flip site peers peers/ site.yaml               which peers of the kit are new or changed; the line that accepts them
flip site peers roster.yaml site.yaml          the same of a file of keys, as flip site peer says each
flip site key ada --key ada.pem                a private key for who may approve studies, and what the file says of it
flip site review RUN site.yaml                 what a study would run and send, in words; RUN or its manifest.json
flip site approve RUN site.yaml --name ada --key ada.pem --reason WHY --ethics NUMBER --expires 2027-06-30
                                               sign for it; for a sweep besides: --runs 12
    --free 'seed: any' --free 'strategy: [fedavg, fedprox]' --free 'model.optimizer.lr: [1e-4, 1e-1]'
flip site revoke approvals/3f2a90c1d4e5b677.json   from the next task on
flip site release site.yaml  what waits here by policy.release, in words; then to let it leave, or stay (--refuse):
flip site release site.yaml RUN --stage results --name ada --key ada.pem --reason WHY
flip site pack RUN OUT       a folder for the output checkers of a trusted research environment

flip/site/README.md walks through them; conf/README.md has the keys of a site's file."""
LONGEST = 10**6  # characters of the line that names a table's columns
COMMANDS: Mapping[str, Callable[[Path], None]]
LONGER: Mapping[str, tuple[str, str]] = {
    "key": ("flip.deploy.approve", "key"),
    "review": ("flip.deploy.approve", "show"),
    "approve": ("flip.deploy.approve", "approve"),
    "audit": ("flip.deploy.site_audit", "command"),
    "request": ("flip.deploy.request", "command"),
    "peers": ("flip.deploy.peers", "command"),
    "revoke": ("flip.deploy.approve", "revoke"),
    "release": ("flip.deploy.release", "command"),
    "pack": ("flip.deploy.pack", "command"),
}
"""Commands that take more than a file, with the module and the function that answer each."""


def site(arguments: Sequence[str]) -> int:
    """Write or check a site's own file. Returns the exit status. Raises UserError."""
    from flip.errors import UserError, nearest

    if not arguments or (arguments[0] not in LONGER and {"--help", "-h"} & set(arguments)):
        print(HELP)
        return 0
    if arguments[0] in LONGER:
        module, name = LONGER[arguments[0]]
        return int(getattr(import_module(module), name)(arguments[1:]) or 0)
    if arguments[0] not in COMMANDS:
        raise UserError(f"site {arguments[0]}: is no command; {nearest(arguments[0], [*COMMANDS, *LONGER])}")
    if len(arguments) != 2:
        raise UserError(f"site {arguments[0]}: takes one file, as in: flip site {arguments[0]} site.yaml")
    COMMANDS[arguments[0]](Path(arguments[1]).expanduser())
    return 0


def init(path: Path) -> None:
    """Write a new file, which its owner alone can read. Raises UserError where there is one, or no folder for it."""
    from flip.config.site_template import SITE_TEMPLATE
    from flip.deploy.new_file import write_new

    write_new(path, SITE_TEMPLATE.encode())
    print(f"{path}: fill in each ???, then: flip site check {path}")


def check(path: Path) -> None:
    """Print what a site's file permits at a hospital. Raises UserError with every mistake in it."""
    from flip.config.policy import Policy
    from flip.config.site_file import load_site
    from flip.deploy.permits import permits
    from flip.errors import UserError, unique
    from flip.federation.peers import check_own

    own = load_site(path)
    problems = []
    try:
        policy = Policy.read("NAME", own.policy, deployed=True)
    except UserError as error:
        problems += [each.replace("sites.NAME.", "", 1) for each in error.problems]
    problems += list(_mistakes(path, own))
    if not problems:
        check_own(path)
    if problems:
        raise UserError(unique(f"{path}: {each}" for each in problems))
    print(permits(own, policy))


def peer(path: Path) -> None:
    """Print the public key of a site. Raises UserError for an unfit secret, and one that is not its request's."""
    from flip.federation.peers import public_key

    print(public_key(path))


def _mistakes(path: Path, own: "Site") -> Iterator[str]:
    """What is wrong in the file besides its policy."""
    from flip.config.checks.devices import device_problems
    from flip.config.checks.sites import ACCELERATORS, PRECISIONS
    from flip.config.opt_out import ROW, list_problems
    from flip.config.rules import is_sha256
    from flip.config.schema import SIMULATED
    from flip.config.targets import TARGET
    from flip.errors import nearest

    if own.person is None and "table" not in own.sources:
        yield "person: has no value; name the column that says whose a row is, or 'row' where each row is a person"
    if own.secret == SIMULATED:
        yield f"secret: '{SIMULATED}' protects nothing; name a file, or null for one of its own"
    if own.part is not None:
        yield "part: is of a cohort that simulated sites share; leave it out"
    yield from list_problems(own)
    for key, valid in (("accelerator", ACCELERATORS), ("precision", PRECISIONS)):
        if (value := getattr(own, key)) is not None and value not in valid:
            yield f"{key}: {value!r} is none of {', '.join(valid)}"
    if not own.sources and not Path(own.root).exists():
        yield f"root: there is nothing at {own.root}; name the file or folder of the data"
    elif not own.sources and own.person not in (None, ROW) and Path(own.root).suffix == ".csv":
        header = _header(Path(own.root))
        if own.person not in header:
            yield f"person: {own.person!r} is no column of {own.root}; {nearest(str(own.person), header)}"
    yield from device_problems(own, here=True)
    for name, public in own.peers.items():
        if not is_sha256(public):
            yield f"peers.{name}: {public!r} is no public key of 64 digits; flip site peer says that site's own there"
    for part, config in own.sources.items():
        if not isinstance(config, Mapping) or not isinstance(config.get(TARGET), str):
            yield f"sources.{part}: must name a class by {TARGET}, as in {{{TARGET}: datamodules.sources.table.Table}}"


def _header(path: Path) -> list[str]:
    """The names of the columns of a table. Raises UserError for a file that cannot be read."""
    from flip.errors import UserError

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(LONGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a table ({type(error).__name__}); see root") from error
    delimiter = max(",;\t|", key=line.count)
    return [name.strip() for name in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])]


COMMANDS = {"init": init, "check": check, "peer": peer}
