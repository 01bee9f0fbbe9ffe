"""`flip site key`, `review`, `approve` and `revoke`: a person at a site looks at a study, and signs for it or not."""

import argparse
import base64
import getpass
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.config.approvers import Approvers
from flip.config.envelope import Envelope, canonical, data_of
from flip.config.free_keys import read_free
from flip.config.policy import Policy
from flip.config.schema import Site
from flip.config.site_file import load_site
from flip.deploy.new_file import write_new
from flip.deploy.review import read_study, review, terms
from flip.errors import UserError
from flip.federation.kit import KIT, Kit
from flip.runs.rerun import MANIFEST
from flip.site import approvals
from flip.site.approvals import Approval, Approvals, read_file
from flip.site.signatures import today

OWN = "flip site"
TERMS = ("reason", "ethics", "expires", "free", "runs")


def key(arguments: Sequence[str]) -> None:
    """Make a person's private key, and print the public half for the site's file. Raises UserError."""
    parser = _parser("key")
    parser.add_argument("name", help="whose it is, as policy.approval will list it")
    parser.add_argument("--key", type=Path, required=True, help="new file, outside of the site's folders, mode 600")
    parser.add_argument("--passphrase", action="store_true", help="ask for a passphrase, and encrypt the file")
    given = parser.parse_args(arguments)
    made = Ed25519PrivateKey.generate()
    secret = _passphrase("New passphrase: ", again=True) if given.passphrase else None
    lock = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    write_new(given.key, pem)
    print(f"{given.key}: keep it where the site's process cannot read it. The site's owner writes into site.yaml:")
    print(f"policy: {{..., approval: {{keys: {{{given.name}: {public(made)}}}, needed: 1}}}}")


def show(arguments: Sequence[str]) -> None:
    """Print a study in plain words, and whether the site has approved it. Raises UserError."""
    parser = _parser("review")
    parser.add_argument("study", type=Path, help=f"{MANIFEST} of a run, the run's folder, or an approval")
    parser.add_argument("site_file", type=Path, nargs="?")
    given = parser.parse_args(arguments)
    approval = _approval(given.study)
    text = _text(approval) if approval else read_study(given.study)
    own = load_site(given.site_file) if given.site_file else None
    print(review(text, _policy(given.site_file, own) if own else None))
    if approval:
        print(terms(approval.envelope))


def approve(arguments: Sequence[str]) -> None:
    """Sign for a study, or add a signature to an approval that somebody else has signed. Raises UserError."""
    given = _approve_parser().parse_args(arguments)
    own = load_site(given.site_file)
    approvers = _policy(given.site_file, own).approval
    if approvers is None:
        raise UserError(f"{given.site_file}: policy.approval is none, so that nothing is to be signed; list who may")
    private = listed_key(given, "approval", approvers)
    name = given.site or _site_name(given.site_file)
    approval = _approval(given.study)
    stated = [f"--{each}" for each in TERMS if approval and getattr(given, each)]
    if stated:
        raise UserError(f"{', '.join(stated)}: {given.study} states its own terms; sign it as it is, or approve anew")
    approval = approval or Approval(_envelope(given, own, name), [])
    signed = approval.signed(given.name, private)
    places = Approvals(name, own, given.site_file.absolute().with_suffix(""))
    if why := places.invalid(signed, Approvers(approvers.keys)):
        raise UserError(f"{given.study}: {why}; nothing was signed")
    print(review(_text(approval)))
    print(terms(approval.envelope))
    path = places.keep(signed)
    left = approvers.needed - len(Approval.parse(read_file(path)).signers(approvers))
    rest = f"another person signs: {OWN} approve {path} {given.site_file} --name ... --key ..." if left > 0 else ""
    print(f"Signed by {given.name}: {path}. " + (f"It is not enough yet; {rest}" if rest else "It holds from now on."))


def revoke(arguments: Sequence[str]) -> None:
    """Have an approval hold for no further task. Raises UserError."""
    parser = _parser("revoke")
    parser.add_argument("approval", type=Path, help="its file in the folder approvals beside the site's file")
    path = parser.parse_args(arguments).approval
    if (approval := _approval(path)) is None:
        raise UserError(f"{path}: is no approval; name a file of the folder approvals beside the site's file")
    if path.absolute().parent.name != approvals.FOLDER:
        raise UserError(f"{path}: is a copy, by which nothing is revoked; name the one in {approvals.FOLDER}")
    approvals.revoke(path, approval.envelope)
    print(f"{path}: is revoked; from the next task on it holds for nothing, and no copy of it does")


