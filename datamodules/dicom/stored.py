"""The pixels of a slice as they lie in its file, and which decoder reads their form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGExtended12Bit, RLELossless

from datamodules.dicom.files import PixelValue, is_compressed, malformed_is
from datamodules.dicom.values import Values
from datamodules.dicom.volume import Reason, Unreadable

GDCM = "gdcm"
OPENJPEG = "pylibjpeg"  # pydicom's name for OpenJPEG, the decoder of HTJ2K with a free license (MIT and BSD)
ISOLATED = (GDCM, OPENJPEG)  # written in C or C++: a damaged stream may end the process
HTJ2K_FORMS = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Stored:
    """The pixels of an image of one frame, as they lie in a file: what decodes them without parsing the file again."""

    path: Path
    value: PixelValue
    options: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, data: Values, value: PixelValue) -> Stored | None:
        """From the header; None where it does not say enough, which parsing the whole file then tells."""
        names = {"rows": "Rows", "columns": "Columns", "bits_allocated": "BitsAllocated"}
        names |= {"bits_stored": "BitsStored", "pixel_representation": "PixelRepresentation"}
        numbers = {option: data.get(name) for option, name in names.items()}
        if not low_bits(data):
            return None
        photometric = str(data.get("PhotometricInterpretation", "")).strip()
        if photometric not in GRAYSCALE or not all(isinstance(each, int) for each in numbers.values()):
            return None
        fixed = {"samples_per_pixel": 1, "number_of_frames": 1, "pixel_keyword": "PixelData", "pixel_vr": value.vr}
        options = {option: int(each) for option, each in numbers.items()}
        return cls(path, value, {**options, **fixed, "photometric_interpretation": photometric})

    def plugin(self) -> str:
        """The decoder, empty for uncompressed pixels. Raises `Unreadable`: TRUNCATED, UNSUPPORTED_COMPRESSION."""
        options = self.options
        if not is_compressed(self.value.syntax):
            if self.value.length < (options["rows"] * options["columns"] * options["bits_allocated"] + 7) // 8:
                raise Unreadable(Reason.TRUNCATED)
            return ""
        return plugin_of(self.value.syntax, options["bits_stored"])

    def decoded(self, plugin: str) -> NDArray[Any]:
        """Decode in this process. Raises `Unreadable`: TRUNCATED, UNDECODABLE."""
        with malformed_is(Reason.UNDECODABLE), self.path.open("rb") as file:
            file.seek(self.value.offset)
            source: Any = file
            if not plugin:
                source = file.read(self.value.length)
                if len(source) < self.value.length:
                    raise Unreadable(Reason.TRUNCATED)
            decoder = get_decoder(self.value.syntax)
            array, _ = decoder.as_array(source, index=0, decoding_plugin=plugin, **self.options)
        return array


def low_bits(data: Values | Dataset) -> bool:
    """Whether a pixel's bits are the lowest of those that are allocated, as all readers take them; raises as pydicom.

    Files of before 2003 may have them elsewhere, and where a header is wrong about it, so may be its values.
    """
    if data.get("BitsAllocated") == 1:  # there is no other place for it
        return True
    high, stored = data.get("HighBit"), data.get("BitsStored")
    return high is None or stored is None or int(high) == int(stored) - 1


def plugin_of(syntax: UID, precision: int) -> str:
    """The decoder of a compressed form of so many bits. Raises `Unreadable`: UNSUPPORTED_COMPRESSION."""
    plugin = "pydicom" if syntax == RLELossless else OPENJPEG if syntax in HTJ2K_FORMS else GDCM
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError:
        available = ()
    if plugin not in available or (syntax == JPEGExtended12Bit and precision > 12):
        raise Unreadable(Reason.UNSUPPORTED_COMPRESSION)
    return plugin
