"""A resolved configuration in plain values: what travels to the sites and what stays at the coordinator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypedDict

from flip.config.schema import COORDINATOR, Baselines, Paths, Site
from flip.errors import Where, nowhere

Target = Mapping[str, object]
"""A class by its `_target_`, with the arguments that the study gives it."""


class CentralizedSettings(TypedDict):
    """Training without federation."""

    max_epochs: int
    optimizer: Target | None


class TrainerSettings(TypedDict):
    """How a site trains."""

    steps: int | None
    epochs: int | None
    optimizer_state: str
    threads: int
    lightning: Mapping[str, object]
    callbacks: Mapping[str, Target | None]
    centralized: CentralizedSettings


class Manifest(TypedDict):
    """What of a study travels to every site, in JSON's types: the keys that a user writes, then the engine's own."""

    name: str
    notice: str | None
    seed: int
    numerics: str
    dataset: Target
    model: Target
    outcomes: Target | None
    trainer: TrainerSettings
    strategy: Target
    privacy: Mapping[str, Target]
    mechanisms: list[str]  # names of `privacy`, outermost first
    engine: str  # version
    code: str  # digest
    given: list[str] | None  # digests of what was trained elsewhere: weights to begin from, or models to apply


@dataclass(frozen=True)
class Study:
    """A settled configuration.

    Attributes:
        manifest: what travels to every site.
        manifest_text: the manifest as canonical JSON. manifest_sha256: its digest.
        job: what is done with it (`flip.config.jobs`).
        backend: the name of the `federation` option that was chosen.
        live: whether the backend's server runs the loop, over sites that hold their own files.
        sites: each site's own file, by name; with `site_file` the one site of that file. In a simulation the policies
            permit what `allow_targets` does.
        resume_from: checkpoint that training without federation goes on from; it does not travel.
        init: run, bundle or file of the weights that training begins from; it does not travel.
        model_from: runs or files of the models that the job applies; they do not travel.
        given_at: where the weights of both lie, one of `GIVEN_AT`.
        companions: runs or files of models of other studies that `outcomes` use besides; they do not travel.
        where: where a key stands, for messages.
        new_folder: the folder of a run that begins now.
        declared: `sites` and `paths` as they were written, `${paths.data_dir}` and the like unresolved.
        again: the folder of the run that this one runs again, or None.
        typed: the command line that asks for it; None from Python.
        given: the keys that were given values beside the files, with the values.
        varied: of those the keys in which the runs of a sweep differ.
    """

    manifest: Manifest
    manifest_text: str
    manifest_sha256: str
    job: str
    backend: str
    live: bool
    federation: dict[str, Any]
    sites: dict[str, Site]
    site_file: str | None
    resume_from: Path | None
    init: Path | None
    model_from: tuple[Path, ...]
    baselines: Baselines
    tracking: dict[str, Any]
    paths: Paths
    allow_targets: tuple[str, ...]
    companions: Mapping[str, Path] = field(default_factory=dict)
    given_at: str = COORDINATOR
    where: Where = field(default=nowhere, repr=False, compare=False)
    new_folder: Callable[[], Path] = field(default=Path, repr=False, compare=False)
    declared: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    again: Path | None = field(default=None, repr=False, compare=False)
    typed: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    given: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    varied: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.manifest["name"])


def plain(value: object) -> Any:
    """Dataclasses and enums of the schema as plain values."""
    from dataclasses import fields, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
