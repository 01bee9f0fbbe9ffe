"""What a site tells of its scans' grids for a plan, and the plan as YAML: sums over sites in, settings to read out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.segmentation.examples import Scan
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.intensity import Intensity, Percentiles, Standardized, foreground_of
from datamodules.segmentation.unet_plan import FINER_PERCENTILE, Plan, plan, target_spacing

FOREGROUND = "sum/foreground intensities"  # persons' shares of voxels by bin
BINS = {"spacing": (0.01, 2001), "shape": (1.0, 2049), "extent": (1.0, 2049)}
"""By what is told of each axis, the width and the number of its bins, the first at 0, the last open: mm, voxels, mm."""

Sums = Mapping[str, NDArray[np.float64]]


class Planning:
    """How `job=plan` plans.

    Args:
        memory_gigabytes: that a training step may take of a site's accelerator or memory, 10^9 bytes.
    """

    def __init__(self, memory_gigabytes: float = 8.0) -> None:
        if not memory_gigabytes > 0:
            raise ValueError(f"dataset.plan.memory_gigabytes={memory_gigabytes}: must be above 0")
        self.memory = float(memory_gigabytes)


def told(
    scans: Sequence[Scan], intensity: Intensity, minimum_cell: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """Histograms over persons, each by the first of its scans, and on how many persons each rests.

    `histogram/spacing/<axis>`, `.../shape/<axis>` and `.../extent/<axis>` (spacing times shape) of the scans' own
    grids, by `BINS`; and FOREGROUND as `foreground_of` gives it, where the intensity has a histogram.
    """
    first = {scan.beside["person"]: scan.arrays for scan in reversed(scans)}
    found, behind = dict[str, NDArray[np.float64]](), dict[str, int]()
    for kind, (width, number) in BINS.items():
        for axis in range(len(next(iter(first.values()))["shape"]) if first else 0):
            sizes = {
                "spacing": np.array([float(each["spacing_mm"][axis]) for each in first.values()]),
                "shape": np.array([float(each["shape"][axis]) for each in first.values()]),
            }
            sizes["extent"] = sizes["spacing"] * sizes["shape"]
            bins = np.clip(np.rint(sizes[kind] / width), 0, number - 1).astype(np.int64)
            name = f"histogram/{kind}/{axis}"
            found[name], behind[name] = np.bincount(bins, minlength=number).astype(np.float64), len(first)
    if intensity.agreed and scans:
        shares = np.array([scan.arrays["histogram"] for scan in scans])
        found[FOREGROUND], number = foreground_of(shares, [scan.beside["person"] for scan in scans], minimum_cell)
        behind[FOREGROUND] = number
    return found, behind


def percentile(mass: NDArray[np.float64], share: float, width: float) -> float:
    """A percentile of the middles of a histogram's bins, linear between two of them as NumPy has it."""
    ends, place = np.cumsum(mass), (mass.sum() - 1) * share / 100
    low, high = (int(np.searchsorted(ends, np.floor(place) + more, side="right")) for more in (0, place % 1 > 0))
    return float(low + (high - low) * (place % 1)) * width


def medians(sums: Sums, kind: str, dimensions: int, share: float = 50.0) -> list[float]:
    """The median, or another percentile, by axis. Raises ValueError where no site tells it."""
    names = [f"histogram/{kind}/{axis}" for axis in range(dimensions)]
    if not all(name in sums and sums[name].sum() > 0 for name in names):
        raise ValueError("no site tells the grids of its scans: fewer persons to train on than its minimum_cell")
    return [percentile(sums[name], share, BINS[kind][0]) for name in names]


def planned(sums: Sums, form: Volumes | Pictures, intensity: Intensity, *, structures: int, planning: Planning) -> str:
    """The settings as YAML, to be laid over the study's. Raises ValueError where nothing fits, or no site tells."""
    dimensions = form.dimensions
    spacing, shape = (medians(sums, kind, dimensions) for kind in ("spacing", "shape"))
    extent = medians(sums, "extent", dimensions)
    target = spacing
    if isinstance(form, Volumes):
        target = target_spacing(spacing, medians(sums, "spacing", dimensions, FINER_PERCENTILE), shape)
    target = [round(max(each, BINS["spacing"][0]), 2) for each in target]
    size = [max(length / mm, 1.0) for length, mm in zip(extent, target, strict=True)]
    persons = round(float(sums["histogram/shape/0"].sum()))
    found = plan(
        target, size, persons, channels=form.channels, classes=1 + structures, memory=planning.memory
    )  # fmt: skip
    own = f"of {persons} persons: median spacing {_list(spacing)} mm, shape {_list(shape)} voxels"
    lines = [
        "defaults:",
        "  - override /model: nnunet  # a U-Net of stages as below, with deep supervision",
        "dataset:",
    ]
    if isinstance(form, Volumes):
        lines += [f"  image:  # {own}", f"    spacing_mm: {_list(target)}  # of the grid that the network sees, mm"]
    lines += _intensity(sums, form, intensity)
    lines += [
        "  patches:",
        f"    size: {found.patch}  # voxels; the median scan has {_list([round(each) for each in size])} on this grid",
        f"  batch_size: {found.batch}  # patches; a step takes about {found.gigabytes:.2g} of "
        f"{planning.memory:g} gigabytes (dataset.plan.memory_gigabytes)",
        "model:",
        "  network:",
        f"    spatial_dims: {dimensions}  # axes of an image; 2 or 3",
        *_network(found),
    ]
    return "\n".join(lines) + "\n"


def _network(found: Plan) -> list[str]:
    network, divisor = found.topology, found.topology.divisor
    return [
        f"    strides: {network.strides}  # by stage and axis, the finest first; a patch is divisible by {divisor}",
        f"    kernel_size: {network.kernels}  # voxels, by stage and axis",
        f"    upsample_kernel_size: {network.strides[1:]}  # the strides but for the first",
        f"    filters: {network.features}  # channels by stage; fewer take less memory and time",
        f"    deep_supr_num: {network.heads}  # coarser outputs that are trained too; 1 to stages less 2",
    ]


def _intensity(sums: Sums, form: Volumes | Pictures, intensity: Intensity) -> list[str]:
    """nnU-Net's rule: CT by percentiles of the structures over all sites, all else image by image."""
    if isinstance(form, Volumes) and form.modality == "CT":
        name, lines = "Percentiles", ["    low: 0.5   # percentile to clip to, %", "    high: 99.5  # percentile, %"]
        about = "CT: clipped, then scaled"
        if isinstance(intensity, Percentiles) and sums.get(FOREGROUND, np.zeros(1)).sum() > 0:
            intensity.agree(sums[FOREGROUND])
            low, high = intensity.window
            about += f"; now {low:.0f} to {high:.0f} HU, mean {intensity.mean:.0f}, deviation {intensity.deviation:.0f}"
    else:
        name, lines, about = "Standardized", list[str](), "each image by itself: (value - mean) / deviation"
        if not isinstance(intensity, Standardized):
            kept = type(intensity).__name__
            return [f"  # intensity: {kept} stays as the study declares it; nnU-Net's rule is Standardized, {about}"]
    target = f"    _target_: datamodules.segmentation.intensity.{name}"
    return [f"  intensity:  # {about}", target, *lines]


def _list(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{each:g}" for each in numbers) + "]"
