"""The configuration files of a MONAI Bundle as plain values; nothing of them is executed.

References (`@spatial_dims`) are followed where they end at plain values. Expressions (`$...`), macros (`%...`),
`imports` and `_requires_` are refused by their key, where what is taken has any.
The form is MONAI's (https://docs.monai.io/en/stable/config_syntax.html).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from flip.config.places import listed
from flip.config.targets import TARGET
from flip.contracts.bundle import Config
from flip.errors import UserError

WINDOWS = ("roi_size", "roi")  # the keys of an inferer's windows
CONFIGS, METADATA = ("inference", "train"), "metadata"
ENDINGS = (".json", ".yaml", ".yml")
REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")
DEEPEST = 10  # references of references
ROUND = {TARGET: "torch.round", "_mode_": "callable"}  # whole HU, as a bundle of the engine's own has it
TRANSFORMS = (
    "monai.transforms.",
    "scripts.datamodules_segmentation_",
    "torch.",
)  # MONAI's, and those of our own bundles
EDIT = "write its value, in a copy of the bundle"


@dataclass(frozen=True)
class Value:
    """A value as it is written, and where.

    Attributes:
        place: file and key.
        raw: as it is written; None where there is none.
        root: the file's values.
    """

    place: str
    raw: Any
    root: Mapping[str, Any]

    @property
    def plain(self) -> object:
        """The value without references. Raises UserError for what MONAI would evaluate."""
        return _plain(self.raw, self.root, self.place)

    @property
    def arguments(self) -> Config:
        """The same of a transform."""
        return cast(Config, self.plain)

    @property
    def disabled(self) -> bool:
        """Whether MONAI leaves it out: where `_disabled_` is true, or the text of it."""
        flag = _plain(self.raw.get("_disabled_", False), self.root, f"{self.place}._disabled_")
        return flag.strip().lower() == "true" if isinstance(flag, str) else bool(flag)

    @property
    def name(self) -> str:
        """Of a transform: its class, without MONAI's `d` for those of dictionaries."""
        return str(self.raw[TARGET]).rpartition(".")[2].removesuffix("d")


@dataclass(frozen=True)
class Bundle:
    """The configuration of a bundle's folder."""

    folder: Path

    @cached_property
    def files(self) -> dict[Path, Config]:
        """Its configurations, what predicts first."""
        found = {path: each for name in CONFIGS for path, each in self._read(name)}
        if not found:
            names = " or ".join(f"configs/{name}.json" for name in CONFIGS)
            raise UserError(f"bundle={self.folder}: holds no {names}; name the folder of a MONAI Bundle")
        return found

    @cached_property
    def metadata(self) -> Config:
        """What it says of itself; empty where it says nothing."""
        return next((each for _, each in self._read(METADATA)), {})

    def _read(self, name: str) -> Iterator[tuple[Path, Config]]:
        for path in (self.folder / "configs" / f"{name}{ending}" for ending in ENDINGS):
            if not path.is_file():
                continue
            try:
                text = path.read_text(encoding="utf-8")
                values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
            if not isinstance(values, dict):
                raise UserError(f"{path}: holds no keys and values; it is no configuration of a bundle")
            yield path, values

    def named(self, *keys: str) -> Value:
        """The first of these keys that a configuration has."""
        for path, values in self.files.items():
            for key in keys:
                if (value := at_key(values, key)) is not None:
                    return Value(f"{path}: {key}", value, values)
        return Value(f"{self.folder}: {' or '.join(keys)}", None, {})

    def windows(self) -> Value:
        """The inferer, or evaluator of the engine's own, of the first configuration whose windows have a size.

        Raises UserError where there is none.
        """
        for path, values in self.files.items():
            for name in ("inferer", "validate::inferer", "evaluator"):
                found = at_key(values, name)
                if isinstance(found, Mapping) and {*WINDOWS} & {*found}:
                    kept = {key: found[key] for key in (*WINDOWS, "overlap", "mode") if key in found}
                    return Value(f"{path}: {name}", kept, values)
        raise UserError(
            f"{self.folder}: no inferer has windows; write dataset.patches.size and model.roi, as [96, 96, 96]"
        )

    def transforms(self, *keys: str) -> list[Value]:
        """The transforms of a `Compose`, none of them disabled; empty where no configuration has it."""
        found = self.named(*keys)
        if found.raw is None:
            return []
        listing = found.raw.get("transforms") if _is_compose(found.raw) else found.raw
        if isinstance(listing, str):
            refers = REFERENCE.fullmatch(listing)
            listing = at_key(found.root, refers.group(1)) if refers else listing
        if not isinstance(listing, list) or not all(isinstance(one, Mapping) and TARGET in one for one in listing):
            raise UserError(f"{found.place}: is no Compose of a list of transforms; {EDIT}")
        each = [Value(f"{found.place}[{number}]", one, found.root) for number, one in enumerate(listing)]
        for one in each:
            if not str(one.raw[TARGET]).startswith(TRANSFORMS) and "." in str(one.raw[TARGET]):
                raise UserError(f"{one.place}: {one.raw[TARGET]} is no transform of MONAI; leave it out, {EDIT}")
        return [one for one in each if not one.disabled]


