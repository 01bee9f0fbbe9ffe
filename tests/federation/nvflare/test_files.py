"""A large message over FLARE: how much of it is taken, and what is left of one that is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.signal import Signal
from nvflare.fuel.f3.streaming import download_service

from flip.federation.nvflare import files
from flip.federation.nvflare.files import BLOB, FILE, SMALL, Limits, received

REPLY = {FILE: ["server.kings", "reference"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(files, "own_folder", lambda fl_ctx: tmp_path)
    return SimpleNamespace(get_engine=lambda: SimpleNamespace(get_cell=lambda: None))


def offering(monkeypatch: pytest.MonkeyPatch, *pieces: object) -> None:
    """A sender that hands these out, through FLARE's consumer, as FLARE does."""

    def download(
        fqcn: str, reference: str, timeout: float, cell: object, consumer: Any, abort_signal: Any = None
    ) -> None:
        for piece in pieces:
            if abort_signal and abort_signal.triggered:
                consumer.download_failed(reference, "aborted")
                return
            assert isinstance(piece, bytes)  # as FLARE has it of what the sender says
            try:
                consumer.consume(reference, {}, piece)
            except Exception as error:
                consumer.download_failed(reference, str(error))
                return
        consumer.download_completed(reference)

    monkeypatch.setattr(download_service, "download_object", download)


def test_a_message_is_fetched_into_a_file(place, monkeypatch):
    offering(monkeypatch, b"ab", b"c")
    found = received(REPLY, place, "kings", Limits(3))
    assert isinstance(found, Path) and found.read_bytes() == b"abc"


@pytest.mark.parametrize("pieces", [[b"ab", b"cd"], [b"a", b""]], ids=["too large", "a piece of nothing"])
def test_of_one_that_is_larger_than_any_reply_or_never_ends_nothing_is_kept(pieces, place, monkeypatch, tmp_path):
    offering(monkeypatch, *pieces)
    with pytest.raises(RuntimeError, match="more than 3 bytes"):
        received(REPLY, place, "kings", Limits(3))
    assert list(tmp_path.iterdir()) == []


def test_of_one_whose_sender_answers_what_it_should_not_nothing_is_kept(place, monkeypatch, tmp_path):
    offering(monkeypatch, b"ab", {})
    with pytest.raises(AssertionError):
        received(REPLY, place, "kings", Limits(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blob", [b"x" * (SMALL + 1), 7], ids=["too large", "a number"])
def test_a_message_that_is_sent_otherwise_than_ours_are_is_none(blob, place):
    with pytest.raises(ValueError, match="kings sends a message that is none"):
        received({BLOB: blob}, place, "kings")


def test_one_that_is_no_longer_wanted_is_given_up(place, monkeypatch, tmp_path):
    offering(monkeypatch, b"ab")
    end = Signal()
    end.trigger(True)
    with pytest.raises(RuntimeError, match="aborted"):
        received(REPLY, place, "kings", Limits(3, end))
    assert list(tmp_path.iterdir()) == []
