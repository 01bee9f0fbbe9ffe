"""Whole CT scans without labels, from a folder in any layout, a site's table or a PACS: for a model to be used on.

What is not read has a reason. `levels.csv` (`accession`, `level_mm`) beside the scans, which a reader writes, says
where L3 is in scans in which a model is not to look for it; `none` says that it is not in the scan.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import phantom
from datamodules.alignment import identifier
from datamodules.ct.grid import Grid
from datamodules.ct.planes import AIR, TISSUES, Plane
from datamodules.ct.scan_folder import PLACES, Place, corrections, places
from datamodules.ct.scans import UNFIT_SCANS, Scan, ScanReader
from datamodules.dicom import Decoder, Reason
from datamodules.dicom.remarks import Remark, SeriesRead, noted
from datamodules.opt_out import gone, stays
from datamodules.splits import persons_by

OTHER_VALUES = "the values lie further from those of the training than the study permits (dataset.usual_hu)"
SHARES = (5, 25, 50, 75, 95)  # percentiles of the body that are compared with those of the training


class CTScans(lightning.LightningDataModule):
    """Unlabeled CT scans of a site; there is nothing in them to train or to test on.

    Args:
        root: the site's folder: with `cohort.csv` as `datamodules.ct_slices` has it, whose sexes and heights may be
            empty, and `dicom/<accession_id>/` or `images/<accession_id>/`; without one, DICOM files in any folders.
            What the table does not say of a person the headers may.
        columns: the site's own name for a column of the table that it names differently.
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: as every dataset has it; nothing is trained on.
        sources: `images`: where the scans come from instead, as a PACS.
        grid: the pixels that the network sees, as in the training; scans are measured on all of their own.
        thickest_mm: thickest slices that are measured, mm.
        contrast: True for scans that name a contrast agent alone, False for those that name none; None takes any, but
            with `contrast_seconds` those that name one.
        contrast_seconds: shortest and longest time from the start of the contrast agent to the scan's lowest image, s,
            as in the training; others, and those that do not say it, as enhanced images, are not measured. None takes
            any.
        usual_hu: percentiles 5, 25, 50, 75 and 95 of the HU within the window, of planes of the training; None does not
            compare.
        farthest_hu: mean distance from these up to which a plane is measured, HU.
        demo: whether this is the SYNTHETIC demo cohort, which is generated where it is absent; its labels are not read.
        demo_patients: how many patients to generate.

    Attributes after `setup`: `accessions`; after `scans`: `skipped`, `remarks`, `skipped_accessions`, `series`, as of
    `datamodules.ct_slices`.

    Raises (by `setup`): FileNotFoundError and ValueError as `datamodules.ct.scan_folder.places`.
    """

    REASONS = frozenset((*(each.value for each in Reason), *UNFIT_SCANS, *PLACES))
    REMARKS = frozenset(each.value for each in Remark)
    SOURCES = frozenset({"images"})
    opted_out = (0, 0)

    def __init__(
        self,
        root: str,
        columns: Mapping[str, str] | None = None,
        trains: bool = True,
        *,
        sources: Mapping[str, Any] | None = None,
        grid: Grid | None = None,
        thickest_mm: float = 10.0,
        contrast: bool | None = None,
        contrast_seconds: Sequence[float] | None = None,
        usual_hu: Sequence[float] | None = None,
        farthest_hu: float = 30.0,
        demo: bool = False,
        demo_patients: int = 24,
        opt_out: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.opt_out, self._listed = frozenset(opt_out), list[str]()
        if usual_hu is not None and (len(usual_hu) != len(SHARES) or list(usual_hu) != sorted(usual_hu)):
            raise ValueError(f"usual_hu: must be the percentiles {', '.join(map(str, SHARES))}, in ascending order")
        check_seconds(contrast_seconds, contrast)
        self.root, self.columns, self.trains, self.synthetic = Path(root), dict(columns or {}), trains, demo
        self.demo_patients = demo_patients
        self.source, self.grid = (sources or {}).get("images"), grid or Grid()
        self.thickest_mm, self.contrast, self.contrast_seconds = thickest_mm, contrast, contrast_seconds
        self.usual_hu, self.farthest_hu = usual_hu, farthest_hu
        self.skipped, self.skipped_persons = dict[str, int](), dict[str, int]()
        self.skipped_accessions: list[tuple[str, str]] = []
        self.series, self.remarks, self.remarks_persons = SeriesRead(), dict[str, int](), dict[str, int]()
        self._places: list[Place] | None = None

    @property
    def accessions(self) -> list[str]:
        """The studies that are listed."""
        return [place.accession for place in self._places or ()]

    def prepare_data(self) -> None:
        """Generate the demo cohort, if this is the demo and it is absent."""
        if self.synthetic:
            phantom.ensure(self.root, patients=self.demo_patients)

    def declared_sizes(self) -> dict[str, int]:
        """`image.channels`; `target.classes`: the tissues and what is around them."""
        return {"image.channels": 1, "target.classes": 1 + len(TISSUES)}

    def persons(self) -> int:
        """Number of distinct persons. Raises as `setup`."""
        self.setup()
        return len(set(self._whose()))

    def setup(self, stage: str | None = None) -> None:
        """List the studies, once; no image is decoded."""
        if self._places is None:
            self.prepare_data()
            listed = places(self.root, self.columns, self.source)
            names = [identifier(place.person) for place in listed]
            self._places = list(itertools.compress(listed, stays(names, self.opt_out)))
            self._listed, self.opted_out = [place.accession for place in listed], gone(names, self.opt_out)

    def person_names(self) -> list[str]:
        """The site's own name of each person, once."""
        self.setup()
        return [name for name in dict.fromkeys(identifier(place.person) for place in self._places or ()) if name]

    def example_persons(self, split: str) -> list[str]:
        """The site's own name of the person of each study; of a split nobody's, as `whose` says."""
        self.setup()
        places = () if split else self._places or ()
        return [identifier(place.person) or f"accession {place.accession}" for place in places]

    def _whose(self) -> list[int]:
        """A code of the person of each study; one who is not named is another each time."""
        names = [place.person or f"accession {place.accession}" for place in self._places or ()]
        codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
        return [codes[name] for name in names]

    def scans(self) -> Iterator[Scan]:
        """Each study, read when it is asked for, or why it was not read.

        Raises ValueError for a `levels.csv` that is no such table, or that names a study that is not there.
        """
        self.setup()
        levels = corrections(self.root, self._listed)
        reader = ScanReader(self.thickest_mm, self.contrast, self.contrast_seconds, levels)
        skipped = list[tuple[str, int]]()
        self.skipped_accessions, self.series = [], SeriesRead()
        with Decoder() as decoder:
            for place, person in zip(self._places or (), self._whose(), strict=True):
                scan = reader.read(place, decoder)
                if scan.volume is None:
                    skipped.append((scan.reason, person))
                    self.skipped_accessions.append((scan.accession, scan.reason))
                else:
                    self.series.add(scan.accession, person, noted(scan.volume.series_number, scan.volume.remarks))
                yield scan
        self.skipped = dict(Counter(reason for reason, _ in skipped))
        self.skipped_persons = persons_by(skipped)
        self.remarks, self.remarks_persons = self.series.numbers, self.series.persons

    def plane(self, scan: Scan, index: int) -> tuple[dict[str, Tensor], str]:
        """One slice of a scan that was read, as a batch of one, and why it is not to be measured, if so.

        `image` float32 [1, 1, H, W], `hu` float32 [1, R, C] on the scanner's own grid, all of it, `mapping` [1, 2, 2]
        and `pixel_area_cm2` [1], as `datamodules.ct_slices` has them.
        """
        assert scan.volume is not None
        hu = np.clip(np.rint(scan.volume.voxels[index]), AIR, 3071).astype(np.int16)
        own = Plane(hu, np.zeros(hu.shape, np.uint8), scan.volume.spacing[1:])
        image, _ = own.resampled(self.grid.spacing_mm, self.grid.size)
        batch = {
            "image": torch.from_numpy(self.grid.windowed(image))[None, None],
            "hu": torch.from_numpy(hu).float()[None],
            "mapping": torch.from_numpy(own.mapping(self.grid.spacing_mm, self.grid.size)).float()[None],
            "pixel_area_cm2": torch.tensor([own.pixel_area_cm2]),
        }
        return batch, OTHER_VALUES if self._distance(hu) > self.farthest_hu else ""

    def _distance(self, hu: NDArray[np.int16]) -> float:
        """Mean distance of the percentiles of a plane from the usual ones, HU; 0 where none are declared.

        That is the Wasserstein distance of order 1 of both distributions, as far as five percentiles tell it.
        """
        if self.usual_hu is None:
            return 0.0
        low, high = self.grid.window
        inside = hu[(hu > low) & (hu < high)]
        found = np.percentile(inside, SHARES) if inside.size else np.full(len(SHARES), np.inf)
        return float(np.abs(found - np.array(self.usual_hu)).mean())

    def whose(self, split: str) -> NDArray[np.int64]:
        """Nobody: no study is an example to train or to test on."""
        return np.zeros(0, np.int64)

    def train_dataloader(self) -> list[Any]:
        """Nothing."""
        return []

    def val_dataloader(self) -> list[Any]:
        """Nothing."""
        return []

    def test_dataloader(self) -> list[Any]:
        """Nothing."""
        return []


def check_seconds(seconds: Sequence[float] | None, contrast: bool | None) -> None:
    """Raises ValueError for a range of seconds after contrast that is none, or of scans without contrast."""
    if seconds is None:
        return
    numbers = [each for each in seconds if isinstance(each, int | float)] if isinstance(seconds, Sequence) else []
    if len(numbers) != 2 or len(numbers) != len(seconds) or not 0 <= numbers[0] <= numbers[1]:
        raise ValueError("contrast_seconds: must be the shortest and the longest, as [55, 90]")
    if contrast is False:
        raise ValueError("contrast_seconds: is for scans with a contrast agent, and contrast is false; leave one out")
