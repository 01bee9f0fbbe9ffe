"""A private Orthanc with its DICOMweb plug-in, on loopback ports, in a folder of its own."""

import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset

from tests.services.certificates import certificate
from tests.services.installed import free_port, program, wait_until

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
AET, OWN_AET = "ORTHANC", "FLIP"
USER, PASSWORD = "engine", "not-a-secret"


@dataclass(frozen=True)
class Orthanc:
    """A running server: its folder, its ports, the port of ours that it sends to, and its certificate, if any."""

    folder: Path
    http: int
    dicom: int
    receiver: int
    certificate: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def request(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        """A call of Orthanc's own interface."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, asked.full_url, USER, PASSWORD)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(manager)
        )
        with opener.open(asked, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def store(self, image: Dataset) -> None:
        """Put an image into the store."""
        content = BytesIO()
        image.save_as(content, enforce_file_format=True)
        self.request("/instances", content.getvalue())

    def lose(self, image: Dataset) -> None:
        """Remove the file of an image, as a damaged disk does: the server still lists it."""
        files = [path for path in (self.folder / "store").glob("*/*/*") if path.is_file()]
        lost = [path for path in files if str(image.SOPInstanceUID).encode() in path.read_bytes()]
        assert lost
        for path in lost:
            path.unlink()

    def is_up(self) -> bool:
        try:
            return bool(self.request("/system"))
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running(*, tls: bool = False, **more: object) -> Iterator[Orthanc]:
    """Start a server with an empty store and further settings, and remove it afterwards.

    With `tls` its DICOM port speaks TLS, under a certificate for `localhost` alone. Its web port does not: Debian's
    Orthanc 1.10 crashes at the first HTTPS request, and hospitals put a proxy before it.
    """
    binary = program("Orthanc")
    with tempfile.TemporaryDirectory(prefix="orthanc-") as temporary:
        folder = Path(temporary)
        server = Orthanc(folder, free_port(), free_port(), free_port(), certificate(folder) if tls else None)
        settings = {
            "StorageDirectory": str(folder / "store"), "IndexDirectory": str(folder / "store"), "Plugins": [PLUGIN],
            "HttpPort": server.http, "HttpBindAddresses": ["127.0.0.1"], "RemoteAccessAllowed": True,
            "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
            "DicomPort": server.dicom, "DicomAet": AET, "DicomCheckCalledAet": True,
            "DicomModalities": {"flip": {"AET": OWN_AET, "Host": "127.0.0.1", "Port": server.receiver,
                                         "AllowGet": True, "AllowMove": True, "AllowFind": True}},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **(_tls(server.certificate) if server.certificate else {}),
            **more,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([binary, folder / "orthanc.json"], cwd=folder, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or server.is_up(), "starting Orthanc")
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            yield server
        finally:
            process.kill()  # its store is thrown away; an orderly end takes seconds
            process.wait(60)


def _tls(certificate: Path) -> dict[str, object]:
    return {
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(certificate),
        "DicomTlsPrivateKey": str(certificate.with_suffix(".key")),
        "DicomTlsTrustedCertificates": str(certificate), "DicomTlsRemoteCertificateRequired": False,
    }  # fmt: skip
