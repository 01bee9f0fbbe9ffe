"""The schema of a study's configuration, and what is left when it is settled: a `Study`, in plain values.

The dataclasses hold every key that the engine itself reads. Subtrees with a `_target_` (dataset, model, ...) have the
constructor of that class as their schema; `flip.config.checks.study.check` binds them.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class OptimizerState(Enum):
    """What becomes of a site's optimizer between rounds."""

    reset = "reset"
    keep = "keep"


class Numerics(Enum):
    """How the processor computes (`flip.numerics`)."""

    fast = "fast"
    portable = "portable"


COORDINATOR, SITES = "coordinator", "sites"
GIVEN_AT = (COORDINATOR, SITES)


@dataclass
class Paths:
    """Folders of the coordinator; a relative one is taken from the working folder."""

    data_dir: str = MISSING
    runs: str = MISSING
    demo_dir: str = "demo"  # where a demo cohort is generated


@dataclass
class Centralized:
    """How the study trains without federation (federation=none, and the baselines)."""

    max_epochs: int = 50
    optimizer: dict[str, Any] | None = None


@dataclass
class Trainer:
    """How a site trains."""

    steps: int | None = None
    epochs: int | None = None
    optimizer_state: OptimizerState = OptimizerState.reset
    threads: int = 1
    centralized: Centralized = field(default_factory=Centralized)
    lightning: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class Baselines:
    """What to train for comparison, into the same report."""

    centralized: bool = False
    alone: bool = False
    fine_tuned: int | None = None  # rounds' worth of training at each site after the last round


@dataclass
class Cache:
    """A site's cache of decoded images, on its own disk."""

    folder: str | None = None
    gigabytes: float = 20.0


@dataclass
class Site:
    """A site's own file: the same keys in simulation (`conf/sites`) and at a hospital."""

    root: str = MISSING
    columns: dict[str, Any] = field(default_factory=dict)
    person: str | None = None  # the site's own column that says whose a row is, or "row"; None: as the study says
    opt_out: str | None = None  # file of the persons who opted out or withdrew, one a line; None: no list
    sources: dict[str, Any] = field(default_factory=dict)  # where table, images and notes come from, if not from files
    part: int | None = None  # of a cohort that simulated sites share (`dataset.partition`)
    cache: Cache = field(default_factory=Cache)  # decoded images, kept for later runs; no folder: none
    trains: bool = True
    accelerator: str = "cpu"
    devices: int = 1  # of the accelerator that train together, one process each
    precision: str | None = None
    models: list[str] = field(default_factory=list)  # files or folders of models that the site has itself: `given_at`
    checkpointing: bool = False  # parts of the network are computed again in training, in place of being kept
    policy: Any = MISSING
    secret: str | None = None
    peers: dict[str, str] = field(default_factory=dict)  # by other site its public key, for secure sums
    cohort: str | None = None  # name under which the site keeps the privacy budget of its data; None: its only ones


@dataclass
class Config:
    """One study and how it runs."""

    name: str = MISSING
    job: str = "train"  # flip.config.jobs
    notice: str | None = None
    seed: int = MISSING
    numerics: Numerics = Numerics.fast
    dataset: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    outcomes: dict[str, Any] | None = None
    trainer: Trainer = field(default_factory=Trainer)
    strategy: dict[str, Any] = MISSING
    privacy: dict[str, Any] = field(default_factory=dict)
    federation: dict[str, Any] = MISSING
    sites: dict[str, Site] = field(default_factory=dict)
    site_file: str | None = None
    resume_from: str | None = None  # without federation: a checkpoint of Lightning's (.ckpt) to go on from
    bundle: str | None = None  # folder of a MONAI Bundle of which dataset and model are taken: `${bundle:network}`
    init: str | None = None  # weights that training begins from, where they were trained elsewhere
    model_from: Any = None  # of a job that applies models: the run or file of one, or a list of such
    given_at: str = (
        COORDINATOR  # where the weights of `init` and `model_from` lie, one of GIVEN_AT: sites are not sent any
    )
    companions: dict[str, str | None] = field(default_factory=dict)  # runs or files of models that outcomes use besides
    baselines: Baselines = field(default_factory=Baselines)
    tracking: dict[str, Any] = field(default_factory=dict)
    paths: Paths = field(default_factory=Paths)
    allow_targets: list[str] = field(default_factory=list)


SIMULATED = "simulated"
"""In a simulation's site files, instead of a secret's path: derive it from the seed, and claim no privacy."""
