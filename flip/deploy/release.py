"""`flip site release`: what waits at a site in plain words, and a person's word that it leaves, or stays."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from flip.config.approvers import Release
from flip.config.site_file import load_site
from flip.deploy.approve import OWN, listed_key
from flip.errors import UserError, several
from flip.messages.stages import STAGES, TRAINING
from flip.site.held import PURPOSE, Decision, Record, Waiting
from flip.site.journal import journal_of
from flip.site.signatures import sign
from flip.text import printable

WHOLE = 10**6  # characters of a line: what is shown is not cut


def command(arguments: Sequence[str]) -> None:
    """Show what waits, and with a name and a key release or refuse it. Raises UserError."""
    given = _parser().parse_args(arguments)
    own = load_site(given.site_file)
    stated = own.policy.get("release") if isinstance(own.policy, Mapping) else None
    if stated is None:
        raise UserError(f"{given.site_file}: policy.release is null, so that nothing waits here")
    rule, waiting = Release.read("policy.release", stated), Waiting(given.site_file.absolute().with_suffix(""))
    found = list(_undecided(waiting, rule, given))
    for line in (line for record in found for line in shown(record)):
        print(printable(line, WHOLE))
    if not found:
        print(f"Nothing waits at {given.site_file}{f' of run {given.run}' if given.run else ''}.")
    if given.name is None:
        return
    decision = _decision(given, found, waiting)
    key = listed_key(given, "release", rule.by)
    others = [each for each in decision.signatures if each.name != given.name]
    signed = replace(decision, signatures=[*others, sign(PURPOSE, decision.statement, given.name, key)])
    waiting.keep(signed)
    said = {key: value for key, value in asdict(signed).items() if key in ("run", "study", "stage")}
    said |= {"step": "release", "round": "", "task": signed.digest, "digest": signed.digest}
    journal_of(waiting.home.name, own, waiting.home).decided(said, signed.signers(rule), leaves=signed.leaves)
    print(_outcome(signed, rule))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"{OWN} release", allow_abbrev=False)
    parser.add_argument("site_file", type=Path)
    parser.add_argument("run", nargs="?", help="identifier of the run, as it is shown without any; all if left out")
    parser.add_argument("--stage", choices=STAGES, help="which stage of that run")
    parser.add_argument("--name", help="who decides, as policy.release lists it")
    parser.add_argument("--key", type=Path, help="that person's private key")
    parser.add_argument("--reason", default="", help="why it may leave, or not")
    parser.add_argument("--refuse", action="store_true", help="it does not leave")
    return parser


def _undecided(waiting: Waiting, rule: Release, given: argparse.Namespace) -> Iterator[Record]:
    for record in waiting.records():
        asked = given.run in (None, record["run"]) and given.stage in (None, record["stage"])
        if asked and waiting.decided(record, rule) is None:
            yield record


def _decision(given: argparse.Namespace, found: Sequence[Record], waiting: Waiting) -> Decision:
    """What is to be signed: what another person has signed of the same, or a new one. Raises UserError."""
    missing = [f"--{each}: has no value" for each in ("stage", "key", "reason") if not getattr(given, each)]
    missing += [] if given.run else ["RUN: has no value; name the run whose answers leave or stay"]
    if missing:
        raise UserError(missing)
    if not found:
        raise UserError(f"{given.run}: has nothing that waits in stage {given.stage}; nothing was signed")
    first = found[0]
    answers = [] if given.stage == TRAINING else sorted({str(each["digest"]) for each in found})
    site, run, study, stage = (str(first[key]) for key in ("site", "run", "study", "stage"))
    made = Decision(site, run, study, stage, answers, not given.refuse, given.reason)
    same = (each for each in waiting.decisions() if replace(each, reason=made.reason, signatures=()) == made)
    return next(same, made)


def _outcome(decision: Decision, rule: Release) -> str:
    whose = f"{decision.stage} of run {decision.run}"
    if not decision.leaves:
        return f"Refused: {whose} stays here. The coordinator learns that it was refused, and nothing of why."
    if (left := rule.by.needed - len(decision.signers(rule))) > 0:
        return f"Signed, and not enough yet: {several(left, 'more person')} must release {whose}."
    return f"Released: {whose} leaves when the coordinator goes on by resume=RUN."


def shown(record: Record) -> Iterator[str]:
    """An answer that waits, in plain words."""
    persons, stage = record["persons"], record["stage"]
    yield f"Run {record['run']}, stage {stage}: waits since {record['held']} at site {record['site']}"
    yield f"    study {record['study']}"
    behind = f"{persons} persons stand behind it" if persons else "the site does not count whose rows stand behind it"
    yield f"    answer to {record['step']}, round {int(str(record['round'])) + 1}: {behind}"
    yield f"    digest {record['digest']}"
    if stage == TRAINING:
        yield "    a release covers all that leaves in the training of this run: each round's weights and validation"
    yield f"    examples: {record['examples']}"
    for title, key in (("metric", "metrics"), ("stays, by rule", "withheld"), ("numbers", "told"), ("array", "arrays")):
        values = record[key]
        for name, value in values.items() if isinstance(values, dict) else ():
            yield f"    {title} {name}: {', '.join(value) if key == 'told' else value}"
