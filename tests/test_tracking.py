"""Where a run's numbers go: the table in its folder always, Weights & Biases on request, and no path of a machine."""

import csv
import getpass
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from flip.processes import nothing_left
from flip.report import page as report
from flip.tracking import CsvTracker, Guarded, WandbTracker
from tests.report.fixture import line, write_run


def rows(run: Path) -> list[dict[str, str]]:
    CsvTracker().finish(run, {})
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_every_metric_by_round_phase_and_site(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=2)
    records = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    [wanted] = [r for r in records if r["phase"] == "fit" and r["site"] == "va" and r["round"] == 1]
    found = [
        row
        for row in rows(run)
        if (row["round"], row["phase"], row["site"], row["metric"]) == ("2", "fit", "va", "loss")
    ]
    assert [float(row["value"]) for row in found] == [wanted["metrics"]["loss"]]


def test_the_table_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    record = line(0, "a", "fit", metrics={"loss": float("nan"), "accuracy": 0.5})
    (tmp_path / "rounds.jsonl").write_text(json.dumps(record) + "\n")
    assert {row["metric"] for row in rows(tmp_path)} == {"accuracy", "examples", "bytes_down", "bytes_up", "seconds"}


def test_a_site_name_with_a_comma_stays_one_column(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text(json.dumps(line(0, 'St. "Mary", North', "fit")) + "\n")
    assert rows(tmp_path)[0]["site"] == 'St. "Mary", North'


def test_a_run_that_never_asked_a_site_has_an_empty_table(tmp_path: Path) -> None:
    assert rows(tmp_path) == []


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="offline or online"):
        WandbTracker("flip", mode="of")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run logged offline to Weights & Biases, half of it before the run was opened."""
    run = write_run(tmp_path_factory.mktemp("runs") / "2026-11-24_07-25-01.123456", rounds=2)
    report.write(run)
    tracker = WandbTracker("flip")
    records = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    for record in records[:6]:
        tracker.line(record)
    tracker.start(run)
    for record in records[6:]:
        tracker.line(record)
    tracker.finish(run, json.loads((run / "result.json").read_text()))
    return run


def journal(raw: bytes) -> bytes:
    """The records of a W&B journal end to end: LevelDB's log format (blocks of 32 kB cut records), after 7 bytes."""
    records, at = b"", 7
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:  # the padding of a block
            at += 32768 - at % 32768
            continue
        length = int.from_bytes(raw[at + 4 : at + 6], "little")
        records += raw[at + 7 : at + 7 + length]
        at += 7 + length
    return records


def logged(run: Path) -> bytes:
    """All that `wandb sync` would send: the records of its journal, and the files beside it."""
    [folder] = (run / "wandb").glob("offline-run-*")
    [path] = folder.glob("*.wandb")
    return journal(path.read_bytes()) + b"".join(
        path.read_bytes() for path in (folder / "files").rglob("*") if path.is_file()
    )


@pytest.mark.slow
def test_an_offline_run_is_logged_into_the_run_folder(tracked: Path) -> None:
    sent = logged(tracked)
    for text in ("validate/pooled/accuracy", "fit/site/va/loss", "test/pooled/auroc", "heart_disease", "federation"):
        assert text.encode() in sent, text


def test_the_report_is_logged(tracked: Path) -> None:
    [page] = (tracked / "wandb").rglob("*.html")
    assert page.read_text() == (tracked / "report.html").read_text()


def test_nothing_of_the_machine_is_logged(tracked: Path) -> None:
    sent = logged(tracked)
    private = [
        "/srv/coordinator",
        str(Path.cwd()),
        str(Path.home() / ""),
        socket.gethostname(),
        f'"{getpass.getuser()}"',
    ]
    assert [text for text in private if text.encode() in sent and len(text) > 2] == []


def follow(run: Path, tracker: Any) -> list[str]:
    """What a tracker says of a run that it follows, in a folder for temporary files that is gone afterwards."""
    said: list[str] = []
    write_run(run, rounds=1)
    report.write(run)
    with nothing_left():
        guarded = Guarded("tracking.wandb", tracker, said.append)
        guarded.start(run)
        guarded.line(line(0, "va", "fit", metrics={"loss": 0.5}))
        guarded.finish(run, json.loads((run / "result.json").read_text()))
    return said


def test_the_second_run_of_a_process_is_logged_as_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert follow(tmp_path / name, WandbTracker("flip")) == []
        assert b"test/pooled/auroc" in logged(tmp_path / name)
        assert list((tmp_path / name / "wandb").rglob("*.html"))


@pytest.mark.parametrize("key", ["", "0123456789" * 4], ids=["no key", "no network"])
def test_without_a_key_or_the_network_a_run_is_logged_offline_with_a_sentence(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where a key would lie
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr("flip.tracking.PATIENCE", 3.0)
    [said] = follow(tmp_path / "run", WandbTracker("flip", mode="online"))
    assert said.startswith("tracking.wandb: W&B cannot be used online (")
    assert said.endswith(f"wandb sync {tmp_path}/run/wandb/offline-run-*` sends it")
    assert b"test/pooled/auroc" in logged(tmp_path / "run")


class Broken:
    """A tracker that fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at = at

    def start(self, run: Path) -> None:
        self._fail("start")

    def line(self, record: Any) -> None:
        self._fail("line")

    def finish(self, run: Path, result: Any) -> None:
        self._fail("finish")

    def _fail(self, at: str) -> None:
        if at == self.at:
            raise ConnectionError("a secret address")


@pytest.mark.parametrize("at", ["start", "line", "finish"])
def test_a_trackers_failure_is_told_once_and_is_not_the_runs(at: str, tmp_path: Path) -> None:
    assert follow(tmp_path / "run", Broken(at)) == [
        "tracking.wandb: failed (ConnectionError, see log.txt); the run goes on without it"
    ]
