"""What a run was, and in what another differs from it: the first thing in the order in which one would look for it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flip.errors import several
from flip.files import NOT_SETTINGS
from flip.runs.folder import RunFolder
from flip.runs.record import RunRecord

Facts = Mapping[str, str]
ABSENT, SAME = "none", "the same weights"


def identity(run: RunRecord) -> dict[str, Facts]:
    """A run's facts by part, in the order in which a difference is looked for."""
    about, hardware = run.provenance, run.provenance.get("hardware") or {}
    prints = {site: (told.get("fingerprint") or {}) for site, told in run.cohort.items()}
    numerics = str(run.config.get("numerics", "fast"))
    machine = {"threads": hardware.get("threads")}
    if numerics != "portable":
        machine |= {"processor": _processor(run), **(about.get("environment") or {})}
    return {
        "study": dict(
            _flat("", {key: value for key, value in run.config.items() if key not in (*NOT_SETTINGS, "job")})
        ),
        "sites": {
            site: f"{'' if told.get('trains', True) else 'only tested on, '}own file {_short(prints[site], 'file')}"
            for site, told in run.cohort.items()
        },
        "code": {"sha256": str(about.get("code_sha256"))[:12]},
        "versions": {name: str(each) for name, each in (about.get("versions") or {}).items()},
        "processor": {name: str(each) for name, each in machine.items()},
        "data": {site: _short(prints[site], "data") for site in run.cohort},
    }


def difference(before: Path, now: Path) -> str:
    """`identical`, or in what two runs differ first, and whether and from which round on their weights do.

    Raises UserError for a folder that holds no run that has ended.
    """
    first, second = RunRecord.read(before), RunRecord.read(now)
    told = [each for each in (_facts(first, second), _weights(first, second)) if each]
    if told == [SAME]:
        return _metrics(first, second) or "identical"
    return "; ".join(told)


def _facts(first: RunRecord, second: RunRecord) -> str:
    """The first fact of two runs that differs, with both values."""
    one, other = identity(first), identity(second)
    for part, facts in one.items():
        for name in sorted({*facts, *other[part]}):
            was, now = facts.get(name, ABSENT), other[part].get(name, ABSENT)
            if was != now:
                return f"differs in {part}: {name} is {now}, was {was}"
    return ""


def _weights(first: RunRecord, second: RunRecord) -> str:
    """Whether two runs have the same weights, and else the first round after which they have not."""
    one, other = (RunFolder(run.path, []).digests() for run in (first, second))
    for number, (was, now) in enumerate(zip(one, other, strict=False), start=1):
        if was != now:
            return f"other weights from round {number}"
    final = [run.result.get("digest") for run in (first, second)]
    if final[0] == final[1] and len(one) == len(other):
        return SAME
    rounds = f"{several(len(other), 'round')}, was {len(one)}" if len(one) != len(other) else "other weights"
    ends = zip(("the first", "the second"), (first, second), strict=True)
    unfinished = [f"{which} run is {run.result.get('status')}" for which, run in ends if not run.result.get("digest")]
    return f"{rounds}; {', '.join(unfinished)}" if unfinished else rounds


def _metrics(first: RunRecord, second: RunRecord) -> str:
    """Which metric differs under the same weights, data and machine."""
    was, now = (run.result.get("metrics") or {} for run in (first, second))
    name = next((name for name in sorted({*was, *now}) if was.get(name) != now.get(name)), None)
    return f"{SAME}; {name} is {now.get(name, ABSENT)}, was {was.get(name, ABSENT)}" if name else ""


def _processor(run: RunRecord) -> str:
    return str((run.provenance.get("hardware") or {}).get("processor"))


def _short(prints: Mapping[str, str], part: str) -> str:
    return str(prints.get(part) or ABSENT)[:12]


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), each)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)
