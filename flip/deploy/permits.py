"""What a site's file permits, in words that its data manager reads: a sentence a rule, so that none goes unsaid."""

from collections.abc import Callable, Mapping

from flip.config.opt_out import ROW, opted_out
from flip.config.policy import Policy
from flip.config.rules import REFUSED, RELEASES, REQUIRED
from flip.config.schema import Site
from flip.config.targets import STUDY_TARGETS

LEAVES = {
    "statistics": "the sums on which sites agree before training",
    "describe": "a description of the cohort",
    "metrics": "losses and metrics",
    "outcomes": "what a study adds to the report",
    "weights": "trained weights",
    "levels": "the names of levels that a study does not declare, which are text of the records",
}


def _targets(policy: Policy) -> str:
    own = [each for each in policy.targets if each not in STUDY_TARGETS]
    code = f"; besides, code of {', '.join(own)}" if own else ""
    return f"name the listed code of {', '.join(each.rstrip('.') for each in policy.targets if each not in own)}{code}"


def _privacy(policy: Policy) -> str:
    if (demand := policy.privacy) is None:
        return "run without a privacy mechanism: policy.privacy asks for none"
    most = f"epsilon {demand.epsilon:g} at delta {demand.delta:g}"
    return f"run only under {demand.mechanism}; all studies together spend {most} on these data"


def _secure(policy: Policy) -> str:
    if policy.secure_aggregation != REQUIRED:
        return "let its coordinator read what is trained here: policy.secure_aggregation asks for no sums over sites"
    return "run only where nobody can open what is trained here but in a sum over sites (privacy=secure_aggregation)"


def _models(policy: Policy) -> str:
    if policy.models is None:
        return "send models that were trained elsewhere, whichever they are"
    if not policy.models:
        return "send no model that was trained elsewhere: it begins from its own seeded weights"
    return f"send these models that were trained elsewhere: {', '.join(each[:12] for each in policy.models)}"


def _trackers(policy: Policy) -> str:
    if policy.trackers is None:
        return "have its numbers sent to any online tracker"
    names = ", ".join(policy.trackers)
    return f"have its numbers sent to {names}, as its coordinator says" if names else "name no online tracker"


def _approval(policy: Policy) -> str:
    if (approvers := policy.approval) is None:
        return "run without anybody here having seen it: policy.approval is none"
    if not approvers.keys:
        return "not run at all: policy.approval names nobody who may approve it; name them, or state none"
    one = "one" if approvers.needed == 1 else "two"
    return f"run only once {one} of {', '.join(approvers.keys)} signed for it (flip site approve), until that expires"


def _release(policy: Policy) -> str:
    if (rule := policy.release) is None:
        return "have what leaves sent at once: policy.release holds nothing for a person to see before"
    one = "one" if rule.by.needed == 1 else "two"
    whose = f"{one} of {', '.join(rule.by.keys)} released it (flip site release)"
    return f"have what is of its {', '.join(rule.stages)} leave only once {whose}"


def _releases(policy: Policy) -> str:
    kept = [LEAVES[each] for each in RELEASES if each not in policy.releases]
    told = "; ".join(LEAVES[each] for each in policy.releases) or "nothing"
    return f"be told: {told}." + (f" These stay: {'; '.join(kept)}." if kept else "")


WORDS: Mapping[str, Callable[[Policy], str]] = {
    "approval": _approval,
    "minimum_persons": lambda each: f"compute on a cohort of {each.minimum_persons} distinct persons or more",
    "targets": _targets,
    "privacy": _privacy,
    "secure_aggregation": _secure,
    "maximum_rounds": lambda each: f"have {each.maximum_rounds:,} rounds",
    "maximum_steps": lambda each: f"take {each.maximum_steps:,} optimizer steps a round here",
    "maximum_seconds": lambda each: f"compute for {each.maximum_seconds:,.10g} seconds a task",
    "maximum_memory": lambda each: f"hold {each.maximum_memory:g} gigabytes of this machine's memory",
    "maximum_parameters": lambda each: f"train a model of {each.maximum_parameters:,} numbers",
    "persons_per_parameter": lambda each: (
        f"train a linear model on {each.persons_per_parameter} persons or more for each of its parameters"
        if each.persons_per_parameter
        else "train a linear model on any number of persons"
    ),
    "minimum_batch": lambda each: f"train on batches of which most are of {each.minimum_batch} persons or more",
    "maximum_change": lambda each: (
        f"send weights that have moved by {each.maximum_change:g} (root mean square) a round"
    ),
    "near_cohorts": lambda each: (
        f"ask about cohorts of the same persons, or that differ by {each.minimum_cell} or more"
        if each.near_cohorts == REFUSED
        else "ask about cohorts that differ by any number of persons"
    ),
    "maximum_questions": lambda each: f"ask {each.maximum_questions} different questions about the cohort, ever",
    "share": lambda each: f"state weights that give one site {each.share:g} of a round",
    "least_sites": lambda each: f"go on while a round has {each.least_sites} or more sites (its strategy.min_sites)",
    "models": _models,
    "trackers": _trackers,
    "release": _release,
    "releases": _releases,
    "minimum_cell": lambda each: f"Nothing leaves that rests on fewer than {each.minimum_cell} persons.",
    "rounding": lambda each: (
        f"Every count that leaves is a multiple of {each.rounding}." if each.rounding > 1 else "Counts are not rounded."
    ),
}
"""A rule in words, as the end of "A study may ...", but for what leaves. A bound is the most, unless it says more."""
SENTENCES = ("releases", "minimum_cell", "rounding")


def _opted_out(site: Site) -> str:
    if site.opt_out is None:
        return "Nobody has opted out: opt_out names no list of persons."
    number = len(opted_out(site))
    return f"No study reads a row of the {number} persons in {site.opt_out}, nor one that does not say whose it is."


def permits(site: Site, policy: Policy) -> str:
    """What a deployed site's file permits, a line a rule."""
    whose = "each row is a person" if site.person == ROW else f"the column {site.person} says whose a row is"
    table = "the table of sources says whose a row is" if "table" in site.sources else whose
    lines = [f"    - {words(policy)}" for rule, words in WORDS.items() if rule not in SENTENCES]
    return "\n".join(
        [
            f"Persons are counted here: {table}.",
            _opted_out(site),
            "A study may, at most:",
            *lines,
            f"Its peers in secure sums: {', '.join(sorted(site.peers)) or 'none, so that it takes part in none'}.",
            f"It may {WORDS['releases'](policy)}",
            WORDS["minimum_cell"](policy),
            WORDS["rounding"](policy),
        ]
    )
