"""When a key that was typed has an effect: one that a run would ignore without a word is refused before it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flip.config.jobs import JOBS
from flip.config.study import Study
from flip.config.targets import TARGET

WITHOUT_ROUNDS = ("centralized", "alone")
BASELINES = (*WITHOUT_ROUNDS, "fine_tuned")


def federated(study: Study, key: str) -> bool:
    """Whether there are rounds."""
    return study.federation.get(TARGET) is not None


def trains_without_rounds(study: Study, key: str) -> bool:
    """Whether anything is trained without rounds: the study itself, or a baseline."""
    return not federated(study, key) or any(getattr(study.baselines, name) for name in WITHOUT_ROUNDS)


def as_typed(study: Study, key: str) -> bool:
    """Whether a baseline is trained where it is asked for; one that is not wanted has nothing to ignore."""
    asked = [name for name in BASELINES if key in ("baselines", f"baselines.{name}")]
    return federated(study, key) or not any(getattr(study.baselines, name) for name in asked)


@dataclass(frozen=True)
class Rule:
    """Keys that have an effect in some studies alone.

    Attributes:
        keys: patterns of the keys.
        effective: whether one of them has an effect in a study.
        otherwise: why it has none, and what to do, as the end of a sentence.
        decided_by: patterns of the keys on which it depends; a sweep that varies one may need the others in some runs.
    """

    keys: Sequence[str]
    effective: Callable[[Study, str], bool]
    otherwise: str
    decided_by: Sequence[str] = ("federation", "experiment")


RULES = (
    Rule(
        ("strategy", "strategy.*", "trainer.steps", "trainer.epochs", "trainer.optimizer_state"),
        federated,
        "federation=none has no rounds; choose a backend (federation=inprocess), or leave it out "
        "(trainer.centralized.max_epochs says how long to train without federation)",
    ),
    Rule(("federation.*",), federated, "federation=none has no settings; choose a backend, or leave it out"),
    Rule(
        ("trainer.centralized", "trainer.centralized.*", "trainer.lightning.check_val_every_n_epoch"),
        trains_without_rounds,
        "it is for training without federation, and every model of this run is trained in rounds; leave it out, or add "
        "baselines.centralized=true",
        ("federation", "experiment", "baselines", "baselines.*"),
    ),
    Rule(
        ("baselines", "baselines.*"),
        as_typed,
        "without federation there is nothing to compare with; choose a backend (federation=inprocess), or leave it out",
    ),
    Rule(
        ("sites", "sites.*"),
        lambda study, key: study.site_file is None,
        "site_file names the one site of this run; leave it out",
        ("site_file",),
    ),
    Rule(
        ("sites.*",),
        lambda study, key: not study.live or key.endswith(".trains") or key.count(".") < 2,
        "in a live federation a hospital's own file says it, which no study changes; leave it out",
    ),
)
"""The table: what a job that trains would ignore. The other jobs look at a study as it would be trained."""


@dataclass(frozen=True)
class Ignored:
    """A typed value without effect: what was typed, why, and whether another run of a sweep may need it."""

    typed: str
    why: str
    needed: bool


def ignored(study: Study) -> Iterator[Ignored]:
    """What was typed (`study.given`) that this study ignores."""
    if not JOBS[study.job].trains:
        return
    for key, value in study.given:
        for rule in RULES:
            if _matches(key, rule.keys) and not rule.effective(study, key):
                needed = any(_matches(each, rule.decided_by) for each in study.varied)
                yield Ignored(f"{key}={value}", rule.otherwise, needed)
                break


def without_effect(study: Study) -> list[str]:
    """One sentence for each typed value that neither this run nor another of its sweep has use for."""
    return [
        f"{each.typed} (the command line): would have no effect: {each.why}"
        for each in ignored(study)
        if not each.needed
    ]


def unused_here(study: Study) -> list[str]:
    """One sentence for each typed value that other runs of the sweep may need, and this one ignores."""
    return [
        f"{each.typed} has no effect in this run: {each.why.split(';')[0]}" for each in ignored(study) if each.needed
    ]


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
