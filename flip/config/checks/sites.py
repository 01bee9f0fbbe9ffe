"""What can be wrong in a site's own file: its device, its policy, and where it says that its data come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flip.config import build
from flip.config.checks.devices import device_problems
from flip.config.checks.signatures import Slot, bind
from flip.config.jobs import JOBS
from flip.config.opt_out import list_problems
from flip.config.policy import Policy
from flip.config.schema import Cache, Site
from flip.config.study import Study
from flip.config.targets import TARGET, TargetError, resolve
from flip.contracts import ConvertsColumns, HasSources, TakesTerms
from flip.errors import UserError, at, nearest

ACCELERATORS = ("cpu", "gpu", "cuda", "mps", "auto")
PRECISIONS = (
    "64", "64-true", "32", "32-true", "16", "16-true", "16-mixed", "bf16", "bf16-true", "bf16-mixed",
    "transformer-engine", "transformer-engine-float16",
)  # fmt: skip
"""What Lightning 2.6 takes."""
CONVERSION = ("name", "factor", "offset", "values")
"""What a column of a site's own may say besides its name: unit (own * factor + offset) and spelling of its values."""


def site_problems(study: Study) -> Iterator[str]:
    """Every mistake in the sites' files."""
    if not study.sites:
        yield "sites: there is none; choose some, as in sites=[a,b]; python -m flip --help lists them"
    elif not any(site.trains or JOBS[study.job].applies for site in study.sites.values()):
        yield "sites: none of them trains; set sites.NAME.trains=true for one"
    for name, site in study.sites.items():
        yield from one_of(study, f"sites.{name}.accelerator", site.accelerator, ACCELERATORS)
        yield from one_of(study, f"sites.{name}.precision", site.precision, PRECISIONS)
        if not study.live and not there(site.accelerator):
            key = at(f"sites.{name}.accelerator", study.where)
            yield f"{key}: torch finds no {site.accelerator} on this machine; write cpu, or auto for what there is"
        for problem in device_problems(site, here=not study.live):
            yield f"{at(f'sites.{name}.devices', study.where)}{problem.removeprefix('devices')}"
        try:
            Policy.read(name, site.policy, deployed=study.site_file is not None)
        except UserError as error:
            yield from error.problems
            continue
        if not site.cache.gigabytes > 0:
            yield f"{at(f'sites.{name}.cache.gigabytes', study.where)}: must be above 0"
        for problem in list_problems(site):
            yield f"{at(f'sites.{name}.opt_out', study.where)}{problem.removeprefix('opt_out')}"
        yield from _columns(study, name, site)
        yield from _taken(study, name, site)
    yield from _shared(study)


def there(accelerator: str) -> bool:
    """Whether this machine has such a device; true of one whose name is a mistake of its own."""
    if accelerator not in ("gpu", "cuda", "mps"):
        return True
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return {"gpu": cuda or mps, "cuda": cuda, "mps": mps}[accelerator]


def one_of(study: Study, key: str, value: object, valid: Sequence[str]) -> Iterator[str]:
    """A value that is not among those that are valid."""
    if value is not None and str(value) not in valid:
        yield f"{at(key, study.where)}: {value!r} is none of {', '.join(valid)}"


def _columns(study: Study, name: str, site: Site) -> Iterator[str]:
    """Names, conversions or null; conversions only for a dataset that makes them."""
    for column, own in site.columns.items():
        if isinstance(own, str | int):
            continue
        key = at(f"sites.{name}.columns.{column}", study.where)
        if own is not None and not isinstance(own, Mapping):
            yield f"{key}: {own!r} must be the site's own name, a mapping with {', '.join(CONVERSION)}, or null"
        elif not (isinstance(dataset := _dataset(study), ConvertsColumns) and dataset.converts_columns):
            yield f"{key}: this study's dataset takes the site's own name alone; convert the column in the table"
        elif not (isinstance(dataset, TakesTerms) and {*dataset.COLUMN_KEYS} == {*(own or {})}):
            yield from _conversion(study, f"sites.{name}.columns.{column}", own or {})


def _conversion(study: Study, key: str, own: Mapping[object, object]) -> Iterator[str]:
    for part, value in own.items():
        here = at(f"{key}.{part}", study.where)
        if part not in CONVERSION:
            yield f"{here}: no such key; {nearest(str(part), CONVERSION)}"
        elif part in ("factor", "offset") and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield f"{here}: {value!r} must be a number: declared unit = own * factor + offset"
        elif part == "factor" and not value:
            yield f"{here}: must not be 0"
        elif part == "values" and not isinstance(value, Mapping):
            yield f"{here}: {value!r} must map the site's own values to the study's, as in {{M: male, F: female}}"


def _taken(study: Study, name: str, site: Site) -> Iterator[str]:
    """Sources and part: for a dataset that takes them, and of classes that this site allows."""
    dataset = _dataset(study)
    if dataset is None:
        return  # a mistake of its own
    asked = (*build.IF_TAKEN, build.PERSON)
    taken = build.takes(study.manifest["dataset"], asked)
    for given in asked:
        if getattr(site, given) not in (None, {}, Cache()) and given not in taken:
            key = at(f"sites.{name}.{given}", study.where)
            yield f"{key}: {dataset.__name__} takes no {given}; leave it out, or choose another dataset"
    for part, config in site.sources.items() if "sources" in taken else ():
        key, parts = f"sites.{name}.sources.{part}", dataset.SOURCES if isinstance(dataset, HasSources) else ()
        if part not in parts:
            yield f"{at(key, study.where)}: {dataset.__name__} has no such part; {nearest(part, parts)}"
        yield from bind(Slot(key, config, build.source_prefixes(name, site), may=("root",)), study.where)


def _shared(study: Study) -> Iterator[str]:
    """Two sites with the same cohort, or the same part of one, would train and test on the same persons."""
    if study.live:  # each site's root is in its own file, which is not read here
        return
    if _dataset(study) is None:
        return
    parted = "part" in build.takes(study.manifest["dataset"], ("part",))
    remedy = "give each its part of it, as in part: 0" if parted else "name another"
    owner: dict[str, str] = {}
    for name, site in study.sites.items():
        if not (parted or Path(site.root).exists()):  # a dataset of the study's own may need none
            continue
        first = owner.setdefault(repr((Path(site.root).resolve(), site.sources, site.part)), name)
        if first != name:
            yield f"{at(f'sites.{name}.root', study.where)}: {site.root} is the cohort of {first} as well; {remedy}"


def _dataset(study: Study) -> Callable[..., object] | None:
    """The study's class of dataset; None where its target is a mistake, which is named elsewhere."""
    try:
        return resolve(str(study.manifest["dataset"].get(TARGET)))
    except TargetError:
        return None
