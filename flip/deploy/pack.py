"""`flip site pack`: the folder that output checkers of a trusted research environment ask for, of one run at a site.

It follows SATRE (Standard Architecture for Trusted Research Environments), version 2, Output management: 3.3.03, a
documented process for disclosure control of outputs; 3.3.04, who checks them; 3.3.05, a policy for what cannot be
checked by hand, as weights; 3.3.06, a statistical basis; 3.3.07, semi-automated checks of common research outputs, with
a human in the loop; 3.3.08, no more than the results need. Nothing in it is of persons: it is made of the site's
journal and ledger, of what its policy says, and of the study's manifest; no path of the site and no text of its records
is read for it.
"""

import argparse
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flip.config.opt_out import ROW
from flip.config.policy import Policy
from flip.config.rules import DEPLOYED
from flip.config.schema import SIMULATED, Site
from flip.config.site_file import load_site
from flip.deploy.pack_files import components, crate
from flip.deploy.permits import SENTENCES, WORDS
from flip.errors import UserError
from flip.files import write_atomic
from flip.messages import Fault, Task
from flip.privacy.accounting import epsilon
from flip.report.page import render
from flip.runs.rerun import MANIFEST
from flip.site.admission import Place
from flip.site.journal import FILE, Broken, Entry, journal_of
from flip.site.ledger import FILE as LEDGER
from flip.site.ledger import ledger_of, of_run
from flip.site.refusal import Refusal
from flip.text import printable
from flip.version import __version__

PAGE, EGRESS, COMPONENTS, CRATE = "index.html", "egress.csv", "components.cdx.json", "ro-crate-metadata.json"
COLUMNS = ("time", "step", "stage", "round", "outcome", "kinds", "persons", "bytes", "digest", "by")
DELTA = 1e-5  # at which what a run has spent is told, where the site's file names none
GAPS = "## What it does not promise"
GAP = re.compile(r"^- \*\*(.+?)\*\*(.*?)(?=^- \*\*|\Z)", re.MULTILINE | re.DOTALL)
COORDINATOR = (
    "A study is checked as a whole before any site is asked; a mistake in it ends it there.",
    "Every reply is checked for its names, shapes, types and ranges before it is used, and is written down.",
    "A round goes on only with as many sites as the study's strategy.min_sites says.",
    "Each reply's journal head is kept in rounds.jsonl, so that a site's journal that was cut is known.",
)
NETWORK = (
    "In a deployed federation connections are encrypted by TLS, and a site proves who it is by its kit's key.",
    "A site connects outward; no port of the hospital is opened for the engine.",
    "Messages are safetensors and JSON; nothing is unpickled, and no code is sent to a site.",
    "A simulation runs on one machine under one account, and encrypts nothing.",
)
CHECKS = (
    "The run and the study named above are the ones that were approved here.",
    "flip site audit says that the journal is whole, and its head fits those that the coordinator kept.",
    "Each line of egress is of a kind that this project may let leave.",
    "The persons behind each line are as many as this environment asks for.",
    "What was held was released by a person who is named, and what was refused did not leave.",
    "The privacy that was spent is within what was agreed, or no privacy claim is made.",
    "Weights cannot be read by eye: they leave under the rules above, or they do not leave.",
    "The residual risks are accepted by the owner of the data, in writing.",
)


def command(arguments: Sequence[str]) -> None:
    """Write the folder. Raises UserError."""
    parser = argparse.ArgumentParser("flip site pack", allow_abbrev=False)
    parser.add_argument("run", help=f"identifier of the run, or its folder, with {MANIFEST}")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("site_file", type=Path, nargs="?", help="the site's own file; site.yaml if left out")
    given = parser.parse_args(arguments)
    file = given.site_file or Path("site.yaml")
    if not file.is_file():
        raise UserError(f"{file}: is not there; name the site's own file, as in: flip site pack RUN OUT site.yaml")
    if given.out.exists():
        raise UserError(f"{given.out}: is there already; name a new folder")
    values = collected(given.run, file)
    made = {
        PAGE: render("pack.html.j2", values),
        EGRESS: _table(values["egress"]),
        COMPONENTS: components(__version__),
    }
    if values["manifest"]:
        made[MANIFEST] = values["manifest"] + "\n"
    made[CRATE] = crate(values["title"], values["made"], made)
    given.out.mkdir(parents=True)
    for name, text in made.items():
        write_atomic(given.out / name, text.encode())
    print(f"{given.out}: {', '.join(sorted(made))}. Open {given.out / PAGE}; its checklist is for the output checker.")


