"""Decoding of pixel data; compressed streams in a process of their own.

GDCM is the one decoder of JPEG lossless that is not GPL, and on a damaged stream it does not raise but ends the process
that called it (found by fuzzing GDCM 3.2 with JPEG lossless, JPEG-LS and JPEG 2000). One bad file would then take the
whole site with it. So it runs in a child, with bounds on memory and time: when the child dies, the file is at fault.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID

from datamodules.dicom.bits import BitFrames
from datamodules.dicom.files import PixelValue, malformed_is, read_dicom
from datamodules.dicom.stored import GDCM, ISOLATED, Stored, low_bits, plugin_of
from datamodules.dicom.volume import Reason, Unreadable

# A frame takes milliseconds, the largest some seconds. The memory holds the largest file that is read, its frames and
# the libraries.
_SECONDS_A_FRAME = 20
_MEMORY_BYTES = 2**33


_CHILDREN = min(2, len(os.sched_getaffinity(0)))  # each frame goes to the next: a series is decoded on two cores
_PIPE_BYTES = 2**20  # lets the child go on while a frame waits to be taken; the most that Linux grants anyone


class Decoder:
    """Decodes frames; a context manager, since it may hold child processes, started when they are first needed."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

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
        if plugin in ISOLATED:
            source = self._asked([[{"path": str(path), "indices": list(indices)}]], len(indices))
        else:
            source = _decoded(data, indices, plugin)
        for frame in source:
            if frame.shape != shape or frame.dtype.kind not in "iu":
                raise Unreadable(Reason.UNDECODABLE)
            yield frame

    def each(self, images: Sequence[Stored]) -> Iterator[NDArray[Any]]:
        """Decode images of one frame each, in order. Raises `Unreadable` as `frames` does."""
        plugins = [image.plugin() for image in images]
        if any(plugin in ISOLATED for plugin in plugins):
            asked = [
                {"path": str(i.path), "value": [*astuple(i.value)], "options": i.options, "plugin": plugin}
                for i, plugin in zip(images, plugins, strict=True)
            ]
            number = min(_CHILDREN, len(asked))
            decoded = self._asked([asked[index::number] for index in range(number)], len(asked))
        else:
            decoded = (image.decoded(plugin) for image, plugin in zip(images, plugins, strict=True))
        for image, frame in zip(images, decoded, strict=True):
            if frame.shape != (image.options["rows"], image.options["columns"]) or frame.dtype.kind not in "iu":
                raise Unreadable(Reason.UNDECODABLE)
            yield frame

    def _asked(self, shares: Sequence[Sequence[Mapping[str, Any]]], frames: int) -> Iterator[NDArray[Any]]:
        """Frames from the children in turn, each of which is told its share at once, and goes on while we take them.

        Paths go through the pipe and not the command line, which all users of a machine can list.
        """
        if any(child.poll() is not None for child in self._children):  # killed since, which is no fault of this file
            self._stop()
        self._children += [_start() for _ in range(len(shares) - len(self._children))]
        due = frames
        try:
            for child, share in zip(self._children, shares, strict=False):
                _send(child, share)
            for index in range(frames):
                frame = _receive(self._children[index % len(shares)].stdout)
                due -= 1
                yield frame
        except BrokenPipeError:
            raise Unreadable(Reason.UNDECODABLE) from None
        finally:
            if due:  # one is dead, or they have frames in their pipes that nobody wants
                self._stop()

    def _stop(self) -> None:
        for child in self._children:
            child.kill()
            child.communicate()
        self._children = []


def _plugin(data: FileDataset) -> str:
    """The decoder to use, empty for uncompressed pixels, of which there must be as many as the header promises.

    The decoder is named, so that a file decodes to the same bits whatever else is installed, and a GPL plug-in that
    happens to be there is not used. Raises `Unreadable`: CORRUPT, TRUNCATED, HIGH_BIT, UNSUPPORTED_COMPRESSION.
    """
    with malformed_is(Reason.CORRUPT):
        syntax = UID(data.file_meta.TransferSyntaxUID)
        if "PixelData" not in data:
            raise Unreadable(Reason.TRUNCATED)
        frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
        bits = int(data.Rows) * int(data.Columns) * frames * samples * int(data.BitsAllocated)
        stored, precision = len(data.PixelData), int(data.BitsStored)
        compressed, low = syntax.is_encapsulated, low_bits(data)
    if not low:
        raise Unreadable(Reason.HIGH_BIT)
    if not compressed:
        if stored < (bits + 7) // 8:
            raise Unreadable(Reason.TRUNCATED)
        return ""
    return plugin_of(syntax, precision)


def _decoded(data: FileDataset, indices: Sequence[int], plugin: str) -> Iterator[NDArray[Any]]:
    """Decode in this process, a frame at a time."""
    if not plugin and (packed := BitFrames.of(data)):  # pydicom loses bits of a frame that begins inside a byte
        yield from packed.read(indices)
        return
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
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "datamodules.dicom.decoder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": home + (os.pathsep + inherited if inherited else "")},
    )
    assert child.stdout is not None
    with suppress(OSError):  # a user with many pipes gets no larger one
        fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return child


def _send(child: subprocess.Popen[bytes], share: Sequence[Mapping[str, Any]]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(share).encode() + b"\n")
    child.stdin.flush()


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
    """The child: for each line, a list of {path, indices} or {path, value, options, plugin}, its frames; or {reason}.

    A frame is a line {dtype, shape} and its bytes.
    """
    for line in requests:
        frames = _requested(json.loads(line))
        try:
            while (frame := _in_time(frames)) is not None:
                replies.write(json.dumps({"dtype": frame.dtype.str, "shape": frame.shape}).encode() + b"\n")
                replies.write(np.ascontiguousarray(frame).data)
                replies.flush()
        except Unreadable as refusal:
            replies.write(json.dumps({"reason": refusal.reason.name}).encode() + b"\n")
            replies.flush()


def _in_time(frames: Iterator[NDArray[Any]]) -> NDArray[Any] | None:
    """The next frame, or none; the alarm ends this process. To wait until a frame is taken counts for nothing."""
    signal.alarm(_SECONDS_A_FRAME)  # unhandled, so that it also ends a loop inside the decoder
    try:
        return next(frames, None)
    finally:
        signal.alarm(0)


def _requested(share: Sequence[Mapping[str, Any]]) -> Iterator[NDArray[Any]]:
    for request in share:
        path = Path(request["path"])
        if "value" in request:
            offset, length, vr, syntax = request["value"]
            stored = Stored(path, PixelValue(offset, length, vr, UID(syntax)), request["options"])
            yield stored.decoded(request["plugin"])
        else:
            data = read_dicom(path)
            yield from _decoded(data, request["indices"], _plugin(data))


def _main() -> None:
    """Set the bounds and serve. What the decoder prints goes nowhere; a core dump would hold a patient's image."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    from datamodules.dicom import jpeg  # believes what GDCM gives it: for no process but this one

    jpeg.install(GDCM)
    with os.fdopen(os.dup(1), "wb") as replies, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    _main()
