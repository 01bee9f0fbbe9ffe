"""Compressed forms that pydicom's own plug-ins do not cover: lossy JPEG of 12 bits, and HTJ2K."""

import base64
import importlib.util
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, HTJ2KLosslessRPCL, MRImageStorage

from datamodules.dicom import Reason, Unreadable, read_series
from tests.datamodules.ct_files import SPACING, body, save, slices_of

# The first two planes of `body`, unsigned with 1024 added, as OpenJPH 0.26 compresses them.
HTJ2K_STREAMS = (
    "/0//UQApQAAAAAAIAAAACgAAAAAAAAAAAAAACAAAAAoAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAKcAAf+TwAAmufwFB3QAAMAAEoCHAYd0AMAAE8AAEsAAEoCw9+QCi3QAzgIHdACeAod0AMAAFZAABUQAAVDOMeWcJ8F44TihlAAAvIf9AIBUAM5xz7cAYZQAwAAtqAAFqQAAreekEADVUYbkwwbA6KOtA4DPBDu2WyDA+JkA57Ak7cuesOHX/QACEA9liEBqOgDPqd3JBBgFXEECt3kA/9k=",
    "/0//UQApQAAAAAAIAAAACgAAAAAAAAAAAAAACAAAAAoAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAKYAAf+TwAAmsfwFB3QAAMAAEoCJAYd0AMAAE8AAEsAAEoDAR+UCi3QA1AIHdACwAod0AMAAFZAABUQAAVDQcSWdKsl44TihlAAAzLf9AIBUANB507cAYZQAwAAtmAAFqQAArenEEADZUYfnz479t3X8ABBAj/mbIMD4mwDp0GRNDJ+z59/9AAIQD2WIQGo6ANOx4dUEGAVcQQK3eQD/2Q==",
)  # fmt: skip
needs_openjpeg = pytest.mark.skipif(
    importlib.util.find_spec("openjpeg") is None, reason="HTJ2K is decoded where the extra `htj2k` is installed"
)


def reason_of(folder, **options):
    with pytest.raises(Unreadable) as caught:
        read_series(folder, **options)
    return caught.value.reason


def compressed(streams, syntax):
    images = slices_of(body(len(streams)))
    for image, stream in zip(images, streams, strict=True):
        image.PixelData = encapsulate([stream])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = syntax
    return images


def extended(**changes):
    """A slice of pydicom's file of lossy JPEG with 12 bits, made an axial MR."""
    image = dcmread(get_testdata_file("JPEG-lossy.dcm"))
    image.Modality, image.SOPClassUID = "MR", MRImageStorage
    image.file_meta.MediaStorageSOPClassUID = MRImageStorage
    image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    image.PixelSpacing, image.SliceThickness, image.ImageType = [1, 1], 3, ["ORIGINAL", "PRIMARY"]
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def test_lossy_jpeg_of_twelve_bits(tmp_path):
    volume = read_series(save(tmp_path, [extended()]), modality="MR")
    assert volume.voxels.shape == (1, 1024, 256)
    # Two pixels as pydicom's tests have them, the greatest and the sum as libjpeg-turbo decodes the file.
    assert (volume.voxels[0, 420, 140], volume.voxels[0, 230, 120]) == (244, 95)
    assert (volume.voxels.max(), volume.voxels.sum(dtype=np.int64)) == (264, 3767007)


def test_the_same_form_of_eight_bits(tmp_path):
    image = extended()
    gray = np.random.default_rng(0).integers(0, 256, (image.Rows, image.Columns), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(gray).save(out, "JPEG", quality=90)
    image.PixelData = encapsulate([out.getvalue()])
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    volume = read_series(save(tmp_path, [image]), modality="MR")
    assert np.abs(volume.voxels[0] - np.asarray(Image.open(out)).astype(int)).max() <= 1


def test_a_damaged_stream_of_twelve_bits_is_a_reason(tmp_path):
    image = extended()
    image.PixelData = image.PixelData[: len(image.PixelData) // 2]
    assert reason_of(save(tmp_path, [image]), modality="MR") in (
        Reason.UNDECODABLE,
        Reason.CORRUPT,
        Reason.DAMAGED_BESIDE,
    )


def test_more_bits_than_the_form_has_are_refused(tmp_path):
    image = extended(BitsStored=16, HighBit=15)
    assert reason_of(save(tmp_path, [image]), modality="MR") is Reason.UNSUPPORTED_COMPRESSION


@needs_openjpeg
@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_htj2k_is_read_to_the_bit(tmp_path, syntax):
    streams = [base64.b64decode(stream) for stream in HTJ2K_STREAMS]
    volume = read_series(save(tmp_path, compressed(streams, syntax)))
    np.testing.assert_array_equal(volume.voxels, body(2))
    assert volume.spacing == pytest.approx(SPACING)


@needs_openjpeg
def test_a_damaged_htj2k_stream_is_a_reason(tmp_path):
    streams = [base64.b64decode(stream) for stream in HTJ2K_STREAMS]
    folder = save(tmp_path, compressed([streams[0], streams[1][:90]], HTJ2KLossless))
    assert reason_of(folder) is Reason.UNDECODABLE


def test_htj2k_is_refused_by_name_where_its_decoder_is_not_installed(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import HTJ2KLosslessDecoder

    monkeypatch.setattr(HTJ2KLosslessDecoder, "_available", {})
    streams = [base64.b64decode(stream) for stream in HTJ2K_STREAMS]
    assert reason_of(save(tmp_path, compressed(streams, HTJ2KLossless))) is Reason.UNSUPPORTED_COMPRESSION
