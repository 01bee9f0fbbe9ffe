"""On which pixels a CT slice is shown to a network and measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Grid:
    """The grid that a network sees, and the side of the scanner's own that is measured on.

    Args:
        spacing_mm: pixel of the network's grid, mm.
        size: side of that grid, pixels.
        plane: side of the grid that is measured on, pixels; a plane with more rows or columns is thinned out.
        window: lowest and highest HU that the network tells apart.
    """

    def __init__(
        self,
        spacing_mm: float = 2.5,
        size: int = 176,
        plane: int = 512,
        window: Sequence[float] = (-200.0, 300.0),
    ) -> None:
        self.spacing_mm, self.size, self.plane, self.window = spacing_mm, size, plane, window

    def shown(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """HU from the lowest to the highest of the window as 0 to 1."""
        return (self.windowed(hu) + 1) / 2

    def windowed(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """HU from the lowest to the highest of the window as -1 to 1."""
        low, high = self.window
        return ((np.clip(hu, low, high) - low) * (2 / (high - low)) - 1).astype(np.float32)
