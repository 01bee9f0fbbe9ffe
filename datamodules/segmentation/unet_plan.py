"""Grid, patch, batch and network from the looks of scans, by nnU-Net's published rules; no data are read here.

Source of all rules and their numbers: Isensee F et al., nnU-Net: a self-configuring method for deep learning-based
biomedical image segmentation, Nat Methods 2021;18:203-211, its supplementary note 2, and its code (nnunetv2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ANISOTROPIC = 3.0  # times that a spacing is coarser than the next from which its axis has a rule of its own
FINER_PERCENTILE = 10.0  # %, of the spacing of such an axis
LEAST_EDGE = 4  # voxels of a feature map that is not pooled any more
FIRST_FEATURES = 32
MOST_FEATURES = {2: 512, 3: 320}
FIRST_EDGE = {2: 2048, 3: 256}  # voxels: the first patch has as many as a square or a cube of this edge
LEAST_BATCH = 2
COVERED = 0.05  # share of all voxels that a batch may hold at most
FEWEST_STAGES = 3  # that DynUNet takes
NUMBER = 4  # bytes of a number in single precision
OF_WEIGHT = 4 * NUMBER  # bytes: itself, its gradient, and the two moments of Adam


@dataclass(frozen=True)
class Topology:
    """Stages of a U-Net, the finest first: the stride that leads to each, and its kernel, by axis."""

    strides: list[list[int]]
    kernels: list[list[int]]

    @property
    def divisor(self) -> list[int]:
        """What the size of a patch must be divisible by, by axis."""
        return [math.prod(axis) for axis in zip(*self.strides, strict=True)]

    @property
    def features(self) -> list[int]:
        """Channels of each stage: 32, doubled at each to 320 in 3D and 512 in 2D."""
        most = MOST_FEATURES[len(self.strides[0])]
        return [min(FIRST_FEATURES * 2**stage, most) for stage in range(len(self.strides))]

    @property
    def heads(self) -> int:
        """Outputs beside the finest that are trained: of all resolutions but the two coarsest, and one at least."""
        return max(1, len(self.strides) - 3)


@dataclass(frozen=True)
class Plan:
    """A patch, voxels, the patches of a batch, the network, and the memory that a step of them is estimated to take."""

    patch: list[int]
    batch: int
    topology: Topology
    gigabytes: float


def target_spacing(median: Sequence[float], finer: Sequence[float], shape: Sequence[float]) -> list[float]:
    """The grid to resample to, mm: the median spacing; of an anisotropic axis its 10th percentile.

    An axis is that if its median spacing is over 3 times the next, and its median shape below a third of the others'.
    Its spacing is then at least the next one's.

    Args:
        median: of the scans' spacings by axis, mm.
        finer: their 10th percentile, mm.
        shape: median number of voxels by axis, of the scans' own grids.
    """
    target = [float(each) for each in median]
    worst = max(range(len(target)), key=target.__getitem__)
    others = [axis for axis in range(len(target)) if axis != worst]
    coarse = max(target[axis] for axis in others)
    if target[worst] > ANISOTROPIC * coarse and shape[worst] * ANISOTROPIC < min(shape[axis] for axis in others):
        target[worst] = max(float(finer[worst]), coarse)
    return target


def topology(spacing: Sequence[float], size: Sequence[int]) -> Topology:
    """Stages for a patch: axes are pooled by 2 while a feature map keeps 4 voxels and its spacing is the finest's.

    An axis of twice the finest spacing or more waits, with kernels of 1, until the others have come near.
    """
    axes, spacing, size = range(len(size)), list(spacing), list(size)
    kernel, strides, kernels = [1] * len(size), [[1] * len(size)], list[list[int]]()
    while True:
        large = [axis for axis in axes if size[axis] >= 2 * LEAST_EDGE]
        pooled = [axis for axis in large if spacing[axis] < 2 * min(spacing[each] for each in large)]
        if not pooled or (len(pooled) == 1 and size[pooled[0]] < 3 * LEAST_EDGE):
            break
        kernel = [3 if spacing[axis] < 2 * min(spacing) else kernel[axis] for axis in axes]
        strides.append([2 if axis in pooled else 1 for axis in axes])
        kernels.append(kernel)
        for axis in pooled:
            spacing[axis], size[axis] = 2 * spacing[axis], math.ceil(size[axis] / 2)
    kernels.append([3] * len(size))
    while len(strides) < FEWEST_STAGES:
        strides.append([1] * len(size))
        kernels.append([3] * len(size))
    return Topology(strides, kernels)


def fitted(spacing: Sequence[float], size: Sequence[int]) -> tuple[list[int], Topology]:
    """A patch made as large as its network needs, and this network."""
    found = topology(spacing, size)
    patch = [math.ceil(side / by) * by for side, by in zip(size, found.divisor, strict=True)]
    return patch, found


def gigabytes(patch: Sequence[int], batch: int, network: Topology, *, channels: int, classes: int) -> float:
    """Estimate of the memory that a training step takes, 10^9 bytes, in single precision with Adam.

    Of each convolution two arrays are kept for the backward pass, its output and that after normalization, and of each
    way up the upsampled array and its concatenation with the encoder's; of each output the logits, their softmax and
    one more. Weights take 16 bytes each. What cuDNN works with, some 0.5 to 1, is not in it.
    """
    voxels, features, shares = float(math.prod(patch)), network.features, 1.0
    numbers, weights, before = channels * voxels, 0.0, channels
    for stage, (stride, kernel, width) in enumerate(zip(network.strides, network.kernels, features, strict=True)):
        shares /= math.prod(stride)
        here, volume, deepest = voxels * shares, math.prod(kernel), stage == len(features) - 1
        numbers += 4 * width * here
        weights += volume * width * (before + width)
        if not deepest:
            numbers += (1 + 2 + 4) * width * here
            weights += math.prod(network.strides[stage + 1]) * features[stage + 1] * width
            weights += math.prod(network.kernels[stage + 1]) * width * 3 * width
        before = width
    numbers += 3 * (1 + network.heads) * classes * voxels
    return (batch * NUMBER * numbers + OF_WEIGHT * weights) / 1e9


def plan(
    spacing: Sequence[float], shape: Sequence[float], scans: int, *, channels: int, classes: int, memory: float
) -> Plan:
    """Patch, batch and network for a grid.

    The first patch has the voxels of a cube of 256 (a square of 2048), as many mm along each axis, and is no larger
    than the median scan. While two of it do not fit into the memory, the axis that is largest relative to the median
    scan gets shorter, by what it must be divisible by. Memory that is left makes batches larger, to 5 % of all voxels.

    Args:
        spacing: of the grid, mm.
        shape: of the median scan on this grid, voxels.
        scans: how many there are.
        channels: of the images.
        classes: of the outputs, with background.
        memory: that a training step may take, 10^9 bytes.

    Raises ValueError where not even the smallest patch fits.
    """
    edge, mean = FIRST_EDGE[len(spacing)], math.prod(spacing) ** (1 / len(spacing))
    first = [max(min(round(edge * mean / mm), round(side)), 1) for mm, side in zip(spacing, shape, strict=True)]
    patch, network = fitted(spacing, first)
    while (needed := gigabytes(patch, LEAST_BATCH, network, channels=channels, classes=classes)) > memory:
        longest = max(range(len(patch)), key=lambda axis: patch[axis] / shape[axis])
        by = topology(spacing, [each - network.divisor[axis] * (axis == longest) for axis, each in enumerate(patch)])
        smaller = [each - by.divisor[axis] * (axis == longest) for axis, each in enumerate(patch)]
        if smaller[longest] < LEAST_EDGE:
            raise ValueError(
                f"dataset.plan.memory_gigabytes={memory:g}: the smallest batch, of two patches of "
                f"{' x '.join(map(str, patch))} voxels, takes {needed:.2g}; raise it"
            )
        patch, network = fitted(spacing, smaller)
    alone = gigabytes(patch, 1, network, channels=channels, classes=classes)
    for_each = gigabytes(patch, 2, network, channels=channels, classes=classes) - alone
    room = int((memory - alone) / for_each) + 1
    covered = round(COVERED * scans * math.prod(shape) / math.prod(patch))
    batch = max(min(room, covered), LEAST_BATCH)
    return Plan(patch, batch, network, gigabytes(patch, batch, network, channels=channels, classes=classes))
