"""A study in plain words, as a person at a site reads it before signing: what would run, on what, and what would leave.

All of it is read from the manifest's text: nothing that the study names is imported, and no data are read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from flip.config.build import targets
from flip.config.checks.manifest import read_manifest
from flip.config.code import code_digest
from flip.config.envelope import Envelope, canonical
from flip.config.policy import Policy
from flip.config.study import Manifest
from flip.config.targets import TARGET
from flip.deploy.permits import LEAVES
from flip.errors import UserError
from flip.runs.rerun import MANIFEST
from flip.text import printable

WHOLE = 10**9  # characters of a line: none is cut, or something could hide behind its end
TRACKERS = "not in a manifest: the coordinator names them with each task, and policy.trackers here decides"


def read_study(path: Path) -> str:
    """The manifest's text, of a file or a run's folder. Raises UserError for what is none."""
    file = path / MANIFEST if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8").rstrip("\n")
        manifest = read_manifest(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read; name {MANIFEST} of a run, or the run's folder") from error
    except UserError as error:
        raise UserError([f"{file}: {each}" for each in error.problems]) from error
    if canonical(manifest) != text:
        raise UserError(f"{file}: is not as a run wrote it; ask for it again")
    return text


def review(text: str, policy: Policy | None = None) -> str:
    """What a manifest asks of a site, in plain words; with a policy also what that says of it."""
    manifest: Manifest = json.loads(text)
    try:
        return "\n".join(printable(line, WHOLE) for line in _lines(text, manifest, policy))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("the manifest is not one of a settled study; a site refuses it") from error


def terms(envelope: Envelope) -> str:
    """What an approval says besides the study."""
    free = [f"    {key}: {_free(rule)}" for key, rule in envelope.free.items()] or ["    nothing"]
    lines = [
        f"Approved for site {envelope.site}: {envelope.runs} run{'s' * (envelope.runs > 1)}, until {envelope.expires}.",
        f"    reason: {envelope.reason}",
        f"    ethics: {envelope.ethics}",
        "May differ from the study above:",
        *free,
    ]
    return "\n".join(printable(line, WHOLE) for line in lines)


def _free(rule: object) -> str:
    match rule:
        case {"between": [least, most]}:
            return f"from {least} to {most}"
        case {"one_of": [*choices]}:
            return "one of " + "; ".join(canonical(each) for each in choices)
    return str(rule)


def _lines(text: str, manifest: Manifest, policy: Policy | None) -> Iterator[str]:
    yield f"Study {manifest['name']}, of engine {manifest['engine']}"
    yield f"    sha256 of its manifest: {hashlib.sha256(text.encode()).hexdigest()}"
    if manifest["notice"]:
        yield f"    notice: {manifest['notice']}"
    yield "Data: which rows and columns, persons and split, and the text of queries, all as the study states them"
    yield from _tree(manifest["dataset"])
    yield "Code: classes that are started here; none is sent"
    yield from (f"    {each}" for each in targets(manifest))
    same = manifest["code"] == code_digest(targets(manifest))
    yield f"    digest {manifest['code']}, which is {'' if same else 'NOT '}that of the code installed here"
    yield "Model"
    yield from _tree(manifest["model"])
    yield from _privacy(manifest)
    yield from _protocol(manifest)
    yield from _leaves(manifest, policy)


def _tree(value: object, indent: str = "    ") -> Iterator[str]:
    """Keys and values, indented; a text of several lines line by line."""
    for key, each in (
        value.items() if isinstance(value, Mapping) else enumerate(value if isinstance(value, list) else [])
    ):
        name = f"{key}:" if isinstance(value, Mapping) else "-"
        if isinstance(each, Mapping) or (isinstance(each, list) and any(isinstance(one, dict | list) for one in each)):
            yield f"{indent}{name}"
            yield from _tree(each, indent + "  ")
        elif isinstance(each, str) and "\n" in each:
            yield f"{indent}{name}"
            yield from (f"{indent}  | {line}" for line in each.split("\n"))
        else:
            yield f"{indent}{name} {each if isinstance(each, str) else json.dumps(each)}"


def _privacy(manifest: Manifest) -> Iterator[str]:
    if not manifest["privacy"]:
        yield "Privacy: no mechanism; what leaves has no noise"
        return
    yield f"Privacy: {', '.join(manifest['mechanisms'])}"
    yield from _tree(manifest["privacy"])


def _protocol(manifest: Manifest) -> Iterator[str]:
    strategy, trainer = manifest["strategy"], manifest["trainer"]
    most = f"{trainer['steps']} steps" if trainer["steps"] is not None else f"{trainer['epochs']} epochs"
    yield f"Protocol: {strategy['rounds']} rounds of {most} each, by {strategy[TARGET]}"
    yield from _tree({key: each for key, each in strategy.items() if key not in (TARGET, "rounds")})
    yield from _tree({"seed": manifest["seed"], "numerics": manifest["numerics"], "trainer": trainer})
    if manifest["given"]:
        yield f"    models trained elsewhere: {', '.join(manifest['given'])}"


def _leaves(manifest: Manifest, policy: Policy | None) -> Iterator[str]:
    permitted = policy.releases if policy else LEAVES
    yield "What leaves" + (", as far as policy.releases lets it" if policy else ", unless policy.releases keeps it")
    for kind in LEAVES:
        asked = kind != "outcomes" or manifest["outcomes"]
        stays = "" if kind in permitted else ": stays, by policy.releases"
        yield f"    {kind}: {LEAVES[kind]}{stays}" if asked else "    outcomes: none asked for"
    if manifest["outcomes"]:
        yield from _tree({"outcomes": manifest["outcomes"]})
    yield f"Online trackers: {TRACKERS}"
    if policy and (refused := policy.refuses(manifest)):
        yield f"This site would refuse it: {refused[1]}"
