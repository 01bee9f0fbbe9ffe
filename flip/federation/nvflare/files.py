"""Large messages over FLARE: a file at the sender, which the receiver fetches piece by piece into a file of its own.

So no process of FLARE's holds such a message (FLARE's file downloader moves 5 MB at a time). A small one travels in the
Shareable itself, which saves the fetching.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.federation.spool import spool

if TYPE_CHECKING:
    from nvflare.apis.signal import Signal

BLOB, FILE = "blob", "file"  # in a Shareable: a message's bytes, or where they lie (the sender's cell, a reference)
SMALL = 1 << 20  # bytes of the largest message that travels in the Shareable
STALLED = 60.0  # seconds that one piece may take; FLARE asks for it three times more
KEPT = 86_400.0  # seconds that a file is offered while nobody fetches any of it


def own_folder(fl_ctx: Any) -> Path:
    """A private folder for the messages of this process, in FLARE's folder of the job."""
    folder = Path(fl_ctx.get_workspace().get_run_dir(fl_ctx.get_job_id())) / "messages"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def packed(parts: Sequence[Any], fl_ctx: Any) -> dict[str, Any]:
    """What goes into a Shareable for a message given as its buffers; a large one lies in a file until fetched."""
    if sum(memoryview(part).nbytes for part in parts) <= SMALL:
        return {BLOB: b"".join(parts)}
    file = spool(own_folder(fl_ctx) / uuid.uuid4().hex, parts)
    return offered(file, fl_ctx, lambda *_: file.unlink())


def offered(file: Path, fl_ctx: Any, done: Callable[..., None] | None = None) -> dict[str, Any]:
    """What goes into a Shareable for a message that lies in a file; `done` is called when it need not be kept."""
    from nvflare.fuel.f3.streaming.file_downloader import add_file
    from nvflare.fuel.f3.streaming.obj_downloader import ObjectDownloader

    if file.stat().st_size <= SMALL:
        return {BLOB: file.read_bytes()}
    cell = fl_ctx.get_engine().get_cell()
    downloader = ObjectDownloader(cell, KEPT, num_receivers=1, transaction_done_cb=done)
    return {FILE: [cell.get_fqcn(), add_file(downloader, str(file))]}


@dataclass(frozen=True)
class Limits:
    """How many bytes a message may have, and FLARE's signal by which its fetching is ended."""

    most: float
    end: "Signal | None" = None


def received(
    shareable: Mapping[str, Any], fl_ctx: Any, sender: str, limits: Limits = Limits(float("inf"))
) -> bytes | Path:
    """A message: its bytes, or a file with them that is ours; empty where there is none.

    Raises ValueError for one that lies elsewhere than at `sender`, and RuntimeError for one that could not be fetched,
    or is larger than it may be.
    """
    if FILE not in shareable:
        blob = shareable.get(BLOB, b"")
        if not isinstance(blob, bytes) or len(blob) > SMALL:
            raise ValueError(f"{sender} sends a message that is none, or too large to be sent so")
        return blob
    source, reference = shareable[FILE]
    if sender not in source.split("."):
        raise ValueError(f"{sender} names a message of {source}")
    return fetched((source, reference), fl_ctx, limits)


def fetched(place: tuple[str, str], fl_ctx: Any, limits: Limits) -> Path:
    """The file that a message was fetched into: as FLARE's `download_file` does, within limits.

    Raises RuntimeError for one that could not be fetched; whatever is raised, no file is left.
    """
    from nvflare.fuel.f3.streaming.download_service import download_object
    from nvflare.fuel.f3.streaming.file_downloader import _ChunkConsumer

    class Bounded(_ChunkConsumer):  # type: ignore[misc]
        def consume(self, ref_id: str, state: dict[str, object], data: bytes) -> dict[str, object]:
            if not data or self.total_bytes + len(data) > limits.most:
                raise ValueError(f"it has a piece of nothing, or more than {limits.most} bytes")
            told: dict[str, object] = super().consume(ref_id, state, data)
            return told

    consumer = Bounded(str(own_folder(fl_ctx)))
    try:
        download_object(*place, STALLED, fl_ctx.get_engine().get_cell(), consumer, abort_signal=limits.end)
        if consumer.error:
            raise RuntimeError(f"a message at {place[0]} could not be fetched: {consumer.error}")
    except BaseException:  # also FLARE's own, which takes it for granted that the sender answers as it should
        consumer.file.close()
        Path(consumer.file_path).unlink(missing_ok=True)
        raise
    return Path(consumer.file_path)
