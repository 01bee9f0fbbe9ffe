"""What a study takes of a MONAI Bundle's configuration, as plain values: `network: ${bundle:network}`.

The bundle's files are read when the study is settled, at the coordinator; the manifest holds the values, so that sites
need no bundle.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from flip.config.bundle_files import ROUND, WINDOWS, Bundle, Value, at_key, classes
from flip.config.targets import TARGET
from flip.errors import UserError, Where, at, nearest
from flip.messages.model_file import BUNDLE, ModelFile, load_model
from flip.messages.weights import digest
from flip.messages.weights_file import read_weights

FORM, RULE = "datamodules.segmentation.forms.Volumes", "datamodules.segmentation.intensity"
GRID = {
    "Orientation": ("orientation", ("axcodes", "labels", "allow_missing_keys")),
    "Spacing": ("spacing_mm", ("pixdim", "mode", "padding_mode", "align_corners", "allow_missing_keys")),
    "ToGrid": ("spacing_mm", ("spacing_mm",)),
}
"""Transforms that make the grid: the key of `dataset.image`, and the arguments that change nothing else of it."""
MONAI_OVERLAP = 0.25
READ = ("LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor", *GRID)
"""Transforms that change no values, without MONAI's `d`; `ToGrid`, `Range` and `Standardized` are the engine's own."""
WRITE_IMAGE = f"write dataset.image={{_target_: {FORM}, spacing_mm: [1.5, 1.5, 2.0], orientation: RAS}}"
WRITE_INTENSITY = f"write dataset.intensity={{_target_: {RULE}.Range, low: -160, high: 240}}"
AFTER = ("Activations", "AsDiscrete", "Invert", "SaveImage", "EnsureType", "ToTensor")
"""What the engine does with an output too: the largest of a softmax, on the scan's own grid."""


def bundled(name: str, *, _root_: DictConfig) -> object:
    """A part of the bundle that the study's `bundle` names. Raises UserError where it cannot be taken."""
    folder = _root_.get("bundle")
    if not isinstance(folder, str) or not folder:
        raise UserError("no bundle is named; set bundle=FOLDER, that of a MONAI Bundle, or write the value here")
    if name not in PARTS:
        raise UserError(f"a bundle has no part {name}; {nearest(name, PARTS)}")
    return PARTS[name](Bundle(Path(folder).expanduser()))


def unread(cfg: DictConfig, where: Where) -> Iterator[str]:
    """A bundle that is named and of which nothing is taken."""
    parts = {name: cfg[name] for name in ("dataset", "model") if isinstance(cfg.get(name), DictConfig)}
    written = OmegaConf.to_yaml(OmegaConf.create(parts), resolve=False)
    if cfg.get("bundle") and "${bundle:" not in written:
        key = at("bundle", where)
        yield f"{key}: nothing of it is read; choose model=bundle, and dataset=bundle for its grid, or leave it out"


def read_model(path: Path) -> ModelFile:
    """The model of a run's folder or file, or a MONAI Bundle's: its network, and how an image is prepared for it.

    Raises UserError, with the remedy, for anything else.
    """
    if not (path / BUNDLE).is_file():
        return load_model(path)
    weights = {f"network.{name}": array for name, array in read_weights(path).items()}
    prepared = {name: PARTS[name](Bundle(path)) for name in ("structures", "image", "intensity")}
    return ModelFile(weights, {}, {"name": path.name, "dataset": prepared}, digest(weights))


PREPARED, FINISHED = ("preprocessing", "validate::preprocessing"), ("postprocessing", "validate::postprocessing")


def network(bundle: Bundle) -> object:
    """`network_def`, of a bundle with whose output the engine does what the bundle would do."""
    found = bundle.named("network_def", "network")
    if found.raw is None:
        raise UserError(f"{found.place}: there is none; add network_def, in a copy of the bundle")
    for each in bundle.transforms(*FINISHED):
        labels = any(each.raw.get(key) for key in ("sigmoid", "other", "threshold"))
        if each.name not in AFTER or labels or (each.name == "AsDiscrete" and not each.raw.get("argmax")):
            raise UserError(
                f"{each.place}: {each.raw[TARGET]} has no counterpart: the engine takes the largest of a softmax; "
                "leave it out in a copy of the bundle, and do it on the masks"
            )
    return classes(found.plain, "network")


def loss(bundle: Bundle) -> object:
    """`loss`."""
    found = bundle.named("loss", "train::loss")
    if found.raw is None:
        raise UserError(f"{found.place}: there is none; write model.loss, as model=segmenter has it")
    return classes(found.plain, "loss")


def windows(bundle: Bundle) -> object:
    """Voxels of the windows that slide over a scan."""
    return next(each for key, each in bundle.windows().arguments.items() if key in WINDOWS)


def overlap(bundle: Bundle) -> object:
    """Share of a window that the next one covers again, of the inferer whose windows are taken; MONAI's where it says
    none."""
    found = bundle.windows()
    if (mode := found.arguments.get("mode", "gaussian")) != "gaussian":
        raise UserError(
            f"{found.place}.mode: {mode!r} has no counterpart: the engine weighs windows by a Gaussian; write that, "
            "in a copy of the bundle, or model.overlap, as 0.5, to take it so"
        )
    return found.arguments.get("overlap", MONAI_OVERLAP)


