"""Weights as arrays: names, digest, safetensors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flip.determinism import stable_seed
from flip.files import write_atomic
from flip.messages.safetensors import load_file, pack, save_file, unpack
from flip.messages.weights import digest, load_arrays, plain_name, release, to_arrays

payloads = st.dictionaries(
    st.text(st.characters(categories=("L", "N"), include_characters="._/"), min_size=1, max_size=8),
    st.one_of(
        arrays(np.float32, array_shapes(min_dims=0, max_dims=3, min_side=0)),
        arrays(np.int64, array_shapes(min_dims=0, max_dims=2, min_side=0)),
    ),
    max_size=4,
)


@given(payloads)
def test_packing_keeps_every_name_type_shape_and_bit(payload):
    unpacked, head = unpack(pack(payload, {"round": 3}))
    assert head == {"round": 3}
    assert digest(unpacked) == digest(payload)


@given(payloads)
def test_digest_does_not_depend_on_the_order_of_names(payload):
    assert digest(dict(reversed(payload.items()))) == digest(payload)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([1.0, 2.0], np.float64)},
        {"b": np.array([1.0, 2.0], np.float32)},
        {"a": np.array([[1.0, 2.0]], np.float32)},
        {"a": np.array([1.0, np.nextafter(np.float32(2), np.float32(3))], np.float32)},
    ],
)
def test_digest_tells_apart_type_name_shape_and_the_last_bit(other):
    assert digest(other) != digest({"a": np.array([1.0, 2.0], np.float32)})


@pytest.mark.parametrize(
    "blob", [b"", b"short", b"\x10" + bytes(30), pack({}, {})[:-1] + b"x", b"\x80\x04\x95pickle of nothing"]
)
def test_unpacking_anything_else_is_a_value_error(blob):
    with pytest.raises(ValueError, match="not a packed message"):
        unpack(blob)


@given(payloads)
def test_what_is_packed_is_safetensors_own_format(payload):
    assert digest(safetensors.numpy.load(pack(payload, {}))) == digest(payload)
    assert digest(unpack(safetensors.numpy.save(dict(payload), {"head": "{}"}))[0]) == digest(payload)


@given(payloads, st.data())
def test_what_safetensors_refuses_is_refused(payload, data):
    blob = bytearray(pack(payload, {}))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] = data.draw(st.integers(0, 255))
    try:
        safetensors.numpy.load(bytes(blob))
    except safetensors.SafetensorError:
        with pytest.raises(ValueError, match="not a packed message"):
            unpack(bytes(blob))


@pytest.mark.parametrize(
    ("written", "changed"),
    [(b"[2, 0]", b"[2,-0]"), (b"\\u00e9", b"\\ud800"), (b"[11, 0]", b"[1e0,0]"), (b"\\ud83e", b"\\u00e9")],
)
def test_what_json_can_spell_and_safetensors_does_not_know_is_refused(written, changed):
    blob = pack({"\N{LATIN SMALL LETTER E WITH ACUTE}": np.empty((2, 0)), "\N{LUNGS}": np.empty((11, 0))}, {})
    assert written in blob
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load(blob.replace(written, changed))
    with pytest.raises(ValueError, match="not a packed message"):
        unpack(blob.replace(written, changed))


def test_a_head_with_half_a_character_is_refused():
    with pytest.raises(ValueError, match="not a packed message"):
        unpack(pack({}, {"text": "\ud800"}))


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_message_that_is_cut_or_has_more_is_refused(change):
    with pytest.raises(ValueError, match="not a packed message"):
        unpack(pack({"a": np.ones(3, np.float32)}, {})[:-1] + change * 2)


def test_unpacked_arrays_are_views_that_nobody_can_write_to():
    blob = pack({"a": np.ones(3, np.float32)}, {})
    array = unpack(blob)[0]["a"]
    assert np.shares_memory(array, np.frombuffer(blob, np.uint8))
    assert not array.flags.writeable


def test_a_file_stays_readable_when_it_is_written_again(tmp_path: Path):
    save_file(tmp_path / "weights", {"a": np.zeros(3, np.float32)})
    before = load_file(tmp_path / "weights")[0]
    save_file(tmp_path / "weights", {"a": np.ones(3, np.float32)})
    assert before["a"].tolist() == [0, 0, 0]


def test_a_released_module_keeps_its_names_and_no_numbers():
    module = torch.nn.Linear(3, 2)
    release(module)
    assert {name: parameter.numel() for name, parameter in module.named_parameters()} == {"weight": 0, "bias": 0}


def test_a_module_comes_back_from_its_arrays():
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    load_arrays(second, to_arrays(first))
    assert torch.equal(first.weight, second.weight)


def test_bfloat16_becomes_float32():
    assert to_arrays(torch.nn.Linear(3, 2).bfloat16())["weight"].dtype == np.float32


def test_wrappers_do_not_change_names():
    assert plain_name("_orig_mod._module.net.weight") == "net.weight"


def test_loading_another_shape_names_the_parameter():
    with pytest.raises(ValueError, match="'bias' has shape"):
        load_arrays(torch.nn.Linear(3, 2), {"bias": np.zeros(5, np.float32)})


def test_loading_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="no parameter 'scale'"):
        load_arrays(torch.nn.Linear(3, 2), {"scale": np.zeros(5, np.float32)})


@pytest.mark.slow
def test_stable_seed_is_the_same_in_another_process():
    code = "from flip.determinism import stable_seed; print(stable_seed(42, 'kings', 3))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(other.stdout) == stable_seed(42, "kings", 3)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "weights.safetensors"
    save_file(target, {"a": np.ones(2, np.float32)})
    with pytest.raises(TypeError):
        write_atomic(target, "text, not bytes")  # type: ignore[arg-type]
    assert load_file(target)[0]["a"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [target]
