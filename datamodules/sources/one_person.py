"""A cohort query asked for each person alone: nothing in a row can come from the records of somebody else.

The query stands in a LATERAL of the site's table `person`, and each table in it that holds persons is cut to the one
person whose turn it is. So `(SELECT MAX(note_text) FROM note WHERE person_id = 42)` is a note of person 42 in the rows
of person 42, and nothing in those of the others. Whose a row is says that LATERAL, and no expression of the query.
"""

import secrets
from collections.abc import Collection, Mapping, Set

from sqlglot import exp

_SHARED = """
  concept concept_ancestor concept_relationship concept_synonym vocabulary domain concept_class relationship
  drug_strength care_site provider
"""
SHARED = frozenset(_SHARED.split())
"""Tables that are about no patient, and are read whole."""

LINKED = {"location": ("location_id", "person"), "episode_event": ("episode_id", "episode")}
"""Tables without `person_id`: the column by which a table with it says whose their rows are."""


def reads(tables: Set[str]) -> set[str]:
    """The tables that a query of these tables reads once it is asked for each person alone, in lower case."""
    return {*tables, "person", *(LINKED[table][1] for table in tables & LINKED.keys())}


DIGITS = 19  # of the largest BIGINT
OPTED_OUT = "opted_out"
"""The parameter of the persons who opted out: their turn never comes, and no row of theirs is read."""


def alone(query: exp.Query, columns: Mapping[str, Set[str]], *, leaves_out: bool = False) -> exp.Select:
    """A query whose first column is the person, and whose others are those of `query` for this person.

    With `leaves_out` it has the parameter `OPTED_OUT`, an array of whole numbers.

    `columns` are the site's, by table, all in lower case. The aliases are new each time and cannot be guessed: a query
    that knew them could define them anew. Raises ValueError for what means something else when asked for one person.
    """
    _check(query)
    asked, key, own = query.copy(), _name(), _name()
    defined = {cte.alias.lower() for cte in asked.find_all(exp.CTE)}
    for table in list(asked.find_all(exp.Table)):
        if (name := table.name.lower()) not in defined | SHARED or "person_id" in columns.get(name, ()):
            _cut(table, _whose(name, columns, own, exp.column("person_id", key)), own)
    person = exp.column("person_id", own)
    persons = (
        exp.select(person).distinct().from_(exp.to_table("person", alias=own)).where(person.is_(exp.null()).not_())
    )
    if leaves_out:
        gone = exp.cast(exp.Placeholder(this=OPTED_OUT), "BIGINT[]", dialect="postgres")
        persons = persons.where(person.isin(query=exp.select(exp.func("unnest", gone))).not_())
    rows = _name()
    lateral = exp.Lateral(this=asked.subquery(), alias=exp.TableAlias(this=exp.to_identifier(rows)))
    chosen = [exp.column("person_id", key).as_(key), exp.Column(this=exp.Star(), table=exp.to_identifier(rows))]
    return exp.select(*chosen).from_(persons.subquery(key)).join(lateral, join_type="cross")


def gone(opt_out: Collection[str]) -> dict[str, list[int]]:
    """The parameter of `alone` with `leaves_out`; none where nobody has opted out."""
    return {OPTED_OUT: [each for name in sorted(opt_out) if (each := _number(name)) is not None]} if opt_out else {}


def _number(person: str) -> int | None:
    """A person of a list as OMOP numbers persons, a BIGINT; None for what is none of its numbers as it writes them."""
    digits = person.removeprefix("-")
    found = int(person) if digits.isascii() and digits.isdecimal() and len(digits) < DIGITS else None
    return found if str(found) == person else None


def _name() -> str:
    return f"own_{secrets.token_hex(16)}"


def _whose(table: str, columns: Mapping[str, Set[str]], own: str, person: exp.Column) -> exp.Expr:
    """The condition that a row of a table, with the alias `own`, is about this person."""
    if "person_id" in columns.get(table, ()):
        return exp.column("person_id", own).eq(person)
    if table not in LINKED:
        raise ValueError(f"the cohort query reads {table}, which does not say whose its rows are")
    link, holder = LINKED[table]
    other = _name()
    linked = exp.select(exp.column(link, other)).from_(exp.to_table(holder, alias=other))
    return exp.column(link, own).isin(query=linked.where(exp.column("person_id", other).eq(person)))


def _cut(table: exp.Table, condition: exp.Expr, own: str) -> None:
    """Put the rows that meet a condition in the place of a table, under the name that the query has for it."""
    rows = exp.select("*").from_(exp.to_table(table.name, alias=own)).where(condition)
    alias, joins = table.args.get("alias"), list(table.args.get("joins") or [])
    for each in joins:
        each.pop()  # moved and not copied: the tables in them are cut in their turn
    name = alias if alias and alias.this else exp.TableAlias(this=exp.to_identifier(table.name.lower()))
    table.replace(exp.Subquery(this=rows, alias=name.copy(), joins=joins))


def _check(query: exp.Query) -> None:
    """Refuse what is about all persons, where a query cannot name one: at its top, in its WITH and in a FROM."""
    for node in query.walk():
        what = ""
        if isinstance(node, exp.Limit | exp.Offset) and _standing(node.parent):
            what = f"{node.key.upper()}, which counts rows of all persons"
        elif isinstance(node, exp.Window) and not node.args.get("partition_by"):
            what = "a window over all persons: write PARTITION BY person_id"
        elif isinstance(node, exp.AggFunc) and not node.find_ancestor(exp.Window) and _whole(node.parent_select):
            what = f"{node.key.upper()} over all persons: write GROUP BY person_id"
        if what:
            raise ValueError(f"the cohort query is asked for each person alone, and has {what}")


def _whole(select: exp.Expr | None) -> bool:
    return isinstance(select, exp.Select) and not select.args.get("group") and _standing(select)


def _standing(query: exp.Expr | None) -> bool:
    """Whether a query that reads of persons stands by itself, rather than being a condition or value of a row."""
    if query is None or not {table.name.lower() for table in query.find_all(exp.Table)} - SHARED:
        return False
    while isinstance(query.parent, exp.Subquery | exp.SetOperation):
        query = query.parent
    return query.parent is None or isinstance(query.parent, exp.CTE | exp.From | exp.Join)
