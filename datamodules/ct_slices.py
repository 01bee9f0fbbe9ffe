"""CT slices at the third lumbar vertebra with labels of muscle and fat, from a site's DICOM, for Lightning.

A site is a folder: `cohort.csv` (see `datamodules.ct.cohort`), `dicom/<accession_id>/` with a CT series (or what
`datamodules.ct.image` says), and its labels (see `datamodules.ct.labels`), with the segments `skeletal_muscle`,
`subcutaneous_fat`, `visceral_fat` and `vertebra_L3`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import phantom
from datamodules.ct.cohort import PROBLEMS, UNREAD_NUMBER, OfTable, Study, described, unread
from datamodules.ct.examples import Cases, GridPlane, Slices
from datamodules.ct.grid import Grid
from datamodules.ct.image import image_path, read_ct
from datamodules.ct.labels import NOT_MARKED, SEGMENTS, UNFIT, LabelFiles
from datamodules.ct.planes import AT_LEVEL, TISSUES, Plane, Skip, packed, planes_at_level, unpacked
from datamodules.description import Edges
from datamodules.dicom import Decoder, Reason, Unreadable
from datamodules.dicom.remarks import Remark, SeriesRead, noted
from datamodules.image_files import files_at
from datamodules.intensities import thumbnails
from datamodules.splits import ByHash, persons_by
from datamodules.volume_cache import Arrays, VolumeCache

TWICE = "the table lists the accession twice"


class CTSlices(OfTable, lightning.LightningDataModule):
    """Labeled CT slices at L3.

    Training batch: `image` float32 [B, 1, H, W], HU of the window as -1 to 1; `label` int64 [B, H, W], 0 background,
    1 skeletal muscle, 2 subcutaneous, 3 visceral fat. H = W = `grid.size`, pixels of `grid.spacing_mm`.

    Validation and test batch, one example a person, the slice at the center of L3: `image` as above; on the scanner's
    own grid, padded to P = `grid.plane`, `hu` float32 [B, P, P] and `label` int64 [B, P, P]; `mapping` [B, 2, 2] from
    it to the image's grid (rows, columns; network pixel = scale * pixel + offset); `pixel_area_cm2` [B];
    `reference_area_cm2` [B, 3] of the labels; `sex` [B], 0 female and 1 male; `height_m`, `weight_kg`, `age`,
    `followup_days`, `event` (1 died, 0 censored) [B], NaN where unknown; `index` [B], the row in the site's own table,
    which never leaves it. Every batch holds `person` int64 [B], whose example it is, as the site counts.

    Persons are split, never slices. Training takes all studies of its persons, the other splits the first that can be
    read.

    Args:
        root: the site's folder.
        columns: the site's own name for a column of the table or a segment that it names differently (declared name:
            own name); for labels in one NIfTI the segment's number. Without numbers they are 1 to 4 in the order above.
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: False puts every person into the test split.
        grid: the pixels that the network sees and that are measured on.
        slices_per_person, slice_step_mm: slices to train on, around the center of L3.
        split: which persons are trained, validated and tested on.
        batch_size: examples in a batch.
        augment: strength of flips, shifts, turns, scaling, contrast and noise in training; 0 is none, 1 the usual.
        workers: processes that load batches; 0 loads in this one.
        demo: whether this is the SYNTHETIC demo cohort, which is generated where it is absent.
        demo_patients: how many patients to generate.
        cache: the site's cache of decoded planes: arguments of `datamodules.volume_cache.VolumeCache`; None for none.
            A study that cannot be used is not kept there: it is looked at anew.

    Attributes after `setup`: `skipped` and `remarks` (number of studies by reason and by remark), `skipped_accessions`
    (accession, reason), `accessions` (by row) and `series` (which were read) for the site's own eyes, and `synthetic`.

    Raises (by `setup`): FileNotFoundError without a cohort, ValueError where nothing is left to read.
    """

    WARNINGS = frozenset(NOT_MARKED.values())
    REMARKS = WARNINGS | {each.value for each in Remark} | {UNREAD_NUMBER}
    REASONS = frozenset((*(each.value for each in Reason), *PROBLEMS, *AT_LEVEL, TWICE, *UNFIT))
    no_bundle = "the slice at its level is chosen by labels of vertebrae, as no transform of MONAI does"

    def __init__(
        self,
        root: str,
        columns: Mapping[str, str] | None = None,
        trains: bool = True,
        *,
        grid: Grid | None = None,
        slices_per_person: int = 5,
        slice_step_mm: float = 5.0,
        split: ByHash | None = None,
        batch_size: int = 2,
        augment: float = 1.0,
        workers: int = 0,
        demo: bool = False,
        demo_patients: int = 24,
        cache: Mapping[str, Any] | None = None,
        opt_out: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.opt_out = frozenset(opt_out)
        self.root, self.columns, self.trains, self.synthetic = Path(root), dict(columns or {}), trains, demo
        self.grid, self.split = grid or Grid(), split or ByHash()
        self.slices_per_person, self.slice_step_mm = slices_per_person, slice_step_mm
        self.batch_size, self.augment, self.workers, self.demo_patients = batch_size, augment, workers, demo_patients
        self.cache = VolumeCache(**cache) if cache else None
        self.labels = LabelFiles(self.root, self.columns)
        self.skipped, self.skipped_persons = dict[str, int](), dict[str, int]()
        self.skipped_accessions: list[tuple[str, str]] = []
        self.series, self.remarks, self.remarks_persons = SeriesRead(), dict[str, int](), dict[str, int]()
        self.accessions: list[str] = []
        self._splits: dict[str, str] = {}  # by person
        self._shown = dict[int, NDArray[np.float32]]()  # by row, the plane at L3 on the network's grid, 0 to 1
        self._sets: dict[str, Slices | Cases] = {}

    def prepare_data(self) -> None:
        """Generate the demo cohort, if this is the demo and it is absent."""
        if self.synthetic:
            phantom.ensure(self.root, patients=self.demo_patients)

    def declared_sizes(self) -> dict[str, int]:
        """`image.channels`; `target.classes`: the tissues and what is around them."""
        return {"image.channels": 1, "target.classes": 1 + len(TISSUES)}

    def setup(self, stage: str | None = None) -> None:
        """Read all studies, once; see the class for what it raises."""
        if self._sets:
            return
        self.prepare_data()
        studies = self._studies()
        self.accessions = [study.accession for study in studies]
        persons = {study.person for study in studies}
        self._splits = splits = self.split.split(persons) if self.trains else dict.fromkeys(persons, "test")
        code = {study.person: row for row, study in enumerate(studies)}
        slices, whose, used = list[GridPlane](), list[int](), list[Study]()
        cases: dict[str, list[tuple[int, Study, Plane]]] = {"validate": [], "test": []}
        measured: set[str] = set()
        with Decoder() as decoder:
            for row, study in enumerate(studies):
                split = splits[study.person]
                if study.person in measured:
                    continue
                planes = self._planes(study, row, code[study.person], decoder)
                if planes:
                    used.append(study)
                    self._shown[row] = self.grid.shown(planes[0].resampled(self.grid.spacing_mm, self.grid.size)[0])
                if planes and split == "train":
                    slices += [plane.resampled(self.grid.spacing_mm, self.grid.size) for plane in planes]
                    whose += [code[study.person]] * len(planes)
                elif planes:
                    measured.add(study.person)
                    cases[split].append((row, study, planes[0]))
        self.skipped = dict(Counter(reason for _, reason in self.skipped_accessions))
        of = {study.accession: code[study.person] for study in studies}
        self.skipped_persons = persons_by((reason, of[accession]) for accession, reason in self.skipped_accessions)
        rows, of_persons = unread(used, self.labels.not_marked())
        self.remarks, self.remarks_persons = rows | self.series.numbers, of_persons | self.series.persons
        self._refuse_empty(len(slices), len(cases["validate"]) + len(cases["test"]))
        measured_on = {name: Cases(chosen, self.grid) for name, chosen in cases.items()}
        self._sets = {"train": Slices(slices, whose, self.grid, self.augment), **measured_on}

    def _planes(self, study: Study, row: int, person: int, decoder: Decoder) -> list[Plane]:
        """The study's planes, that of L3 first; an empty list where it is skipped, its reason written down."""
        try:
            if study.problem:
                raise Skip(study.problem)
            if study.accession in self.accessions[:row]:
                raise Skip(TWICE)
            found = self._cached(study.accession, decoder) if self.cache else self._read(study.accession, decoder)
        except (Skip, Unreadable) as why:
            self.skipped_accessions.append((study.accession, str(why)))
            return []
        self.series.add(study.accession, person, found["series"])
        self.labels.note(itertools.compress(SEGMENTS, found["marked"]))
        return unpacked(found)

    def _cached(self, accession: str, decoder: Decoder) -> Arrays:
        """One study from the cache, or read into it. Raises Skip or Unreadable."""
        assert self.cache is not None
        files = [*files_at(image_path(self.root, accession)), *self.labels.files(accession)]
        settings = {"planes": self.slices_per_person, "step_mm": self.slice_step_mm, "segments": self.labels.own}
        return self.cache.arrays(files, settings, lambda: self._read(accession, decoder))

    def _read(self, accession: str, decoder: Decoder) -> Arrays:
        """Read one study: its planes as `packed`, `series` as `remarks.noted`, and `marked`, whether its labels mark
        each of SEGMENTS. Raises Skip or Unreadable."""
        fits = partial(self.labels.fit, accession)
        volume = read_ct(image_path(self.root, accession), decoder, self.labels.path(accession), fits)
        masks = self.labels.masks(accession, volume)
        planes = planes_at_level(
            volume.voxels, volume.spacing, masks, count=self.slices_per_person, step_mm=self.slice_step_mm
        )
        marked = np.array([masks[name].any() for name in SEGMENTS])
        return packed(planes) | {"series": noted(volume.series_number, volume.remarks), "marked": marked}

    def _refuse_empty(self, slices: int, cases: int) -> None:
        if slices or (cases and not self.trains):
            return
        doubts = dict.fromkeys(self.labels.not_marked(), len(self._studies()))
        counted = [f"{number} x {words}" for words, number in (self.skipped | doubts).items()]
        reasons = "; ".join(counted) or "all persons are kept for testing"
        raise ValueError(f"{self.root} has no study to {'train' if self.trains else 'test'} on: {reasons}")

    def describe(self, edges: Edges, minimum_cell: int = 1) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The table by column, and which studies could be read with their labels: see `datamodules.description`."""
        self.setup()
        unusable, studies = {accession for accession, _ in self.skipped_accessions}, self._studies()
        parts = ["" if study.accession in unusable else self._splits[study.person] for study in studies]
        return described(studies, np.array(parts), self._shown, edges, minimum_cell=minimum_cell)

    def thumbnails(self, number: int) -> list[tuple[str, str, NDArray[np.uint8] | None]]:
        """Planes at L3 of a cohort that is read, for the site's own eyes: see `datamodules.intensities.thumbnails`."""
        planes = [self._shown.get(row) for row in range(len(self.accessions))]
        return thumbnails(planes, self.accessions, self.skipped_accessions, number)

    def fingerprint(self) -> dict[str, NDArray[np.uint8]]:
        """A digest of the table and of the planes that are used; no image is opened for it."""
        self.setup()
        total = hashlib.sha256(repr(self._studies()).encode())
        cases = [(plane.hu, plane.label) for name in ("validate", "test") for *_, plane in self._sets[name].cases]
        for array in itertools.chain.from_iterable([*self._sets["train"].planes, *cases]):
            total.update(np.ascontiguousarray(array))
        return {"data": np.frombuffer(total.digest(), np.uint8)}

    def whose(self, split: str) -> NDArray[np.int64]:
        """A code of the person of each example of a split, int64 [n]."""
        return np.array(self._sets[split].person, np.int64)

    def train_dataloader(self) -> Any:
        """Shuffled by torch's global generator; an empty list at a site that does not train."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Any:
        """Persons for validation; an empty list where there are none."""
        return self._loader("validate")

    def test_dataloader(self) -> Any:
        """Persons for the final test; an empty list where there are none."""
        return self._loader("test")

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader[dict[str, Tensor]] | list[Any]:
        data: Any = self._sets[split]
        return (
            DataLoader(data, batch_size=self.batch_size, shuffle=shuffle, num_workers=self.workers) if len(data) else []
        )
