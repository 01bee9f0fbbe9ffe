import hashlib
import hmac

import numpy as np
import pytest
import torch
from scipy import stats

from flip.privacy.noise import Stream

KEY = bytes(range(32))


def test_the_same_key_and_purpose_give_the_same_numbers():
    one, other = Stream(KEY, "noise"), Stream(KEY, "noise")
    assert one.gaussians(7).tobytes() == other.gaussians(7).tobytes()
    assert one.uniforms(7).tobytes() == other.uniforms(7).tobytes()


def test_another_key_purpose_or_draw_gives_other_numbers():
    stream = Stream(KEY, "noise")
    draws = [stream.take(32), stream.take(32), Stream(KEY, "masks").take(32), Stream(KEY[::-1], "noise").take(32)]
    assert len(set(draws)) == 4


def test_the_bytes_are_the_chacha20_keystream_of_rfc_8439():
    # The RFC's block function, written out: the first block of the second draw.
    key = np.frombuffer(hmac.new(KEY, b"noise", hashlib.sha256).digest(), "<u4")
    start = np.concatenate([np.frombuffer(b"expand 32-byte k", "<u4"), key, np.array([0, 1, 0, 0], "<u4")])
    state = start.copy()

    def turn(value, by):
        return (value << np.uint32(by)) | (value >> np.uint32(32 - by))

    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for a, b, c, d in (columns + diagonals) * 10:
        for to, add, mix, by in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
            state[to] = (int(state[to]) + int(state[add])) % 2**32
            state[mix] = turn(state[mix] ^ state[to], by)
    stream = Stream(KEY, "noise")
    stream.take(5)
    assert stream.take(64) == (state + start).astype("<u4").tobytes()


def test_gaussians_are_standard_normal():
    draws = Stream(KEY, "noise").gaussians(100_000)
    assert stats.kstest(draws, "norm").pvalue > 0.01
    assert abs(draws.mean()) < 4 / np.sqrt(len(draws))
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * len(draws))
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(len(draws))


def test_uniforms_are_uniform_and_never_zero_or_one():
    draws = Stream(KEY, "masks").uniforms(100_000)
    assert stats.kstest(draws, "uniform").pvalue > 0.01
    assert 0 < draws.min() <= draws.max() < 1


def test_the_extremes_of_the_keystream_stay_inside_the_interval(monkeypatch):
    stream = Stream(KEY, "masks")
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr(stream, "take", lambda number, byte=byte: byte * number)
        assert 0 < stream.uniforms(1)[0] < 1
        assert np.isfinite(stream.gaussians(3)).all()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_any_number_can_be_drawn(number):
    assert Stream(KEY, "noise").gaussians(number).shape == (number,)


def test_seeds_of_torch_and_numpy_have_no_say():
    torch.manual_seed(0)
    np.random.seed(0)
    first = Stream(KEY, "noise").gaussians(3)
    torch.manual_seed(1)
    np.random.seed(1)
    assert np.array_equal(first, Stream(KEY, "noise").gaussians(3))


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        Stream(b"short", "noise")
