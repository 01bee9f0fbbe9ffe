"""A site's list of the persons who opted out or withdrew: a text file, one person a line."""

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from flip.config.schema import Site
from flip.errors import UserError

ROW = "row"  # a site's word in place of a column of persons, where each row is one
HEADERS = frozenset({"person", "person_id", "patient", "patient_id", "mrn", "id"})  # a first line that names a column

WRITTEN_AS_FLOAT = re.compile(r"[0-9]+\.0")
MORE = ';\t|"\n\r'  # a quote that is not closed takes the next lines along


def person_name(text: str) -> str:
    """A person's identifier as every dataset gives it: 12 and 12.0 are one, as spreadsheets and pandas write them."""
    text = text.strip()
    return text.removesuffix(".0") if WRITTEN_AS_FLOAT.fullmatch(text) else text


def opted_out(site: Site) -> frozenset[str]:
    """The persons on the site's list, as the site's own column writes them; nobody where it has no list.

    Raises UserError for a list that cannot be read, that names nobody, or whose lines hold more than a person: what
    is read wrong there would leave somebody in.
    """
    return _persons(Path(site.opt_out)) if site.opt_out else frozenset()


def list_problems(site: Site) -> Iterator[str]:
    """What is wrong with the site's list, or with what it would be held against."""
    try:
        opted_out(site)
    except UserError as error:
        yield from error.problems
    if site.opt_out and site.person == ROW:
        yield f"opt_out: with person: {ROW} no column says whose a row is; name it, as in person: MRN"


def list_digest(site: Site) -> str:
    """Sha256 over the persons of the list; empty where the site has none. Raises as `opted_out`."""
    return hashlib.sha256("\n".join(sorted(opted_out(site))).encode()).hexdigest() if site.opt_out else ""


def _persons(path: Path) -> frozenset[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[person_name(cell) for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        no_text = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else "a quote in it is not closed"
        why = error.strerror if isinstance(error, OSError) else no_text
        raise UserError(f"opt_out: {path} cannot be read ({why}); nothing is answered without the list") from error
    for number, row in enumerate(rows, 1):
        if len(row) > 1 or any(sign in cell for cell in row for sign in MORE):
            raise UserError(f"opt_out: {path}, line {number}, holds more than a person; write one a line, nothing else")
    found = [row[0] for row in rows if row and row[0]]
    persons = frozenset(found[1:] if found and found[0].lower() in HEADERS else found)
    if not persons:
        raise UserError(f"opt_out: {path} names nobody; where nobody has opted out, set opt_out: null")
    return persons
