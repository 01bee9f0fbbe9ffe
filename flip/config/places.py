"""Which class may stand where in a study: the list of classes by place, and what a class may be told.

A manifest reaches a site from elsewhere, so each `_target_` in it is checked by name before anything of it is imported:
it stands where a class may, it is on the list of that place (`allowed_classes.yaml`) or allowed by the machine's owner,
and no argument names a file, a folder or an address. Where data come from, and where they are kept, is the site's own
file's alone to say: no class of that kind is on the list.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import yaml

from flip.config.targets import LIBRARIES, OURS, TARGET, name_refusal
from flip.errors import nearest

PART_OF = {
    "model": ("network", "loss", "metric", "transform", "optimizer", "scheduler", "model_part"),
    "dataset": ("dataset_part", "transform"),
    "dataset_part": ("dataset_part", "transform"),
    "strategy": ("optimizer", "scheduler"),
    "outcomes": ("outcome_part",),
    "optimizer": ("scheduler",),
}
"""What may be nested in what stands in a place, where the parameter that it fills says nothing more."""
OF_PARAMETER = {
    "optimizer": ("optimizer",),
    "scheduler": ("scheduler",),
    "loss": ("loss", "network"),
    "metrics": ("metric",),
    "transforms": ("transform",),
    "encoders": ("network",),
    "fusion": ("network",),
    "head": ("network",),
    "network": ("network",),
    "projections": ("dataset_part", "model_part"),
    "target": ("dataset_part",),
    "split": ("dataset_part",),
}
"""What may stand in a parameter of this name, and in what is nested there."""
FROM_SITE = ("root", "columns", "trains")  # what every dataset takes from the site's own file
LABELED = "labeled"  # argument of a dataset that can do without what is predicted: false under job=predict
IF_TAKEN = ("sources", "part", "cache", "opt_out")  # what a dataset may take from it besides
FETCHED = re.compile(
    r"(?:^|_)(?:paths?|urls?|uri|files?|dirs?|dirpath|directory|folders?|root|pretrained|cache|ckpt"
    r"|download|progress|repo|hub)(?:$|_)"
)  # a word of an argument's name that says where something is read, fetched or written
NUMBERS = re.compile(r"drop(?:out)?_path(?:_rate)?|hyena_l_cache|cache_grid")  # arguments that only sound like it
FEW = 12  # names that a message lists; of more it gives the nearest
FILES_OF_OURS = ("table", "folder")  # in the site's root: relative, with no way out of it
METRIC = re.compile(r"\w+(/\w+)*", re.ASCII)  # the name of a metric, such as val/loss: it holds a slash and is no path


@cache
def listed() -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    """By place the classes that a study may name, each with the values that the study must state beside it."""
    text = Path(__file__).with_name("allowed_classes.yaml").read_text(encoding="utf-8")
    return {
        place: dict(next(iter(each.items())) if isinstance(each, dict) else (each, {}) for each in names)
        for place, names in yaml.safe_load(text).items()
    }


def refusal(target: str, allowed: Sequence[str], places: Sequence[str] | None) -> str | None:
    """Why a target may not stand in these places, by its name alone; None where it may. No place is no list."""
    if reason := name_refusal(target, allowed):
        return reason
    if places is None or target in allowed or target.split(".")[0] not in (*LIBRARIES, *OURS):
        return None
    names = [name for place in places for name in listed().get(place, ())]
    if target in names:
        return None
    if not names:
        return "cannot stand here: no class may"
    kinds = " or ".join(place.replace("_", " of a ") if "_" in place else place for place in places)
    package = target.rsplit(".", 1)[0]
    near = [name for name in names if name.rsplit(".", 1)[0] == package] or names
    hint = nearest(target, near) if len(near) <= FEW else nearest(target, near).split("valid:")[0].strip()
    return (
        f"is not on the list of what may stand here ({kinds}); {hint or 'it is flip/config/allowed_classes.yaml'}; "
        "the machine's owner may add a class by its name to allow_targets"
    )


def nested_places(places: Sequence[str] | None, parameter: str) -> tuple[str, ...] | None:
    """Where a class may be from that fills a parameter of what stands in `places`, or lies deeper in it."""
    if places is None:
        return None
    inside = tuple(dict.fromkeys(part for place in places for part in PART_OF.get(place, (place,))))
    known = OF_PARAMETER.get(parameter)
    return tuple(each for each in known if each in inside) or inside if known else inside


def argument_refusals(target: str, config: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Argument and reason of each that names, for a class that is not a user's own, what lies outside of the study."""
    yield from outward(target, config)
    for name in FILES_OF_OURS if target.split(".")[0] in OURS else ():
        for text in texts(config.get(name)):
            if not inward(text):
                yield name, f"{text!r} must be a relative path in the site's root, without '..'"


