"""What the two ways to a PACS (DICOMweb, DIMSE) share: which study is meant, and whether all of it arrived."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datamodules.sources.cache import Save, StudyCache

UID = re.compile(r"[0-9.]{1,64}")
QUERY = {"AccessionNumber": "", "PatientID": "", "StudyInstanceUID": ""}


@dataclass(frozen=True)
class Series:
    """A series that a study has: its SOP instances with their class, and how many the PACS says there are."""

    study: str
    series: str
    instances: Mapping[str, str]
    number: str


class PACS:
    """An image source: studies by accession number, fetched into a cache when they are first opened.

    A subclass queries (`_studies`, `_series`) and retrieves (`_retrieve`).

    Args:
        address: where the PACS is: accession numbers are unique within one alone.
        cache: folder of the cache.
        cache_gb: how much it may hold, 10^9 bytes.
        modality: which series of a study are fetched.
        filters: further attributes of studies for `accessions`, such as {StudyDate: 20200101-20201231}.
        root: folder that relative paths are below.
    """

    def __init__(
        self,
        address: str,
        cache: str,
        cache_gb: float,
        modality: str,
        filters: Mapping[str, str | int] | None,
        root: str,
    ) -> None:
        self.address, self.root, self.modality = address, Path(root), modality
        self.filters = {name: str(value) for name, value in (filters or {}).items()}
        self.cache = StudyCache(self.root / cache, cache_gb)

    def accessions(self) -> pd.DataFrame:
        """`person` (PatientID) and `accession` of the studies with the modality that meet `filters`."""
        found = self._studies({**QUERY, "ModalitiesInStudy": self.modality, **self.filters})
        rows = {(each["PatientID"], each["AccessionNumber"]) for each in found if each["AccessionNumber"]}
        return pd.DataFrame(sorted(rows), columns=["person", "accession"])

    def open(self, accession: str) -> Path:
        """The folder of a study's DICOM files, one series beside the other.

        Raises FileNotFoundError for a study that the PACS does not have, or not with the modality, ConnectionError
        when it cannot be reached, ValueError when it did not send all that it has, or has it of several patients.
        """
        if not accession or len(accession) > 64 or re.search(r"[*?\\\x00-\x1f]", accession):
            raise ValueError("an accession number is up to 64 characters without *, ? and \\")
        return self.cache.get(f"{self.address} {self.modality}/{accession}", lambda save: self._fetch(accession, save))

    def _fetch(self, accession: str, save: Save) -> None:
        found = self._studies({**QUERY, "AccessionNumber": accession})
        studies = [each for each in found if each["AccessionNumber"] == accession]
        if len({each["PatientID"] for each in studies}) > 1:
            raise ValueError(f"the PACS has accession {accession} of more than one PatientID")
        uids = sorted({each["StudyInstanceUID"] for each in studies})
        wanted = [series for uid in uids for series in self._series(uid)]
        if not any(series.instances for series in wanted):
            raise FileNotFoundError(f"the PACS has no {self.modality} images of accession {accession}")
        if short := [each for each in wanted if each.number.isdigit() and int(each.number) > len(each.instances)]:
            raise ValueError(f"the PACS lists {len(short[0].instances)} of the {short[0].number} images of a series")
        arrived: set[str] = set()
        expected = {uid for series in wanted for uid in series.instances}

        def store(uid: str, content: bytes) -> None:
            if uid in expected and UID.fullmatch(uid) and uid not in arrived:  # anything else was not asked for
                save(f"{uid}.dcm", content)
                arrived.add(uid)

        for series in wanted:
            self._retrieve(series, store)
        if missing := len(expected - arrived):
            raise ValueError(f"{missing} of the {len(expected)} images of accession {accession} did not arrive")

    def _studies(self, query: Mapping[str, str]) -> Iterable[Mapping[str, str]]:
        """The studies that match, with the attributes of `QUERY` as text."""
        raise NotImplementedError

    def _series(self, study: str) -> Iterable[Series]:
        """The series of a study with the modality."""
        raise NotImplementedError

    def _retrieve(self, series: Series, store: Save) -> None:
        """Store the images of a series by SOP instance UID."""
        raise NotImplementedError


def text(value: Any) -> str:
    """An attribute of an answer as text; nothing where it has no value."""
    return "" if value is None else str(value).strip()
