"""Checks a cohort query before a hospital's database sees it, and spells its names as that database does.

A query comes from the study, that is from outside. It is parsed, and everything that is not on the lists below is
refused: other statements, functions that read files, wait or change settings, tables outside OMOP's common data model,
other schemas, locks. The database connection is read-only as well; this is the first of the two locks.
"""

from collections.abc import Mapping, Set

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

LONGEST = 20_000  # characters; a cohort query is a page or two, and a parser's time grows with the text

_TABLES = """
  person observation_period visit_occurrence visit_detail condition_occurrence drug_exposure procedure_occurrence
  device_exposure measurement observation death note specimen location care_site provider payer_plan_period cost
  condition_era drug_era dose_era episode episode_event concept concept_ancestor concept_relationship concept_synonym
  vocabulary domain concept_class relationship drug_strength
"""
_PARTS_OF_QUERIES = """
  Select Union Intersect Except Subquery With CTE TableAlias Table From Join Where Group Having Order Ordered Limit
  Offset Distinct Star Column Identifier Alias Aliases Paren Tuple Values
  Literal Null Boolean Neg And Or Not EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is In Between Like ILike Exists
  Add Sub Mul Div Mod DPipe Case If Cast DataType DataTypeParam DataTypeSize Interval Var
  Count Sum Avg Min Max Stddev StddevSamp Median Coalesce Nullif Greatest Least Abs Round Floor Ceil Lower Upper Trim
  Substring Length Concat Extract DatePart TimestampTrunc DateTrunc CurrentDate CurrentTimestamp
  Window WindowSpec Filter RowNumber Rank DenseRank Lag Lead FirstValue LastValue
"""
_TYPES_OF_VALUES = """
  INT BIGINT SMALLINT DECIMAL DOUBLE FLOAT BOOLEAN TEXT VARCHAR CHAR DATE TIMESTAMP TIMESTAMPTZ TIME INTERVAL
"""

CDM_TABLES = frozenset(_TABLES.split())
"""The tables of OMOP CDM 5.3 and 5.4 that a query may read."""

_PARTS, _TYPES = frozenset(_PARTS_OF_QUERIES.split()), frozenset(_TYPES_OF_VALUES.split())

RENAMED = {
    "admitted_from_concept_id": "admitting_source_concept_id",
    "admitted_from_source_value": "admitting_source_value",
    "discharged_to_concept_id": "discharge_to_concept_id",
    "discharged_to_source_value": "discharge_to_source_value",
}
"""Columns of CDM 5.4 with the name that 5.3 has for them."""


def parse(text: str) -> exp.Query:
    """A query, in PostgreSQL's SQL, as a tree. Raises ValueError, with the reason, unless it is a harmless SELECT."""
    if len(text) > LONGEST:
        raise ValueError(f"the cohort query has {len(text)} characters; {LONGEST} are allowed")
    try:
        statements = [each for each in sqlglot.parse(text, dialect="postgres") if each is not None]
    except (SqlglotError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the cohort query is not SQL that can be read: {reason or 'nested too deeply'}") from error
    if len(statements) != 1 or not isinstance(query := statements[0], exp.Query):
        raise ValueError("the cohort query must be a single SELECT (WITH ... SELECT is one), and nothing else")
    for node in query.walk():
        what = type(node).__name__
        if isinstance(node, exp.DataType) and getattr(node.this, "name", "INTERVAL") not in _TYPES:
            what = node.sql()
        if isinstance(node, exp.Anonymous):
            what = f"the function {node.name}"
        if what not in _PARTS:
            raise ValueError(
                f"the cohort query uses {what}, which a cohort query may not: it reads OMOP's tables with SELECT and "
                "plain functions (count, min, extract, coalesce, row_number, ...)"
            )
    _check_tables(query)
    return query


def tables_of(query: exp.Expr) -> set[str]:
    """The tables that a query reads, in lower case, without what it defines in its WITH."""
    defined = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
    return {table.name.lower() for table in query.find_all(exp.Table)} - defined


def _check_tables(query: exp.Query) -> None:
    """Every table is OMOP's, or defined in the WITH at the top and before its use.

    Otherwise `WITH secret AS (SELECT * FROM secret) ...` would read a table of that name.
    """
    top = query.args.get("with_")
    if [each for each in query.find_all(exp.With) if each is not top or each.args.get("recursive")]:
        raise ValueError("the cohort query may have one WITH, at its top and not recursive")
    known = set(CDM_TABLES)
    for cte in top.expressions if top else []:
        _only(known, cte.this)
        if cte.alias.lower() in CDM_TABLES:
            raise ValueError(f"the cohort query's WITH defines {cte.alias}, which is the name of a table of OMOP's")
        known.add(cte.alias.lower())
    rest = query.copy()
    rest.set("with_", None)
    _only(known, rest)


def _only(known: Set[str], query: exp.Expr) -> None:
    for table in query.find_all(exp.Table):
        if table.args.get("db") or table.args.get("catalog"):
            raise ValueError(f"the cohort query reads {table.sql()}: leave the schema out; each site sets its own")
        if not isinstance(table.this, exp.Identifier) or table.name.lower() not in known:
            raise ValueError(f"the cohort query reads {table.sql()}, which is no table of OMOP's common data model")


def spell(query: exp.Expr, names: Mapping[str, str]) -> exp.Expr:
    """A copy with each name as the database writes it: `names` by lower case. Others become lower case."""

    def own(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Identifier):
            return node
        name = node.name.lower()
        return exp.to_identifier(names.get(name, name), quoted=True)

    return query.copy().transform(own)


def spelling(columns: Mapping[str, Set[str]]) -> dict[str, str]:
    """The database's own spelling by lower-case name, from its tables and their columns.

    A column of CDM 5.4 that the database lacks is spelled as CDM 5.3 does, where it has that one.
    """
    own = {name.lower(): name for table in columns for name in (table, *columns[table])}
    own |= {new: own[old] for new, old in RENAMED.items() if new not in own and old in own}
    return own