def public(private: Ed25519PrivateKey) -> str:
    """The public half of a key, in base64."""
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def _parser(command: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(f"{OWN} {command}", allow_abbrev=False)


def _approve_parser() -> argparse.ArgumentParser:
    parser = _parser("approve")
    parser.add_argument("study", type=Path, help=f"{MANIFEST} of a run, the run's folder; or an approval, to sign too")
    parser.add_argument("site_file", type=Path)
    parser.add_argument("--name", required=True, help="who signs, as policy.approval lists it")
    parser.add_argument("--key", type=Path, required=True, help="that person's private key")
    parser.add_argument("--reason", help="why this study may run here")
    parser.add_argument("--ethics", help="reference of the ethics committee's decision")
    parser.add_argument("--expires", help="last day on which it holds, UTC, as in 2027-06-30")
    parser.add_argument("--free", action="append", default=[], help="'seed: any', 'model.optimizer.lr: [1e-4, 1e-1]'")
    parser.add_argument("--runs", type=int, help="runs that may ask for anything; 1 if left out")
    parser.add_argument("--site", help=f"the site's name in the roster; that of {KIT} beside its file if left out")
    return parser


def _envelope(given: argparse.Namespace, own: Site, name: str) -> Envelope:
    """What is to be signed of a study. Raises UserError with every mistake."""
    problems = [f"--{each}: has no value" for each in ("reason", "ethics", "expires") if not getattr(given, each)]
    try:
        if given.expires and date.fromisoformat(given.expires) < today():
            problems.append(f"--expires {given.expires}: is past")
    except ValueError:
        problems.append(f"--expires {given.expires}: must be a day, as in 2027-06-30")
    runs = 1 if given.runs is None else given.runs
    if runs < 1:
        problems.append(f"--runs {runs}: must be 1 or more")
    manifest: dict[str, object] = json.loads(read_study(given.study))
    free: dict[str, object] = {}
    try:
        free = read_free(manifest, given.free)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    day = date.fromisoformat(given.expires).isoformat()
    return Envelope(name, data_of(own), manifest, free, runs, given.reason, given.ethics, day)


def _text(approval: Approval) -> str:
    return canonical(approval.envelope.manifest)


def _approval(path: Path) -> Approval | None:
    """The approval that a file holds; None for a manifest, a folder, or what is not there."""
    try:
        return Approval.parse(read_file(path))
    except (OSError, ValueError):
        return None


def _policy(file: Path, own: Site) -> Policy:
    try:
        return Policy.read("NAME", own.policy, deployed=True)
    except UserError as error:
        raise UserError([f"{file}: {each.replace('sites.NAME.', '', 1)}" for each in error.problems]) from error


def _site_name(file: Path) -> str:
    """The site's name, from the kit that its file lies in. Raises UserError where it lies in none."""
    if not (file.parent / KIT).is_file():
        raise UserError(f"--site: has no value, and beside {file} lies no {KIT} with the site's name; state it")
    return Kit.read(file.parent).site


def listed_key(given: argparse.Namespace, rule: str, persons: Approvers) -> Ed25519PrivateKey:
    """The private key of who signs, whom a rule of the site's policy lists. Raises UserError."""
    key = _private_key(given.key, given.site_file)
    if persons.keys.get(given.name) != public(key):
        line = f"{given.name}: {public(key)}"
        raise UserError(f"{given.site_file}: policy.{rule}.keys does not have this key; its owner adds '{line}'")
    return key


def _private_key(path: Path, site_file: Path) -> Ed25519PrivateKey:
    """A person's private key. Raises UserError for one that others, or the site's process, may read."""
    if path.resolve().is_relative_to(site_file.absolute().parent.resolve()):
        raise UserError(f"{path}: lies in the site's own folder, where its process can read it; keep it elsewhere")
    try:
        text = read_file(path).encode()
        if path.stat().st_mode & 0o077:
            raise UserError(f"{path}: others than its owner can read it; chmod 600 it")
        encrypted = b"ENCRYPTED" in text.partition(b"\n")[0]
        found = serialization.load_pem_private_key(text, _passphrase("Passphrase: ") if encrypted else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: is no key that can be read with this passphrase; {OWN} key makes one") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise UserError(f"{path}: is another kind of key; {OWN} key makes one")
    return found


def _passphrase(prompt: str, *, again: bool = False) -> bytes:
    secret = getpass.getpass(prompt)
    if not secret or (again and getpass.getpass("The same again: ") != secret):
        raise UserError("the passphrase is empty, or the two are not the same; start again")
    return secret.encode()
