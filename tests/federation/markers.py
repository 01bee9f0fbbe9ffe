"""Marks in every field of a cohort and of a site's own files, and the search for them in bytes, however encoded.

A mark is text that holds `MARK`, or the one number `NUMBER` in a column that the study reads. `TAP` is a privacy
mechanism that changes nothing and writes down every task and every reply as they pass the coordinator; before the first
task it marks what each site's own file names.
"""

import base64
import binascii
import csv
import io
import json
import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.config.envelope import Envelope, data_of
from flip.config.site_file import load_site
from flip.files import write_atomic
from flip.site.approvals import Approval, Approvals

MARK = "qzmark7"
NUMBER = 61.296875  # an age that nobody else has, exact in float32
OWN = {"opt_out": "opted_out.txt"}
DATABASE = "omop-"  # how the temporary folder of a site is called in which it holds its own export as a database
PERSON, KEY = f"{MARK} ada", Ed25519PrivateKey.from_private_bytes(b"a" * 32)

TAP = """
from pathlib import Path

from flip.messages.wire import pack_reply, pack_task
from flip.privacy import Mechanism


class Tap(Mechanism):
    def __init__(self, folder: str):
        self.folder = Path(folder)

    def wrap_ask(self, ask):
        def tapped(task, sites):
            if not self.folder.exists():
                from tests.federation.markers import MARK, mark_own

                mark_own(self.folder.with_name("run"), self.folder.with_name(MARK), task.manifest)
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
    for width in (16, 32):  # text of arrays is UTF-32
        found |= {f"utf-{width}{way}": mark.encode(f"utf-{width}-{way}") for way in ("le", "be")}
    found["backwards"] = raw[::-1]
    for shift in range(3):  # base64 has three phases; the first and the last letters depend on the neighbors
        text = base64.b64encode(b"\0" * shift + raw)
        found[f"base64 {shift}"] = text[4 if shift else 0 : len(text) // 4 * 4 - 4]
    found |= {f"number {kind}": struct.pack(kind, number) for kind in ("<d", ">d", "<f", ">f")}
    pixels = np.frombuffer(raw, np.uint8)
    found |= {f"pixels {kind}": (pixels / 255).astype(kind).tobytes() for kind in ("<d", "<f")}
    return found | {"number as text": repr(number).encode(), "number rounded": f"{number:.4f}".encode()}


STREAM = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")  # how gzip and zlib begin
IN_BASE64 = re.compile(rb"(?:H4sI|eJ|eA|eN)[A-Za-z0-9+/]{16,}")
MOST = 2**26  # bytes of a stream that are looked at


def opened(blob: bytes) -> Iterator[bytes]:
    """A blob, and what lies in it compressed, wherever it begins, also in base64."""
    yield blob
    if blob[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for name in archive.namelist():
                yield from opened(archive.read(name))
    for stream in STREAM.finditer(blob):
        try:
            inside = zlib.decompressobj(47).decompress(blob[stream.start() :], MOST)
        except zlib.error:
            continue
        if inside:
            yield from opened(inside)
    for text in IN_BASE64.finditer(blob):
        try:
            yield from opened(base64.b64decode(text[0][: len(text[0]) // 4 * 4]))
        except binascii.Error:
            continue


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
    """A column that the study does not read, and a number in each one that is read as numbers, at each hospital."""
    for path in (folder / "uci_heart").glob("*.data"):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        for at, row in enumerate(rows):
            row[11] = f"{MARK} {at}"
        for at, column in enumerate((0, 3, 4, 7, 9), 1):
            rows[at][column] = str(NUMBER)
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
    """Every text of a film's header, its folder and its file's name, who the person is, and pixels of an archive."""
    home, [archive] = folder / "radiographs", (folder / "pneumoniamnist").glob("*.npz")
    images = dict(np.load(archive))
    for name in [name for name in images if name.endswith("_images")]:
        images[name][:, 0, : len(MARK)] = np.frombuffer(MARK.encode(), np.uint8)
    np.savez(archive, **images)
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
    """A column that no query names in every table, a value in each of numbers, and a word that one note alone has."""
    for path in (folder / "icu").glob("*.csv"):
        mark_table(path, number="value_as_number" if path.stem == "MEASUREMENT" else None)
    path = folder / "icu" / "NOTE.csv"
    path.write_text(path.read_text().replace("note: ", f"note: {MARK} ", 1))


def mark_level_finder(folder: Path) -> None:
    """Persons, a column that is not read and a level of each hospital's table; names and headers of its scans."""
    for home in (folder / "abdomen").iterdir():
        mark_table(home / "cohort.csv", person="person_id", number="level_mm")
        table = (home / "cohort.csv").read_text()
        for path in (home / "images").iterdir():
            scan = nib.load(path)
            for field in ("descrip", "aux_file", "intent_name", "db_name"):
                scan.header[field] = f"{MARK} {field}"[:10].encode()
            nib.save(scan, path.with_name(f"{MARK}{path.name}"))
            path.unlink()
            name = path.name.split(".")[0]
            table = table.replace(f",{name},", f",{MARK}{name},")
        (home / "cohort.csv").write_text(table)


MARKED: dict[str, Callable[[Path], None]] = {
    "heart_disease": mark_heart,
    "dermatology": mark_dermatology,
    "clinical_notes": mark_clinical_notes,
    "chest_xray": mark_chest_xray,
    "icu_outcome": mark_icu_outcome,
    "level_finder": mark_level_finder,
}


def mark_own(run: Path, marked: Path, manifest: str) -> None:
    """Add to each site's own file of a simulation what else it can name: a person who approves the study, for reasons
    that hold a mark; a model of its own; and where there is one below `marked` a list of who has opted out."""
    public = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
    stated = {"reason": f"{MARK} trial", "ethics": f"{MARK} 7", "expires": "2099-12-31", "runs": 1}
    own = {key: str(marked / name) for key, name in OWN.items() if (marked / name).exists()}
    for file in (run / "sites").glob("*.yaml"):
        values = yaml.safe_load(file.read_text()) | own | {"models": [str(marked / "own.safetensors")]}
        values["policy"]["approval"] = {"keys": {PERSON: public}}
        write_atomic(file, yaml.safe_dump(values).encode())
        site = load_site(file)
        envelope = Envelope(file.stem, data_of(site), json.loads(manifest), {}, **stated)
        Approvals(file.stem, site, file.with_suffix("")).keep(Approval(envelope, []).signed(PERSON, KEY))


@contextmanager
def watched(temporary: Path) -> Iterator[set[str]]:
    """The command lines of all processes that run meanwhile and hold a mark, and the temporary files that do."""
    seen: set[str] = set()
    known: dict[Path, tuple[int, int]] = {}
    over = threading.Event()

    def look() -> None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                if marks_in(words := entry.read_bytes()):
                    seen.add(words.replace(b"\0", b" ").decode(errors="replace"))
        for path in (Path(folder) / name for folder, _, names in os.walk(temporary) for name in names):
            with suppress(OSError):  # it is gone, as a folder may be that os.walk came to
                about = path.lstat()
                state = about.st_mtime_ns, about.st_size
                own = any(part.startswith(DATABASE) for part in path.parts)
                if own or not stat.S_ISREG(about.st_mode) or known.get(path) == state:
                    continue
                known[path] = state
                if marks_in(path.name.encode()) or marks_in(path.read_bytes()):
                    seen.add(str(path))

    def watch() -> None:
        while not over.wait(0.1):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
        look()