def least_part(bundle: Bundle) -> object:
    """By structure the smallest part that is kept, where the bundle is of the engine's own."""
    return bundle.named("evaluator::least_part").plain or {}


def structures(bundle: Bundle) -> object:
    """Names of the classes 1, 2, ... as letters, digits and _ alone."""
    named = at_key(bundle.metadata, "network_data_format::outputs::pred::channel_def")
    if not isinstance(named, Mapping) or len(named) < 2 or {*map(str, named)} != {*map(str, range(len(named)))}:
        raise UserError(
            f"{bundle.folder}: configs/metadata.json does not name every channel of its output (network_data_format, "
            "outputs, pred, channel_def); write dataset.structures=[...]"
        )
    by_number = {int(number): str(name) for number, name in named.items()}
    if by_number[0].lower() != "background":
        raise UserError(
            f"{bundle.folder}: configs/metadata.json calls channel 0 {by_number[0]!r}, and here it is the background; "
            "only bundles of one class a voxel can be taken"
        )
    return [re.sub(r"\W+", "_", by_number[number], flags=re.ASCII) for number in range(1, len(by_number))]


def image(bundle: Bundle) -> object:
    """The grid of `preprocessing`: `Orientation` and `Spacing`."""
    if isinstance(channels := _channels(bundle), int) and channels > 1:
        raise UserError(
            f"{bundle.folder}: its network takes {channels} channels, and a scan has one here: no counterpart; "
            "for pictures of as many channels write dataset.image"
        )
    found: dict[str, object] = {TARGET: FORM}
    for each in bundle.transforms(*PREPARED):
        if each.name not in GRID:
            continue
        key, known = GRID[each.name]
        late = each.name == "Orientation" and "spacing_mm" in found
        linear = str(each.arguments.get("mode", "bilinear")).strip("[']").startswith("bilinear")
        other = {*each.arguments} - {TARGET, "keys", *known} | ({"mode"} if not linear else set())
        if key in found or late or other:
            what = "twice" if key in found else "after the spacing" if late else f"by {', '.join(sorted(other))}"
            raise UserError(f"{each.place}: {each.raw[TARGET]} {what} has no counterpart; {WRITE_IMAGE}")
        found[key] = each.arguments.get(known[0])
    for key, name in (("spacing_mm", "Spacing"), ("orientation", "Orientation")):
        if not found.get(key):
            raise UserError(f"{bundle.named(*PREPARED).place}: states no grid by {name}; {WRITE_IMAGE}")
    modality = at_key(bundle.metadata, "network_data_format::inputs::image::modality")
    return {**found, "modality": modality} if isinstance(modality, str) else found


def _channels(bundle: Bundle) -> object:
    """How many the network takes, where network or metadata say it."""
    found = bundle.named("network_def::in_channels", "network::in_channels")
    if found.raw is not None:
        return found.plain
    return at_key(bundle.metadata, "network_data_format::inputs::image::num_channels")


def intensity(bundle: Bundle) -> object:
    """How `preprocessing` changes values: `ScaleIntensityRange`, clipped, or `NormalizeIntensity` of each image."""
    prepared = bundle.transforms(*PREPARED)
    changing = [
        each
        for each in prepared
        if each.name not in READ and not (each.name == "Lambda" and each.raw.get("func") == ROUND)
    ]
    grid = max((number for number, each in enumerate(prepared) if each.name in GRID), default=-1)
    for each in changing:
        if prepared.index(each) < grid:
            raise UserError(
                f"{each.place}: {each.raw[TARGET]} before the grid is made has no counterpart, and after it "
                f"has; {WRITE_INTENSITY}"
            )
    rules = [_rule(each) for each in changing]
    if len(rules) != 1:
        raise UserError(
            f"{bundle.named(*PREPARED).place}: changes values by {len(rules)} transforms, and the engine by one; "
            f"{WRITE_INTENSITY}"
        )
    return rules[0]


def _rule(each: Value) -> dict[str, object]:
    name, given = each.name, each.arguments
    if name == "Range":
        return {TARGET: f"{RULE}.Range", **{key: given[key] for key in ("low", "high", "to") if key in given}}
    if name == "ScaleIntensityRange" and given.get("clip") and {"a_min", "a_max", "b_min", "b_max"} <= {*given}:
        to = [given["b_min"], given["b_max"]]
        return {TARGET: f"{RULE}.Range", "low": given["a_min"], "high": given["a_max"], "to": to}
    whole = name == "NormalizeIntensity" and not {"subtrahend", "divisor"} & {*given} and not given.get("nonzero")
    if name == "Standardized" or whole:
        return {TARGET: f"{RULE}.Standardized"}
    raise UserError(
        f"{each.place}: {given[TARGET]} as it is given has no counterpart (ScaleIntensityRange with clip, b_min and "
        f"b_max, and NormalizeIntensity of whole images have); {WRITE_INTENSITY}, "
        "or leave it out in a copy of the bundle where it changes no values"
    )


PARTS: Mapping[str, Callable[[Bundle], object]] = {
    "network": network, "loss": loss, "roi": windows, "overlap": overlap, "least_part": least_part,
    "structures": structures, "image": image, "intensity": intensity,
}  # fmt: skip
