"""Images from a PACS over DICOMweb: studies are found with QIDO-RS and fetched with WADO-RS."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from datamodules.sources.cache import Save
from datamodules.sources.database import one_line
from datamodules.sources.pacs import PACS, QUERY, Series, text
from datamodules.sources.secret_file import read_secret

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class DICOMweb(PACS):
    """An image source: a PACS with DICOMweb.

    Args:
        url: where its services are, such as https://pacs.hospital.org/dicom-web.
        cache, cache_gb, modality, filters, root: as those of `pacs.PACS`.
        user: name for basic authentication; without one the secret is a bearer token.
        secret_file: file of mode 600 with the password or the token; None where the PACS asks for none.
        ca_file: certificate of the authority that signed the PACS's; None for the public authorities.
        timeout: seconds that the PACS may keep silent.
    """

    def __init__(
        self,
        url: str,
        *,
        cache: str,
        cache_gb: float = 100,
        modality: str = "CT",
        filters: Mapping[str, str | int] | None = None,
        user: str | None = None,
        secret_file: str | None = None,
        ca_file: str | None = None,
        timeout: float = 60,
        root: str = ".",
    ) -> None:
        super().__init__(url, cache, cache_gb, modality, filters, root)
        where = urlsplit(url)
        if where.scheme not in ("http", "https") or where.username or where.password:
            raise ValueError("`url` begins with https:// and holds no password (that is `secret_file`'s)")
        if secret_file and where.scheme == "http" and where.hostname not in LOOPBACK:
            raise ValueError(f"{where.hostname}: a password or token is sent over https alone")
        self.url, self.timeout = url, timeout
        self._session = requests.Session()
        # The environment's proxies, netrc and REQUESTS_CA_BUNDLE (which would win over `ca_file`) are not the PACS's.
        self._session.trust_env = False
        if secret_file:
            self._session.auth = _Authorization(user, self.root / secret_file)
        if ca_file:
            self._session.verify = str(self.root / ca_file)

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        client = DICOMwebClient(self.url, session=self._session, timeout=self.timeout)
        client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=500)
        try:
            yield client
        except requests.RequestException as error:
            raise ConnectionError(f"the PACS at {self.url} does not answer as it should: {one_line(error)}") from error

    def _studies(self, query: Mapping[str, str]) -> Iterable[Mapping[str, str]]:
        with self._client() as client:
            given = {name: value for name, value in query.items() if value}
            search = partial(client.search_for_studies, search_filters=given, fields=list(QUERY))
            found = _all_pages(search, "StudyInstanceUID")
        return [{name: text(each.get(name)) for name in QUERY} for each in found]

    def _series(self, study: str) -> Iterable[Series]:
        number = "NumberOfSeriesRelatedInstances"
        with self._client() as client:
            search = partial(client.search_for_series, study, fields=[number])
            for found in _all_pages(search, "SeriesInstanceUID"):
                if text(found.get("Modality")) == self.modality:
                    uid = str(found.SeriesInstanceUID)
                    listed = _all_pages(partial(client.search_for_instances, study, uid), "SOPInstanceUID")
                    classes = {str(each.SOPInstanceUID): text(each.get("SOPClassUID")) for each in listed}
                    yield Series(study, uid, classes, text(found.get(number)))

    def _retrieve(self, series: Series, store: Save) -> None:
        with self._client() as client:
            as_stored = (("application/dicom", "*"),)
            for image in client.iter_series(series.study, series.series, media_types=as_stored):
                content = BytesIO()
                image.save_as(content, enforce_file_format=True)
                store(str(image.SOPInstanceUID), content.getvalue())


def _all_pages(search: Callable[..., Iterable[dict[str, Any]]], key: str) -> list[Dataset]:
    """The answers of all pages of a search, each once by its UID.

    Ends with the first page that brings nothing new: some servers ignore the offset for some queries (Orthanc 1.10 for
    ModalitiesInStudy) and would send the same page forever.
    """
    found: dict[str, Dataset] = {}
    while True:
        page = {str(each[key].value): each for each in map(Dataset.from_json, search(offset=len(found)))}
        if not page.keys() - found.keys():
            return list(found.values())
        found |= page


class _Authorization(requests.auth.AuthBase):
    """Basic or bearer, from a file that is read anew for each request: a token may be replaced while a study runs."""

    def __init__(self, user: str | None, secret: Path) -> None:
        self.user, self.secret = user, secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        secret = read_secret(self.secret)
        if self.user is not None:
            return requests.auth.HTTPBasicAuth(self.user, secret)(request)
        request.headers["Authorization"] = f"Bearer {secret}"
        return request
