"""`flip site audit`: what a site was asked and what left it, whether its journal is whole, and where a person stood."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flip.site.journal import Entry, Journal

COLUMNS = ("entry", "time", "run", "step", "stage", "round", "outcome", "persons", "bytes", "digest")
NO_ANSWER = "asked, no answer left"


def command(arguments: Sequence[str]) -> int:
    """Verify a journal and print it. Returns 0, or 1 where it is not as the site wrote it. Raises UserError."""
    from flip.config.opt_out import person_name
    from flip.site.journal import FILE, Broken

    given = _parser().parse_args(arguments)
    journal = _journal(given.site)
    entries: list[Entry] = []
    try:
        for entry in journal.entries():
            entries.append(entry)
        known = journal.cohorts_of(person_name(given.person)) if given.person else set()
    except Broken as broken:
        print(*table(entries), "", sep="\n")
        print(
            f"BROKEN: {journal.folder / FILE}, {broken}. The {len(entries)} entries before it are as they were written."
        )
        return 1
    print(*(table(entries) if given.person is None else of_person(entries, known)), "", sep="\n")
    head = f"{len(entries)}:{entries[-1]['seal']}" if entries else "none"
    problems = list(missed(entries, heads_of(given, journal.folder.name)))
    print(*problems or [f"{len(entries)} entries, all as they were written. Head: {head}"], sep="\n")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("flip site audit", description=__doc__.split(": ", 1)[1])
    parser.add_argument("site", type=Path, help="the site's own file, or its home, the folder of the same name")
    parser.add_argument("--head", help="a head of the journal that somebody kept, NUMBER:SEAL, or a coordinator's RUN")
    parser.add_argument("--name", help="the site's name in that RUN; the name of its home if left out")
    parser.add_argument("--person", metavar="ID", help="in which runs the rows of this person stood")
    return parser


def _journal(path: Path) -> "Journal":
    """The journal of a site's file or home; no secret is made. Raises UserError where there is none to read."""
    from flip.config.schema import SIMULATED, Site
    from flip.config.site_file import load_site
    from flip.errors import UserError
    from flip.site.journal import FILE, journal_of
    from flip.site.secret import secret_file

    home = path.absolute() if path.is_dir() else path.absolute().with_suffix("")
    file = home.parent / f"{home.name}.yaml" if path.is_dir() else path
    site = load_site(file) if file.exists() else Site()
    if not (home / FILE).is_file():
        raise UserError(
            f"{path}: there is no journal {home / FILE}; name a site's file, or its home, as flip start says"
        )
    if site.secret != SIMULATED and not secret_file(site, home).is_file():
        raise UserError(f"{secret_file(site, home)}: is not there, and the journal is sealed by it; put it back")
    try:
        return journal_of(home.name, site, home)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error


def heads_of(given: argparse.Namespace, home: str) -> Iterator[str]:
    """The heads that somebody kept: one that is given, or all of this site in a coordinator's run. Raises UserError."""
    from flip.errors import UserError
    from flip.messages.forms import HEAD

    if given.head is None:
        return
    if HEAD.fullmatch(given.head):
        yield given.head
        return
    lines, name = Path(given.head) / "rounds.jsonl", given.name or home
    if not lines.is_file():
        raise UserError(f"--head {given.head}: is neither NUMBER:SEAL, as 12:0a1b..., nor a run with a rounds.jsonl")
    told = [*_told(lines)]
    heads = [head for site, head in told if site == name and head]
    if not heads:
        sites = ", ".join(sorted({site for site, head in told if head})) or "none"
        raise UserError(f"--name {name}: {lines} has no head of this site's journal; it has those of {sites}")
    yield from heads


def _told(path: Path) -> Iterator[tuple[str, str]]:
    """Site and head of each whole line of a coordinator's `rounds.jsonl`. Raises UserError naming one that is none."""
    from flip.errors import UserError
    from flip.messages.forms import HEAD

    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            found = json.loads(line)
            site, head = found["site"], found.get("journal") or ""
            if not isinstance(site, str) or (head and not HEAD.fullmatch(head)):
                raise ValueError
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            remedy = "ask the coordinator for a copy of the run, or state a head that you kept, NUMBER:SEAL"
            raise UserError(f"--head: line {number} of {path} is damaged; {remedy}") from error
        yield site, head


def missed(entries: Sequence["Entry"], heads: Iterator[str]) -> Iterator[str]:
    """What kept heads say against a journal whose own chain is whole."""
    cut, other = 0, 0
    for head in heads:
        number, seal = head.split(":")
        if int(number) > len(entries):
            cut = max(cut, int(number))
        elif entries[int(number) - 1]["seal"] != seal:
            other = min(other or int(number), int(number))
    if cut:
        yield f"CUT: the journal ends at entry {len(entries)}, and a reply left with the head of entry {cut}."
    if other:
        yield f"REPLACED: entry {other} is another one than that whose head left with a reply."


def table(entries: Sequence["Entry"]) -> list[str]:
    """A line for each task: how it ended, and what left for it; of one without an end that it came."""
    left = Counter(entry["task"] for entry in entries if entry["outcome"] != "asked")
    rows: list[tuple[str, ...]] = [COLUMNS]
    for entry in entries:
        if entry["outcome"] != "asked":
            rows.append(_row(entry))
        elif left[entry["task"]] > 0:
            left[entry["task"]] -= 1
        else:
            rows.append(_row({**entry, "outcome": NO_ANSWER}))
    return aligned(rows)


def _row(entry: Mapping[str, object]) -> tuple[str, ...]:
    outcome = f"{entry['outcome']}: {entry['fault']}" if entry.get("fault") else str(entry["outcome"])
    shown = [entry["n"], str(entry["time"])[:19], str(entry["run"])[:24], entry["step"], entry["stage"], entry["round"]]
    shown += [outcome, entry.get("persons", ""), entry.get("bytes", ""), str(entry.get("digest", ""))[:12]]
    return tuple(map(str, shown))


def of_person(entries: Sequence["Entry"], known: set[str]) -> list[str]:
    """The runs in which rows of a person stood behind something that was answered, each with its tasks."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.get("cohort") in known and entry["outcome"] in ("answered", "repeated"):
            found.setdefault(str(entry["run"]), []).append(entry)
    nameless = len({entry["run"] for entry in entries if entry["outcome"] == "answered" and not entry.get("cohort")})
    rows: list[tuple[str, ...]] = [("run", "study", "first", "last", "answers", "steps")]
    for run, each in found.items():
        steps = ", ".join(dict.fromkeys(str(entry["step"]) for entry in each))
        times = [str(entry["time"])[:19] for entry in (each[0], each[-1])]
        rows.append((run, str(each[0]["study"])[:12], *times, str(len(each)), steps))
    lines = aligned(rows) if found else ["In no run: no cohort that was read here had a row of this person."]
    unsaid = f"Runs that read a cohort whose table names no person, of which the journal cannot say: {nameless}."
    return [*lines, unsaid] if nameless else lines


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