def _is_compose(value: object) -> bool:
    """Whether a value is MONAI's Compose, all of whose transforms are applied in their order."""
    named = isinstance(value, Mapping) and str(value.get(TARGET, "")).rpartition(".")[2] == "Compose"
    return named and isinstance(value, Mapping) and "_disabled_" not in value


def at_key(values: object, key: str) -> object:
    """What stands at `a::b`, or `a#b`; None where nothing does."""
    for name in re.split("::|#", key):
        if isinstance(values, list) and name.isdigit() and int(name) < len(values):
            values = values[int(name)]
        else:
            values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _plain(value: object, root: Config, place: str, depth: int = 0) -> object:
    """A value without references; `_desc_` is left out. Raises UserError for what MONAI would evaluate."""
    if isinstance(value, Mapping):
        if value.get("_mode_", "default") != "default":
            raise UserError(f"{place}._mode_: {value['_mode_']!r} is not executed; leave it out, {EDIT}")
        for key in ("_requires_", "imports"):
            if key in value:
                raise UserError(f"{place}.{key}: is not executed; leave it out, in a copy of the bundle")
        kept = {str(key): each for key, each in value.items() if key not in ("_desc_", "_mode_")}
        return {key: _plain(each, root, f"{place}.{key}", depth) for key, each in kept.items()}
    if isinstance(value, list):
        return [_plain(each, root, f"{place}[{number}]", depth) for number, each in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith("$") or "${" in value:
        raise UserError(f"{place}: {value!r} is an expression, and none is executed; {EDIT}")
    if (refers := REFERENCE.fullmatch(value)) and depth < DEEPEST:
        if (found := at_key(root, refers.group(1))) is None:
            raise UserError(f"{place}: {value!r} refers to what the file does not hold; {EDIT}")
        return _plain(found, root, place, depth + 1)
    if value.startswith(("@", "%")):
        raise UserError(f"{place}: {value!r} is no reference to a plain value of its file; {EDIT}")
    return value


def classes(value: object, place: str) -> object:
    """Classes of MONAI by the path under which the list has them (`flip/config/allowed_classes.yaml`)."""
    if isinstance(value, Mapping):
        return {key: _full(each, place) if key == TARGET else classes(each, place) for key, each in value.items()}
    return [classes(each, place) for each in value] if isinstance(value, list) else value


def _full(target: object, place: str) -> object:
    name = str(target)
    if name in listed()[place] or ("." in name and not name.startswith("monai.")):
        return target  # the check of the study names what is not on the list
    last = f".{name.rpartition('.')[2]}"
    found = [each for each in listed()[place] if each.startswith("monai.") and each.endswith(last)]
    return min(found, key=lambda each: (len(each), each)) if found else target
