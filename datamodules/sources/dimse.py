"""Images from a PACS over DICOM's own protocol: found with C-FIND, fetched with C-GET or C-MOVE."""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made by the module when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from datamodules.sources.cache import Save
from datamodules.sources.database import one_line
from datamodules.sources.pacs import PACS, QUERY, Series, text

PENDING = (0xFF00, 0xFF01)
SOME_FAILED = 0xB000


class Move:
    """Retrieval by C-MOVE: the PACS connects to us, and sends the images in the clear.

    Args:
        port: where images arrive; the PACS knows it, with our address, under our title.
        host: address to listen at.
    """

    def __init__(self, port: int = 11112, host: str = "0.0.0.0") -> None:
        self.listens = (host, port)


class DIMSE(PACS):
    """An image source: a PACS with DICOM's query and retrieve services.

    Args:
        host: name or address of the PACS.
        port: its DICOM port.
        aet: its application entity title.
        cache, cache_gb, modality, filters, root: as those of `pacs.PACS`.
        own_aet: our title, under which the PACS knows us.
        move: None to get images over the connection that asks (C-GET). They move in the clear, so `move` and `tls`
            exclude each other.
        tls: False for a PACS that speaks no TLS, on a network that nobody else can read.
        ca_file: certificate of the authority that signed the PACS's; None for the public authorities.
        timeout: seconds that the PACS may keep silent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        aet: str,
        *,
        cache: str,
        cache_gb: float = 100,
        modality: str = "CT",
        filters: Mapping[str, str | int] | None = None,
        own_aet: str = "FLIP",
        move: Move | None = None,
        tls: bool = True,
        ca_file: str | None = None,
        timeout: float = 60,
        root: str = ".",
    ) -> None:
        super().__init__(f"{aet} {host}:{port}", cache, cache_gb, modality, filters, root)
        if tls and move is not None:
            raise ValueError(
                "`move` brings the images to us in the clear: leave it out, or set `tls: false` where nobody else can "
                "read the network"
            )
        self.host, self.port, self.aet, self.own_aet, self.move = host, port, aet, own_aet, move
        self.tls, self.ca_file, self.timeout = tls, self.root / ca_file if ca_file else None, timeout

    def _entity(self) -> AE:
        entity = AE(self.own_aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = self.timeout
        return entity

    def _trusted(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (FileNotFoundError, ssl.SSLError) as error:
            raise ValueError(f"`ca_file`: {self.ca_file} holds no certificate in PEM ({one_line(error)})") from error

    @contextmanager
    def _associated(self, entity: AE, **more: Any) -> Iterator[Association]:
        secured = (self._trusted(), self.host) if self.tls else None
        connected = entity.associate(self.host, self.port, ae_title=self.aet, tls_args=secured, **more)
        if not connected.is_established:
            proof = " and that `ca_file` vouches for its certificate, which is for that host" if self.tls else ""
            raise ConnectionError(
                f"the PACS {self.aet} at {self.host}, port {self.port}, takes no connection from {self.own_aet}: check "
                f"that it is reachable and knows us by that name{proof}"
            )
        try:
            yield connected
        finally:
            connected.release()

    def _found(self, level: str, query: Mapping[str, str]) -> list[Dataset]:
        entity = self._entity()
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        asked = _query(level, query)
        with self._associated(entity) as connected:
            answers = list(connected.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind))
        _check(answers[-1][0] if answers else Dataset(), "C-FIND")
        return [found for status, found in answers if status.Status in PENDING and found is not None]

    def _studies(self, query: Mapping[str, str]) -> Iterable[Mapping[str, str]]:
        return [{name: text(found.get(name)) for name in QUERY} for found in self._found("STUDY", query)]

    def _series(self, study: str) -> Iterable[Series]:
        number = "NumberOfSeriesRelatedInstances"
        query = {"StudyInstanceUID": study, "SeriesInstanceUID": "", "Modality": self.modality, number: ""}
        for found in self._found("SERIES", query):
            if text(found.get("Modality")) == self.modality:
                uid = str(found.SeriesInstanceUID)
                asked = {"StudyInstanceUID": study, "SeriesInstanceUID": uid, "SOPInstanceUID": "", "SOPClassUID": ""}
                images = self._found("IMAGE", asked)
                classes = {str(each.SOPInstanceUID): text(each.get("SOPClassUID")) for each in images}
                yield Series(study, uid, classes, text(found.get(number)))

    def _retrieve(self, series: Series, store: Save) -> None:
        query = _query("SERIES", {"StudyInstanceUID": series.study, "SeriesInstanceUID": series.series})
        classes = sorted(set(series.instances.values()) - {""})
        problems: list[Exception] = []
        handlers = [(evt.EVT_C_STORE, _receive, [store, problems])]
        entity = self._entity()
        if self.move is None:
            answers = self._get(entity, classes, handlers, query)
        else:
            answers = self._moved(self.move, entity, classes, handlers, query)
        if problems:
            raise problems[0]
        last = answers[-1][0] if answers else Dataset()
        if last.get("Status") != SOME_FAILED:  # the caller counts, and says how many
            _check(last, "C-GET" if self.move is None else "C-MOVE")

    def _get(self, entity: AE, classes: list[str], handlers: list[Any], query: Dataset) -> list[Any]:
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
        for each in classes:
            entity.add_requested_context(each, ALL_TRANSFER_SYNTAXES)
        roles = [build_role(each, scp_role=True) for each in classes]
        with self._associated(entity, ext_neg=roles, evt_handlers=handlers) as connected:
            return list(connected.send_c_get(query, StudyRootQueryRetrieveInformationModelGet))

    def _moved(self, move: Move, entity: AE, classes: list[str], handlers: list[Any], query: Dataset) -> list[Any]:
        listener = self._entity()
        listener.require_called_aet = True
        listener.require_calling_aet = [self.aet]
        for each in classes:
            listener.add_supported_context(each, ALL_TRANSFER_SYNTAXES)
        server = listener.start_server(move.listens, block=False, evt_handlers=handlers)
        try:
            entity.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
            with self._associated(entity) as connected:
                return list(connected.send_c_move(query, self.own_aet, StudyRootQueryRetrieveInformationModelMove))
        finally:
            server.shutdown()


def _query(level: str, attributes: Mapping[str, str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for name, value in attributes.items():
        setattr(query, name, value)
    return query


def _receive(event: evt.Event, store: Save, problems: list[Exception]) -> int:
    """Store an image that arrives; what goes wrong with it is raised where the study was asked for."""
    try:
        store(str(event.request.AffectedSOPInstanceUID), event.encoded_dataset())
    except Exception as error:  # of the cache or the disk; the thread that receives cannot raise it
        problems.append(error)
        return 0xA700  # out of resources
    return 0x0000


def _check(status: Dataset, what: str) -> None:
    """Raises ConnectionError unless a request ended well."""
    code = status.get("Status")
    if code != 0x0000:
        said = "no answer" if code is None else f"status 0x{code:04X} {text(status.get('ErrorComment'))}".strip()
        raise ConnectionError(f"the PACS ended {what} with {said}")
