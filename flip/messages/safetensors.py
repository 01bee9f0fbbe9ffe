"""Arrays and a head of JSON as bytes in the safetensors format, written and read without pickle."""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flip.files import mapped, write_atomic

FORMATS = {
    "<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8",
    "<u8": "U64", "<u4": "U32", "<u2": "U16", "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip


DTYPES = {name: np.dtype(dtype) for dtype, name in FORMATS.items()}


ALIGNED = 8  # bytes of the widest of these types


LONGEST_HEADER = 1 << 24  # bytes: room for a hundred thousand arrays; read as JSON it takes some ten times its size


MOST_AXES = 64  # of an array, as NumPy has it: more are not multiplied


def parts(arrays: Mapping[str, np.ndarray], head: Mapping[str, object]) -> list[Any]:
    """Arrays and a JSON-able head as the buffers that make up one safetensors file, without a copy of any array.

    The format is written and read here since the library's own functions copy: its `save` takes twice the size of the
    arrays, its `load` once (measured with 0.8). Arrays of wide types come first, so that each lies aligned.
    """
    whole = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    names = sorted(whole, key=lambda name: (-whole[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"head": json.dumps(head)}}
    end = 0
    for name in names:
        start, end = end, end + whole[name].nbytes
        header[name] = {
            "dtype": FORMATS[whole[name].dtype.str],
            "shape": whole[name].shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    return [len(text).to_bytes(8, "little"), text, *(whole[name] for name in names)]


def pack(arrays: Mapping[str, np.ndarray], head: Mapping[str, object]) -> bytes:
    """Arrays and a JSON-able head as one safetensors blob: the only form in which data crosses a process boundary."""
    return b"".join(parts(arrays, head))


def _unsigned(number: str) -> int:
    """A number of a safetensors header, which knows no other; ValueError for -0, 1e3 and NaN, which JSON allows."""
    if not number.isdecimal():
        raise ValueError(number)
    return int(number)


def unpack(blob: bytes | mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The inverse of `pack`: arrays that cannot be written to, since they are views of the blob.

    Raises ValueError for anything that is not such a blob: the arrays must fill it, without a gap or an overlap.
    """
    try:
        length = int.from_bytes(blob[:8], "little")
        if length > LONGEST_HEADER:
            raise ValueError("a header too long")
        text = blob[8 : 8 + length].decode()
        header = json.loads(text, parse_int=_unsigned, parse_float=_unsigned, parse_constant=_unsigned)
        head = json.loads(header.pop("__metadata__")["head"])
        json.dumps([header, head], ensure_ascii=False).encode()  # JSON can spell half a character, which no text holds
        arrays, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (start, stop) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            count = math.prod(shape) if len(shape) <= MOST_AXES else -1
            if start != end or stop - start != count * dtype.itemsize:
                raise ValueError("arrays that do not lie one after the other")
            arrays[name] = (
                np.frombuffer(blob, dtype, count, 8 + length + start) if count else np.empty(0, dtype)
            ).reshape(shape)
            end = stop
        if 8 + length + end != len(blob) or not isinstance(head, dict):
            raise ValueError("another length")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("not a packed message") from error
    return arrays, head


def save_file(path: Path, arrays: Mapping[str, np.ndarray], head: Mapping[str, Any] | None = None) -> None:
    """Write arrays as a safetensors file, atomically."""
    write_atomic(path, parts(arrays, head or {}))


def load_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_file` wrote: arrays that lie in the file, and cannot be written to."""
    return unpack(mapped(path))
