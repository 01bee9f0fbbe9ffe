"""Images from a real PACS (Orthanc) over TLS, by DICOMweb and by DICOM's own protocol."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from datamodules.dicom.series import read_series
from datamodules.sources.dicomweb import DICOMweb
from datamodules.sources.dimse import DIMSE, Move
from tests.datamodules.ct_files import body
from tests.datamodules.sources.test_pacs import SLICES, study
from tests.services import orthanc, tls_proxy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pacs() -> Iterator[orthanc.Orthanc]:
    """A PACS whose DICOM port speaks TLS alone, with one study, A-17."""
    with orthanc.running(tls=True) as server:
        for image in study("A-17", "P1", "1.2.1"):
            server.store(image)
        yield server


@pytest.fixture(scope="module")
def https(pacs: orthanc.Orthanc) -> Iterator[int]:
    """The port of the proxy before its DICOMweb."""
    assert pacs.certificate
    with tls_proxy.running(pacs.certificate, pacs.http) as port:
        yield port


@pytest.fixture(params=["dicomweb", "get"])
def source(
    request: pytest.FixtureRequest, pacs: orthanc.Orthanc, https: int, tmp_path: Path
) -> Callable[..., DICOMweb | DIMSE]:
    """Makes sources of each kind at the PACS, for its certificate's name or another."""
    secret = tmp_path / "secret"
    secret.write_text(orthanc.PASSWORD)
    secret.chmod(0o600)
    (tmp_path / "ca.crt").write_bytes(pacs.certificate.read_bytes())
    common = {"cache": "cache", "root": str(tmp_path)}

    def of(host: str = "localhost", ca_file: str | None = "ca.crt") -> DICOMweb | DIMSE:
        if request.param == "dicomweb":
            return DICOMweb(
                f"https://{host}:{https}/dicom-web", user=orthanc.USER, secret_file="secret", ca_file=ca_file, **common
            )
        return DIMSE(host, pacs.dicom, orthanc.AET, tls=True, ca_file=ca_file, **common)

    return of


def test_a_study_is_fetched_over_tls(source, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")  # it would win over the `ca_file` of a session
    volume = read_series(source().open("A-17"))
    assert np.array_equal(np.sort(volume.voxels, axis=None), np.sort(body(SLICES), axis=None))


@pytest.mark.parametrize("wrong", [{"ca_file": None}, {"host": "127.0.0.1"}], ids=["unknown authority", "other name"])
def test_a_pacs_that_does_not_prove_who_it_is_gets_no_question(source, wrong, tmp_path):
    with pytest.raises(ConnectionError, match="certificate"):
        source(**wrong).open("A-17")
    assert not list(tmp_path.glob("cache/*/files"))


def test_images_never_arrive_in_the_clear_where_tls_is_asked_for(pacs, tmp_path):
    make = partial(DIMSE, "localhost", pacs.dicom, orthanc.AET, cache="cache", root=str(tmp_path))
    with pytest.raises(ValueError, match="leave it out"):
        make(tls=True, move=Move())