def collected(run: str, file: Path) -> dict[str, Any]:
    """All that the page shows. Raises UserError for a run of which the site's journal has nothing."""
    own, home = load_site(file), file.absolute().with_suffix("")
    identifier, manifest = _run(Path(run)) if Path(run).exists() else (run, "")
    study = hashlib.sha256(manifest.encode()).hexdigest() if manifest else ""
    if not (home / FILE).is_file():
        raise UserError(f"{file}: there is no journal {FILE} of this site")
    try:
        entries = list(journal_of(home.name, own, home).entries())
    except (Broken, OSError, ValueError) as error:
        raise UserError(f"{file}: the journal cannot be vouched for: {error}") from error
    found = [each for each in entries if each["run"] == identifier or (not identifier and each["study"] == study)]
    if not found:
        raise UserError(f"{run}: the journal of this site has no task of this run")
    name = json.loads(manifest).get("name", "") if manifest else ""
    egress = [shown(each) for each in found if each["outcome"] != "asked"]
    return {
        "title": f"Outputs of run {printable(str(found[0]['run']))}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "name": printable(str(name)),
        "study": str(found[0]["study"]),
        "simulated": own.secret == SIMULATED,
        "manifest": manifest,
        "head": f"{len(entries)}:{entries[-1]['seal']}",
        "controls": {"The site": _site(own), "The coordinator": COORDINATOR, "The network": NETWORK},
        "egress": egress,
        "left": sum(each["outcome"] in ("answered", "repeated") for each in egress),
        "spent": _spent(own, home, str(found[0]["run"]), manifest),
        "gaps": list(gaps()),
        "checks": CHECKS,
    }


def _run(path: Path) -> tuple[str, str]:
    """Identifier, where the folder tells it, and manifest of a run. Raises UserError."""
    from flip.deploy.review import read_study

    origin = path / "provenance.json"
    identifier = str(json.loads(origin.read_text()).get("run", "")) if origin.is_file() else ""
    return identifier, read_study(path)


def shown(entry: Entry) -> dict[str, str]:
    """A line of the journal, as the page and the table have it."""
    numbers = entry["numbers"]
    kinds = [f"{kind} {number:,}" for kind, number in numbers.items()] if isinstance(numbers, dict) else []
    outcome = str(entry["outcome"])
    outcome += f": {entry['fault']}" if entry.get("fault") and entry["fault"] != Fault.HELD.name else ""
    number = entry["round"]
    row = {
        "time": str(entry["time"])[:19],
        "step": entry["step"],
        "stage": entry["stage"],
        "round": number + 1 if isinstance(number, int) else "",
        "outcome": outcome,
        "kinds": ", ".join(kinds),
        "persons": entry["persons"] or "",
        "bytes": entry["bytes"],
        "digest": entry["digest"],
        "by": ", ".join(map(str, by)) if isinstance(by := entry.get("by", []), list) else "",
    }
    return {name: printable(str(value)) for name, value in row.items()}


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _site(own: Site) -> list[str]:
    """What the site's own file rules, a sentence each; no path of it."""
    try:
        policy = Policy.read("NAME", own.policy, deployed=own.secret != SIMULATED)
    except UserError as error:
        raise UserError([each.replace("sites.NAME.", "", 1) for each in error.problems]) from error
    unset = {rule for rule in DEPLOYED if getattr(policy, rule) is None}  # of a simulation, which has no such bound
    stated = [words for rule, words in WORDS.items() if rule not in SENTENCES and rule not in unset]
    rules = [f"A study may, at most, {words(policy)}." for words in stated]
    whose = "each row is a person" if own.person == ROW else "a column of the site's own says whose a row is"
    listed = "no row of the persons on the site's list is read" if own.opt_out else "the site has no list"
    told = f"A study may {WORDS['releases'](policy)}"
    said = [f"Persons are counted here, not rows: {whose}.", f"Opt-out: {listed}.", told, WORDS["minimum_cell"](policy)]
    return [*said, *rules]


def _spent(own: Site, home: Path, run: str, manifest: str) -> str:
    """What the ledger says of this run, a sentence. Raises UserError for one that was touched."""
    simulated = own.secret == SIMULATED
    if simulated and not manifest:
        return "In a simulation the ledger is the run's own: name the run's folder to have it told. No claim is made."
    place = Place(home.name, own, home)
    task = Task(run, "study", 0, "fit", {}, {}, {}, manifest)
    folder = place.store(run).folder if simulated else home
    if not (folder / LEDGER).is_file():
        return "Nothing: no noise of differential privacy was made here, and no such claim is made."
    try:
        entries = of_run(ledger_of(place, task).entries(), run)
    except Refusal as refusal:
        raise UserError(f"the privacy ledger: {refusal}") from refusal
    if not entries:
        return "Nothing: no noise of differential privacy was made here in this run, and no such claim is made."
    rule = own.policy.get("privacy") if isinstance(own.policy, Mapping) else None
    delta = float(rule["delta"]) if isinstance(rule, Mapping) else DELTA
    claim = " It is a simulation, whose noise is made from the seed: no claim is made." if simulated else ""
    return (
        f"Epsilon {epsilon(entries, delta):.3f} at delta {delta:g}, over {len(entries)} entries of the ledger.{claim}"
    )


def gaps() -> Iterator[tuple[str, str]]:
    """What SECURITY.md says that the engine does not promise: each with its first words, and the rest."""
    package = Path(__file__).resolve().parents[1]
    page = next((path for path in (package / "SECURITY.md", package.parent / "SECURITY.md") if path.is_file()), None)
    if page is None:
        raise UserError("SECURITY.md of the engine is not installed beside it; install the engine anew")
    for head, rest in GAP.findall(page.read_text(encoding="utf-8").partition(GAPS)[2]):
        yield plain(head), plain(rest)


def plain(text: str) -> str:
    """A text of Markdown without its signs."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(text.replace("**", "").replace("`", "").split())
