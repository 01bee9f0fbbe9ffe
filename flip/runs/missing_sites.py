"""What a run that ended well must still say: which sites were not in it, or not in all of it, and why."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flip.errors import several
from flip.files import POOLED
from flip.messages import Fault

WRITTEN = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")  # when a line of a log was written, and its level
MISSED = {
    "fit": ("trained in none of its {asked}", "did not train in {missed} of its {asked}"),
    "validate": ("was never validated", "was not validated in {missed} of {asked}"),
    "threshold": ("had no part in the decision threshold",),
    "test": ("was not tested",),
    "fine_tuned": ("is not in the baseline of weights trained further",),
    "alone": ("is not in the baseline of sites alone", "is in part of the baseline of sites alone only"),
}
"""By phase of `rounds.jsonl`, what is said of a site that missed all of it, and of one that missed some."""


@dataclass
class Asked:
    """How often a site was asked in a phase, and by which faults it missed some of it, the last one last."""

    times: int = 0
    faults: tuple[str, ...] = ()

    @property
    def always(self) -> bool:
        """Whether nothing came of it at all."""
        return len(self.faults) == self.times


def asked(records: Sequence[Mapping[str, object]]) -> dict[tuple[str, str], Asked]:
    """By site and phase, in the order of both in the lines of `rounds.jsonl`."""
    found: dict[tuple[str, str], Asked] = {}
    for record in records:
        if record["site"] != POOLED:
            each = found.setdefault((str(record["site"]), str(record["phase"])), Asked())
            each.times += 1
            each.faults += (str(record["fault"]),) if record["fault"] else ()
    return found


def never_in(records: Sequence[Mapping[str, object]]) -> set[str]:
    """The sites of whose training nothing came, or that could not even say what cohort they have."""
    found = asked(records)
    gone = {site for (site, phase), each in found.items() if phase in ("statistics", "fit") and each.always}
    return gone - {site for (site, phase), each in found.items() if phase == "fit" and not each.always}


def warnings_of(records: Sequence[Mapping[str, object]], folder: Path) -> list[str]:
    """One sentence for each site that was not in a run, or not in all of it, by the sites' names.

    `folder` is the run's: where the site's own log lies there, in a simulation, the kind of its last error is named.
    The text of that error may hold what is a patient's, and stays in the log.
    """
    found, gone = asked(records), never_in(records)
    said = []
    for site in sorted({site for site, _ in found}):
        phases = {phase: each for (name, phase), each in found.items() if name == site and each.faults}
        said += [f"{site} {words}: {cause(each, site, folder)}." for words, each in _words(phases, site in gone)]
    return said


def _words(phases: Mapping[str, Asked], gone: bool) -> Iterator[tuple[str, Asked]]:
    """What is said of a site by the phases that it missed; one that was not in the run misses all that follows."""
    if gone and "fit" not in phases:
        yield "took no part", phases["statistics"]
        return
    for phase, each in phases.items():
        if phase in MISSED and (phase == "fit" or not gone):
            form = MISSED[phase][0 if each.always else -1]
            yield form.format(missed=len(each.faults), asked=several(each.times, "round")), each


def cause(each: Asked, site: str, folder: Path) -> str:
    """The fault that a site had last, and in a simulation the kind of its last error."""
    error = last_error(folder, site).partition(":")[0] if each.faults[-1] in ("RAISED", "DATA") else ""
    kind = error.rpartition(".")[2]
    where = f" ({kind}; sites/{site}/site.log)" if kind.isidentifier() else ""
    return f"{Fault[each.faults[-1]].value}{where}"


def last_error(folder: Path, site: str) -> str:
    """The last complaint in a site's own log, if that lies in this run's folder: for the screen of its owner alone."""
    log = folder / "sites" / site / "site.log"
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip() and " INFO " not in line]
    return WRITTEN.sub("", lines[-1].strip()).removeprefix("flip.config.build.DataError: ") if lines else ""
