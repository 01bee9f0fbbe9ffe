"""JPEG by GDCM where its plug-in in pydicom is not enough: lossless, and the lossy form of 12 bits.

The plug-in takes the pixels from it as text, for a third of the time, and refuses the lossy form of 12 bits, which GDCM
decodes to the same bits as libjpeg-turbo. Its bindings return a buffer as `str`, which pydicom encodes to bytes again.
A pointer to a value and its length are to be had as well, so here the bytes are copied once, and as many as there are.
A pointer is believed, so this is for the decoder's child process alone.
"""

from __future__ import annotations

import ctypes

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.decoders.gdcm import DECODER_DEPENDENCIES, is_available
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

__all__ = ["DECODER_DEPENDENCIES", "install", "is_available"]  # pydicom asks a plug-in's module for the two

_SYNTAXES = (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)
_PIXELS = gdcm.Tag(0x7FE0, 0x0010)


def install(plugin: str) -> None:
    """Put this in the place of pydicom's `plugin` for these forms of JPEG, in this process."""
    for syntax in _SYNTAXES:
        decoder = get_decoder(syntax)
        if plugin in decoder.available_plugins:
            decoder.remove_plugin(plugin)
            decoder.add_plugin(plugin, (__name__, "_decode_frame"))


def _decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame of one sample a pixel, as `bits_allocated` says. Raises ValueError where GDCM refuses it."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    encoded, decoded = gdcm.DataElement(_PIXELS), gdcm.DataElement(_PIXELS)
    encoded.SetValue(fragments.__ref__())
    stored = runner.bits_stored
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((runner.columns, runner.rows, 1))
    codec.SetPixelFormat(gdcm.PixelFormat(1, runner.bits_allocated, stored, stored - 1, runner.pixel_representation))
    photometric = gdcm.PhotometricInterpretation.GetPIType(runner.photometric_interpretation)
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    if runner.samples_per_pixel != 1 or not codec.Decode(encoded, decoded):
        raise ValueError("not decoded")
    value, length = decoded.GetByteValue(), runner.frame_length(unit="bytes")
    # The length is an object that gives its number as text alone. A value is of even length in DICOM.
    if int(str(value.GetLength())) not in (length, length + length % 2):
        raise ValueError("not as many pixels as the header promises")
    return ctypes.string_at(int(value.GetVoidPointer()), length)
