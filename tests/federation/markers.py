"""Marks in every field of a cohort, and the search for them in bytes, whatever those were encoded with.

A mark is text that holds `MARK`, or the one number `NUMBER` in a column that the study reads. `TAP` is a privacy
mechanism that changes nothing and writes down every task and every reply as they pass the coordinator.
"""

import base64
import csv
import gzip
import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

MARK = "qzmark7"
NUMBER = 61.296875  # an age that nobody else has, exact in float32

TAP = """
from pathlib import Path

from flip.messages.wire import pack_reply, pack_task
from flip.privacy import Mechanism


class Tap(Mechanism):
    def __init__(self, folder: str):
        self.folder = Path(folder)

    def wrap_ask(self, ask):
        def tapped(task, sites):
            self.write(pack_task(task))
            for reply in ask(task, sites):
                self.write(pack_reply(reply))
                yield reply

        return tapped

    def write(self, blob):
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(len(list(self.folder.iterdir())))).write_bytes(blob)
"""


def disguises(mark: str = MARK, number: float = NUMBER) -> dict[str, bytes]:
    """A text and a number in each form in which bytes may hold them."""
    raw = mark.encode()
    found = {
        "plain": raw,
        "upper": mark.upper().encode(),
        "hex": raw.hex().encode(),
        "hex upper": raw.hex().upper().encode(),
    }
    found |= {"utf-16": mark.encode("utf-16-le"), "utf-16 big": mark.encode("utf-16-be"), "backwards": raw[::-1]}
    for shift in range(3):  # base64 has three phases; the first and the last letters depend on the neighbors
        text = base64.b64encode(b"\0" * shift + raw)
        found[f"base64 {shift}"] = text[4 if shift else 0 : len(text) // 4 * 4 - 4]
    found |= {f"number {kind}": struct.pack(kind, number) for kind in ("<d", ">d", "<f", ">f")}
    return found | {"number as text": repr(number).encode()}


def opened(blob: bytes) -> Iterator[bytes]:
    """A blob, and what lies in it if it is compressed."""
    yield blob
    if blob[:2] == b"\x1f\x8b":
        yield from opened(gzip.decompress(blob))
    elif blob[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for name in archive.namelist():
                yield from opened(archive.read(name))
    elif blob[:1] == b"\x78":
        try:
            yield from opened(zlib.decompress(blob))
        except zlib.error:
            return


def marks_in(blob: bytes) -> list[str]:
    """The disguises under which a blob holds a mark."""
    inside = list(opened(blob))
    return [name for name, form in disguises().items() if any(form in each for each in inside)]


def marked_files(folder: Path, private: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The files below a folder that hold a mark, or bear one in their name; not those below its `private` folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith(private):
            continue
        if marks := marks_in(name.encode()) + marks_in(path.read_bytes()):
            found[name] = marks
    return found


def mark_table(path: Path, *, person: str | None = None, number: str | None = None) -> None:
    """A mark in a column that no study names, on every row; in each person; and one number in a column that is read."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for at, row in enumerate(rows):
        row[f"{MARK}_column"] = f"{MARK} {at}"
        if person:
            row[person] = f"{MARK}{row[person]}"
        if number and at == len(rows) // 2:
            row[number] = str(NUMBER)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def mark_heart(folder: Path) -> None:
    """A column that the study does not read, and an age, at each hospital."""
    for path in (folder / "uci_heart").glob("*.data"):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        for at, row in enumerate(rows):
            row[11] = f"{MARK} {at}"
        rows[1][0] = str(NUMBER)
        path.write_text("\n".join(",".join(row) for row in rows) + "\n")


def mark_dermatology(folder: Path) -> None:
    """Patients, an unread column, an age, the names of photographs, and their comments."""
    home = folder / "pad_ufes_20"
    mark_table(home / "metadata.csv", person="patient_id", number="age")
    text = (home / "metadata.csv").read_text()
    for path in (home / "images").iterdir():
        name = f"{MARK}_{path.name}"
        text = text.replace(f",{path.stem}.png", f",{MARK}_{path.stem}.png")
        path.rename(path.with_name(name))
        blob, comment = path.with_name(name).read_bytes(), f"{MARK} comment".encode()
        path.with_name(name).write_bytes(
            blob[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + blob[2:]
        )
    (home / "metadata.csv").write_text(text)


def mark_clinical_notes(folder: Path) -> None:
    """A word that one note alone has, an unread column and the number of each note."""
    for path in (folder / "mts_dialog").glob("*.csv"):
        mark_table(path, person="ID")
        path.write_text(path.read_text().replace("number 7?", f"number {MARK}?"))


def mark_chest_xray(folder: Path) -> None:
    """Every text of a film's header, its folder and its file's name, and who the person is."""
    home = folder / "radiographs"
    table = (home / "cohort.csv").read_text()
    for path in list((home / "images").iterdir()):
        film = pydicom.dcmread(path / "film.dcm")
        film.PatientName, film.PatientID, film.AccessionNumber = f"{MARK}^Ann", f"{MARK}1", f"{MARK}2"
        film.InstitutionName, film.StudyDescription, film.OperatorsName = f"{MARK}3", f"{MARK}4", f"{MARK}^Bob"
        film.StudyID, film.PatientComments = f"{MARK}5", f"{MARK}6"
        film.save_as(path / f"{MARK}.dcm")
        (path / "film.dcm").unlink()
        path.rename(path.with_name(f"{MARK}{path.name}"))
    lines = [line.replace(",acc", f",{MARK}acc").replace("p", f"{MARK}p", 1) for line in table.splitlines()[1:]]
    (home / "cohort.csv").write_text("\n".join([table.splitlines()[0], *lines]) + "\n")


def mark_icu_outcome(folder: Path) -> None:
    """A column that no query names in every table, and a word that one note alone has."""
    for path in (folder / "icu").glob("*.csv"):
        mark_table(path)
    path = folder / "icu" / "NOTE.csv"
    path.write_text(path.read_text().replace("note: ", f"note: {MARK} ", 1))


MARKED: dict[str, Callable[[Path], None]] = {
    "heart_disease": mark_heart,
    "dermatology": mark_dermatology,
    "clinical_notes": mark_clinical_notes,
    "chest_xray": mark_chest_xray,
    "icu_outcome": mark_icu_outcome,
}


@contextmanager
def watched() -> Iterator[set[str]]:
    """The command lines of all processes that run meanwhile and hold a mark."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = entry.read_bytes()
                except OSError:  # it has ended
                    continue
                if marks_in(words):
                    seen.add(words.replace(b"\0", b" ").decode(errors="replace"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
