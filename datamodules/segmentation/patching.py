"""Which patches of a scan are trained on, and how they are augmented."""

from __future__ import annotations

from collections.abc import Sequence

from monai import transforms

BIG = ("image", "label")


class Patching:
    """Patches to train on.

    Args:
        size: of a patch, voxels.
        foreground: share of the patches that are centered on a structure.
        each: patches of a scan in an epoch.
        augment: strength of turns, scaling, contrast, blur and noise; 0 is none, also no mirroring, 1 the usual.
        mirror: axes along which half of the patches are mirrored; none where a structure has a side.
    """

    def __init__(
        self,
        size: Sequence[int],
        foreground: float = 0.33,
        each: int = 2,
        *,
        augment: float = 1.0,
        mirror: Sequence[int] = (),
    ) -> None:
        if len(size) not in (2, 3) or min(size) < 1 or each < 1 or not 0 <= foreground <= 1 or augment < 0:
            raise ValueError(
                "dataset.patches: size must be 2 or 3 numbers above 0, each above 0, foreground 0 to 1, augment 0 up"
            )
        if any(axis not in range(len(size)) for axis in mirror):
            raise ValueError(f"dataset.patches.mirror={list(mirror)}: must be axes, 0 to {len(size) - 1}")
        self.size, self.foreground, self.each = list(size), foreground, each
        self.augmentation = augmentation(augment, size, mirror)


def augmentation(strength: float, size: Sequence[int], mirror: Sequence[int]) -> transforms.Compose | None:
    """MONAI's transforms of `image` and `label`: what differs between patients, tables, scanners and kernels.

    `mirror`: axes on which half of the patches are mirrored. None where nothing is to be done.
    """
    if not strength:
        return None
    both, dimensions = list(BIG), len(size)
    blur = {f"sigma_{axis}": (0.3, 0.8) for axis in "xyz"[:dimensions]}
    return transforms.Compose(
        [
            *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in mirror),
            transforms.RandAffined(
                both, prob=0.3 * min(strength, 1), rotate_range=(0.26 * strength,) * (1 if dimensions == 2 else 3),
                scale_range=(0.2 * strength,) * dimensions, mode=("bilinear", "nearest"), padding_mode="border",
            ),
            transforms.RandScaleIntensityd("image", factors=0.25 * strength, prob=0.3),
            transforms.RandShiftIntensityd("image", offsets=0.1 * strength, prob=0.3),
            transforms.RandGaussianSmoothd("image", prob=0.2 * min(strength, 1), **blur),
            transforms.RandGaussianNoised("image", std=0.1 * strength, prob=0.15),
        ]
    )  # fmt: skip
