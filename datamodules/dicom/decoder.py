"""Decoding of pixel data; compressed streams in a process of their own.

GDCM is the one decoder of JPEG lossless that is not GPL, and on a damaged stream it does not raise but ends the process
that called it (found by fuzzing GDCM 3.2 with JPEG lossless, JPEG-LS and JPEG 2000). One bad file would then take the
whole site with it. So it runs in a child, with bounds on memory and time: when the child dies, the file is at fault.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, JPEGExtended12Bit, RLELossless

from datamodules.dicom.files import malformed_is, read_dicom
from datamodules.dicom.volume import Reason, Unreadable

# A frame takes milliseconds, the largest some seconds. The memory holds the largest file that is read, its frames and
# the libraries.
_SECONDS_A_FRAME = 20
_MEMORY_BYTES = 2**33
_GDCM = "gdcm"


class Decoder:
    """Decodes frames; a context manager, since it may hold a child process, started when it is first needed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def frames(self, data: FileDataset, path: Path, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Some frames of `data`, which was read from `path`, each (row, column) as stored, signed or not as it says.

        Raises `Unreadable`: CORRUPT, TRUNCATED, UNSUPPORTED_COMPRESSION, UNDECODABLE.
        """
        plugin = _plugin(data)
        with malformed_is(Reason.CORRUPT):
            shape = (int(data.Rows), int(data.Columns))
        source = self._from_child(path, indices) if plugin == _GDCM else _decoded(data, indices, plugin)
        for frame in source:
            if frame.shape != shape or frame.dtype.kind not in "iu":
                raise Unreadable(Reason.UNDECODABLE)
            yield frame

    def _from_child(self, path: Path, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Ask the child. Paths go through the pipe and not the command line, which all users of a machine can list."""
        child = self._child = self._child or _start()
        assert child.stdin is not None and child.stdout is not None
        finished = False
        try:
            child.stdin.write(json.dumps({"path": str(path), "indices": list(indices)}).encode() + b"\n")
            child.stdin.flush()
            for _ in indices:
                yield _receive(child.stdout)
            finished = True
        except BrokenPipeError:
            raise Unreadable(Reason.UNDECODABLE) from None
        finally:
            if not finished:  # dead, or with frames in the pipe that nobody wants
                self._stop()

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _plugin(data: FileDataset) -> str:
    """The decoder to use, empty for uncompressed pixels, of which there must be as many as the header promises.

    The decoder is named, so that a file decodes to the same bits whatever else is installed, and a GPL plug-in that
    happens to be there is not used. Raises `Unreadable`: CORRUPT, TRUNCATED, UNSUPPORTED_COMPRESSION.
    """
    with malformed_is(Reason.CORRUPT):
        syntax = UID(data.file_meta.TransferSyntaxUID)
        if "PixelData" not in data:
            raise Unreadable(Reason.TRUNCATED)
        frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
        bits = int(data.Rows) * int(data.Columns) * frames * samples * int(data.BitsAllocated)
        stored, precision = len(data.PixelData), int(data.BitsStored)
        compressed = syntax.is_encapsulated
    if not compressed:
        if stored < (bits + 7) // 8:
            raise Unreadable(Reason.TRUNCATED)
        return ""
    plugin = "pydicom" if syntax == RLELossless else _GDCM
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError:
        available = ()
    # GDCM decodes the 8-bit form of this syntax alone.
    if plugin not in available or (syntax == JPEGExtended12Bit and precision != 8):
        raise Unreadable(Reason.UNSUPPORTED_COMPRESSION)
    return plugin


def _decoded(data: FileDataset, indices: Sequence[int], plugin: str) -> Iterator[NDArray[Any]]:
    """Decode in this process, a frame at a time."""
    frames = iter_pixels(data, indices=list(indices), decoding_plugin=plugin)
    for _ in indices:
        with malformed_is(Reason.UNDECODABLE):
            frame = next(frames, None)
        if frame is None:
            raise Unreadable(Reason.TRUNCATED)
        yield frame


def _start() -> subprocess.Popen[bytes]:
    """A child that runs this module, found where this very file lies and nowhere else."""
    home = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "datamodules.dicom.decoder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": home + (os.pathsep + inherited if inherited else "")},
    )


def _receive(pipe: Any) -> NDArray[Any]:
    """One frame from the child. Raises `Unreadable`: the child's reason, or UNDECODABLE if it died."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise Unreadable(Reason.UNDECODABLE)
    head = json.loads(line)
    if "reason" in head:
        raise Unreadable(Reason[head["reason"]])
    dtype, shape = np.dtype(head["dtype"]), tuple(head["shape"])
    block = pipe.read(int(np.prod(shape)) * dtype.itemsize)
    if len(block) < int(np.prod(shape)) * dtype.itemsize:
        raise Unreadable(Reason.UNDECODABLE)
    return np.frombuffer(block, dtype).reshape(shape)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """The child: for each line {path, indices}, its frames, each a line {dtype, shape} and its bytes, or {reason}."""
    for line in requests:
        request = json.loads(line)
        try:
            data = read_dicom(Path(request["path"]))
            signal.alarm(_SECONDS_A_FRAME)  # unhandled, so that it also ends a loop inside the decoder
            for frame in _decoded(data, request["indices"], _plugin(data)):
                signal.alarm(_SECONDS_A_FRAME)
                replies.write(json.dumps({"dtype": frame.dtype.str, "shape": frame.shape}).encode() + b"\n")
                replies.write(np.ascontiguousarray(frame).tobytes())
                replies.flush()
        except Unreadable as refusal:
            replies.write(json.dumps({"reason": refusal.reason.name}).encode() + b"\n")
            replies.flush()
        signal.alarm(0)


def _main() -> None:
    """Set the bounds and serve. What the decoder prints goes nowhere; a core dump would hold a patient's image."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with os.fdopen(os.dup(1), "wb") as replies, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    _main()