def outward(target: str, config: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The same of a library's classes alone: whoever names one, a site's own file included, hands it no path."""
    if target.split(".")[0] not in LIBRARIES:
        return
    for name, value in config.items():
        if name != TARGET and (reason := _outward(str(name), value)):
            yield str(name), reason
    needed = next((names[target] for names in listed().values() if target in names), {})
    for name, wanted in needed.items():
        if config.get(name) is not wanted:
            yield name, f"must be {str(wanted).lower()}, or the class would fetch a file"


def _outward(name: str, value: object) -> str:
    if FETCHED.search(name) and not NUMBERS.fullmatch(name) and value not in (None, False):
        return "names a file, a folder or an address, which a study may not hand to a library"
    if name == "monitor" and isinstance(value, str) and METRIC.fullmatch(value):
        return ""
    for text in texts(value):
        if "/" in text or "\\" in text or ".." in text or text.startswith((".", "~")):
            return f"{text!r} reads as a path or an address, which a study may not hand to a library"
    return ""


def inward(text: str) -> bool:
    """Whether a path stays in the folder that it is relative to, whatever the operating system."""
    parts = PurePosixPath(text.replace("\\", "/")).parts
    return not (text.startswith(("/", "\\", "~")) or ".." in parts or ":" in text or "\0" in text)


def texts(value: object) -> Iterator[str]:
    """Every text in a value, however deep, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from texts(key)
            yield from texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)


def refusals(manifest: Mapping[str, object], allowed: Sequence[str]) -> Iterator[str]:
    """Every reason to refuse a manifest by the classes that it names and by what it tells them; key first."""
    for key, value in manifest.items():
        yield from _in_slot(str(key), value, allowed)
    dataset = manifest.get("dataset")
    for name in (*FROM_SITE, *IF_TAKEN) if isinstance(dataset, Mapping) else ():
        if name in dataset:  # type: ignore[operator]
            yield f"dataset.{name}: is the site's to set"


def _in_slot(key: str, value: object, allowed: Sequence[str]) -> Iterator[str]:
    """A top key of the manifest: the places that it holds, and no class anywhere else."""
    named = {"privacy": "privacy", "callbacks": "callback"}
    if key in ("dataset", "model", "strategy", "outcomes"):
        yield from _walk(key, value, (key,), allowed)
    elif key == "trainer" and isinstance(value, Mapping):
        for name, each in value.items():
            yield from _in_slot(f"trainer.{name}", each, allowed)
    elif key == "trainer.centralized" and isinstance(value, Mapping):
        for name, each in value.items():
            yield from _walk(f"{key}.{name}", each, ("optimizer",) if name == "optimizer" else (), allowed)
    elif (place := named.get(key.split(".")[-1])) and isinstance(value, Mapping) and TARGET not in value:
        for name, each in value.items():
            yield from _walk(f"{key}.{name}", each, (place,), allowed)
    else:
        yield from _walk(key, value, (), allowed)


def _walk(key: str, value: object, places: tuple[str, ...], allowed: Sequence[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        target, inner = value.get(TARGET), places
        if target is not None:
            if not isinstance(target, str):
                yield f"{key}.{TARGET}: {target!r} is no text"
                return
            if reason := refusal(target, allowed, places):
                yield f"{key}: {target} {reason}"
            yield from (f"{key}.{name}: {reason}" for name, reason in argument_refusals(target, value))
        for name, each in value.items():
            if name != TARGET:
                inner = nested_places(places, str(name)) or () if target is not None else places
                yield from _walk(f"{key}.{name}", each, inner, allowed)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _walk(f"{key}[{index}]", each, places, allowed)
