"""`job=plan`: settings by what the sites hold, from histograms and sums, as YAML to be laid over the study."""

import json

from flip.config import build
from flip.contracts import Plans
from flip.coordinator.check_replies import Wanted
from flip.coordinator.cohorts import gather
from flip.coordinator.describe import pooled
from flip.coordinator.loop import Coordinator
from flip.errors import StudyUnfit
from flip.messages import Ask
from flip.runs.folder import PLAN

HEAD = """# @package _global_
# Settings of {name} by job=plan, from {sites}. Read them, change them, and lay them over the study:
#   cp {file} my_conf/plan/{name}.yaml
#   flip --config-dir my_conf experiment=... plan={name}
"""


def plan(loop: Coordinator, ask: Ask) -> None:
    """Ask every site that trains for its histograms, and write the settings that the dataset proposes by their sums.

    Raises StudyFailed if too few sites can be used, StudyUnfit where none tells enough, or nothing fits.
    """
    roster, ask = loop.roster, loop.through_mechanisms(ask)
    faults, manifest = gather(roster, ask, loop.reasons), json.loads(roster.manifest)
    asked, found = roster.sites(training=True), {}
    for reply in roster.asked(ask, roster.task("plan", 0, {}), asked, "plan", Wanted({}, {}, frozenset(), {}, {})):
        if reply.fault is not None:
            faults[reply.site] = reply.fault
        else:
            found[reply.site] = reply.summaries
    roster.recorder.description("plan", {}, {})
    roster.enough(len(found), faults, "for a plan")
    dataset = build.declared(manifest["dataset"])
    assert isinstance(dataset, Plans)  # the job is for a dataset that is (`flip.config.checks`)
    try:
        settings = dataset.planned({name: each.values for name, each in pooled(found).items() if not each.withheld})
    except ValueError as error:
        raise StudyUnfit(str(error)) from error
    name, sites = manifest["name"], ", ".join(sorted(found))
    roster.recorder.plan(HEAD.format(name=name, sites=sites, file=PLAN) + settings)
