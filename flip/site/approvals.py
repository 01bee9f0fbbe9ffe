"""The approvals of a site: files that persons there have signed, each over an envelope of studies.

They lie in the folder `approvals` beside the site's file, where no study can write and no message reaches. What is not
signed by as many listed persons as the site's file asks for does nothing, whoever put it there.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.config.approvers import Approvers
from flip.config.envelope import Envelope, canonical, data_of
from flip.config.schema import Site
from flip.files import write_atomic
from flip.site.counters import Counter
from flip.site.signatures import Signature, sign, signers, today

FOLDER = "approvals"
REVOKED = ".revoked"
READABLE = 0o644  # the person who signs may have another account than the site's process
MOST_BYTES = 10**7  # of an approval
SHOWN = 5  # approvals that a line of the log speaks of
PURPOSE = b"FLIP approval of a study\n"  # so that no other signature of the same key is one of these


@dataclass(frozen=True)
class Approval:
    """An envelope and who has signed it."""

    envelope: Envelope
    signatures: Sequence[Signature]

    @classmethod
    def parse(cls, text: str) -> "Approval":
        """From a file's text. Raises ValueError for what is none."""
        try:
            value = json.loads(text)
            if not isinstance(value, dict) or {*value} != {"envelope", "signatures"}:
                raise ValueError("an approval holds envelope and signatures")
            return cls(Envelope.read(value["envelope"]), [Signature(**each) for each in value["signatures"]])
        except (AttributeError, LookupError, TypeError, RecursionError) as error:
            raise ValueError("is no approval") from error

    @property
    def text(self) -> str:
        """Canonical JSON."""
        return canonical({"envelope": json.loads(self.envelope.text), "signatures": [vars(s) for s in self.signatures]})

    def signed(self, name: str, key: Ed25519PrivateKey) -> "Approval":
        """With one more signature, of today."""
        made = sign(PURPOSE, self.envelope.text, name, key)
        return Approval(self.envelope, [*(s for s in self.signatures if s.name != name), made])

    def beside(self, other: "Approval | str | None") -> "Approval":
        """With the signatures of others on the same envelope; as it is beside anything else."""
        if not isinstance(other, Approval) or other.envelope.digest != self.envelope.digest:
            return self
        own = {each.name for each in self.signatures}
        return Approval(self.envelope, [*(each for each in other.signatures if each.name not in own), *self.signatures])

    def signers(self, approvers: Approvers) -> set[str]:
        """The listed persons whose signature is whole."""
        return signers(PURPOSE, self.envelope.text, self.signatures, approvers.keys)


@dataclass(frozen=True)
class Approvals:
    """Those of one site.

    Attributes:
        name: the site's name in the roster.
        site: its own file.
        home: its home; `approvals` lies beside it, and in it how many runs each approval has let in.
    """

    name: str
    site: Site
    home: Path

    @property
    def folder(self) -> Path:
        """Where approvals lie."""
        return self.home.parent / FOLDER

    def refusal(self, manifest: str, run: str, approvers: Approvers) -> str:
        """Why a run of this study may not ask anything here, for the site's log; nothing where it is approved.

        Its run is then on disk, as one of those that were approved.
        """
        if not approvers.keys:
            return "policy.approval: the site's file names nobody who may approve a study; state it, or none"
        found = []
        for path, approval in self.read():
            why = approval if isinstance(approval, str) else self._unfit(approval, manifest, run, approvers)
            if not why:
                return ""
            found.append(f"{path.name}: {why}")
        return "; ".join(found[:SHOWN]) or f"no approval lies in {self.folder}"

    def read(self) -> Iterator[tuple[Path, Approval | str]]:
        """By file the approval, or why it is none; links count for nothing."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.json")):
            try:
                yield path, Approval.parse(read_file(path))
            except (OSError, ValueError) as error:
                yield path, f"cannot be read as an approval: {error}"

    def invalid(self, approval: Approval, approvers: Approvers) -> str:
        """Why an approval holds for no study here today; nothing where it does."""
        envelope, signers = approval.envelope, approval.signers(approvers)
        if len(signers) < approvers.needed:
            return f"{len(signers)} of {approvers.needed} signatures that policy.approval asks for are whole"
        if (self.folder / f"{envelope.digest}{REVOKED}").exists():
            return "is revoked"
        if envelope.site != self.name:
            return "is of another site"
        if envelope.data != data_of(self.site):
            return "its data (root, columns, person, sources, cohort, opt_out) are others than were signed for"
        return f"held until {envelope.expires}" if today() > date.fromisoformat(envelope.expires) else ""

    def _unfit(self, approval: Approval, manifest: str, run: str, approvers: Approvers) -> str:
        envelope = approval.envelope
        if why := self.invalid(approval, approvers) or envelope.uncovered(manifest):
            return why
        one = f"{run} {hashlib.sha256(manifest.encode()).hexdigest()}"  # who asks chooses the run's identifier
        taken = Counter(self.home / "approved_runs.jsonl").take(envelope.digest, one, envelope.runs)
        return "" if taken else f"its {envelope.runs} runs have been made"

    def keep(self, approval: Approval) -> Path:
        """Write an approval into the folder, with the signatures that the same envelope has there already."""
        path = self.folder / f"{approval.envelope.digest[:16]}.json"
        approval = approval.beside(dict(self.read()).get(path))
        write_atomic(path, (approval.text + "\n").encode(), READABLE)
        return path


def read_file(path: Path) -> str:
    """The text of a file, not of a link's target. Raises OSError, and ValueError for what is too long or no text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise ValueError("is no file, or too long")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read().decode()
    finally:
        os.close(descriptor)


def revoke(path: Path, envelope: Envelope) -> Path:
    """Have an envelope hold for no task any more, wherever a copy of its approval comes from."""
    mark = path.parent / f"{envelope.digest}{REVOKED}"
    write_atomic(mark, canonical({"revoked": today().isoformat()}).encode() + b"\n", READABLE)
    return mark
