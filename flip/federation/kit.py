"""What the folders of every deployment share: who may read them, `kit.yaml`, the site's own file, and all or nothing.

A kit is a folder that one party gets: `server`, `admin` (who submits studies), `authority` (who lets further sites in)
and one per site. Its `kit.yaml` says which backend and which party it is for.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flip.config.site_file import SITE_NAME
from flip.config.site_template import SITE_TEMPLATE
from flip.errors import UserError
from flip.files import POOLED
from flip.numerics import FAST, PORTABLE, VARIABLES, able

KIT, SITE_FILE, README, SECRET = "kit.yaml", "site.yaml", "README.md", "secret"
SERVER, ADMIN, SITE, AUTHORITY = "server", "admin", "site", "authority"
BACKENDS = ("flower", "nvflare")
ROSTER = (
    "sites"  # in the server's kit, which believes it, and in the authority's: a public key of each site, `<site>.pub`
)
LONGEST_NAME = 64  # letters, as many as a certificate's common name has
PEERS_README = (
    "For secure sums: `python -m flip site peers peers/ site.yaml` says whom to ask for what, and writes nothing.\n"
)
HANDOVER = "The private key in it was made here: hand the folder over safely, and delete it here."


@dataclass(frozen=True)
class Kit:
    """A party's folder.

    Attributes:
        folder: where it lies, absolute.
        backend: "flower" or "nvflare".
        party: "server", "admin" or "site".
        settings: all of `kit.yaml`.
    """

    folder: Path
    backend: str
    party: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Kit":
        """Read a folder's `kit.yaml`. Raises UserError naming the folder and the remedy."""
        path = folder / KIT
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{folder}: holds no {KIT}; python -m flip deploy flower sites=... makes kits") from error
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
        if not isinstance(settings, dict) or settings.get("backend") not in BACKENDS or "party" not in settings:
            raise UserError(f"{path}: must hold backend ({' or '.join(BACKENDS)}) and party; prepare the kits again")
        return cls(folder.absolute(), settings["backend"], str(settings["party"]), settings)

    def setting(self, key: str) -> Any:
        """A setting that must be there. Raises UserError."""
        if self.settings.get(key) is None:
            raise UserError(f"{key} ({self.folder / KIT}): has no value; set it")
        return self.settings[key]

    @property
    def site(self) -> str:
        """The name of the site that a site's kit is of. Raises UserError."""
        return str(self.setting("site" if self.backend == "flower" else "name"))

    def numerics(self) -> Mapping[str, str]:
        """The variables of `numerics: portable`, where the kit asks for it, for every process of the party.

        Raises UserError for another word than `fast` and `portable`, and on a processor that cannot.
        """
        wanted = self.settings.get("numerics", FAST)
        if wanted not in (FAST, PORTABLE):
            raise UserError(f"numerics ({self.folder / KIT}): must be {FAST} or {PORTABLE}, not {wanted}")
        if wanted == PORTABLE and not able():
            raise UserError(f"numerics ({self.folder / KIT}): {PORTABLE} needs an x86-64 processor with AVX2 and FMA")
        return VARIABLES if wanted == PORTABLE else {}


@contextmanager
def whole_or_not(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` when the block ends well; otherwise nothing is left of it.

    Only its owner can enter it. Raises UserError where `out` is there already, or its parent is not a folder.
    """
    if out.exists():
        raise UserError(f"out={out}: is there already; choose another folder")
    if not out.absolute().parent.is_dir():
        raise UserError(f"out={out}: {out.absolute().parent} is not a folder; make it first")
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        yield temporary
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(path: Path, content: bytes | str) -> None:
    """Write a file that only its owner can read, below folders that only their owner can enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def enlist(kits: Path, site: str, public: bytes) -> None:
    """Write a site's public key into the rosters of the server and of who lets further sites in."""
    for party in (SERVER, AUTHORITY):
        write(kits / party / ROSTER / f"{site}.pub", public)


def keep_private(path: Path) -> None:
    """Refuse a key that is missing or that others can read. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: is missing; put the private key that belongs to this kit there")
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others can read this key: chmod 600 it")


def temporary_files(folder: Path) -> Path:
    """An empty folder in a kit for temporary files: what was killed leaves them there until the next start."""
    temporary = folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    return temporary


def write_site(folder: Path, readme: str, *, made_here: bool) -> None:
    """What a site's folder holds on every backend: the file to fill in, and how to start.

    A site that has made its own keys has made its secret with them: its file names where that belongs.
    """
    named = SITE_TEMPLATE.replace("\nsecret: null  ", f"\nsecret: {SECRET}")
    write(folder / SITE_FILE, SITE_TEMPLATE if made_here else named)
    write(folder / README, readme if made_here else f"{readme}{PEERS_README}")


def check_numerics(word: str) -> None:
    """Refuse a word that says nothing of how the parties compute. Raises UserError."""
    if word not in (FAST, PORTABLE):
        raise UserError(f"numerics={word}: must be {FAST} or {PORTABLE}")


def check_names(sites: Sequence[str]) -> None:
    """Refuse names that cannot name a site's folder or its certificate, or that only case tells apart.

    Raises UserError.
    """
    problems = [f"sites={name}: a site's name is made of letters, digits, - and _, at most {LONGEST_NAME}"
                for name in sites if not SITE_NAME.fullmatch(name) or len(name) > LONGEST_NAME]  # fmt: skip
    taken = [SERVER, ADMIN, AUTHORITY, POOLED]
    for name in sites:
        if name.lower() in taken:
            problems.append(f"sites={name}: is taken; choose another name")
        taken.append(name.lower())
    if not sites:
        problems = ["sites: names no site; set it, as in sites=[kings,guys]"]
    if problems:
        raise UserError(problems)
