"""A sweep loses nothing: its runs are on disk whatever ends it, its table can be read, and sites' folders stay out."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from flip.cli.sweep_notes import Note, Notes, objective
from flip.report.compare import compare_table
from tests.cli.small_study import write_small_study
from tests.commands import run_flip
from tests.federation.faulty_site import Faulty
from tests.federation.test_interrupts import forked
from tests.report.fixture import write_run


def table_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sweep of three runs, one of them a mistake, all tracked; what it printed on 80 columns, and its folder."""
    folder = tmp_path_factory.mktemp("swept")
    words = ["trainer.epochs=1,x", "model.optimizer.lr=0.001,0.003", "tracking=wandb"]
    done = run_flip(folder, "-m", *write_small_study(folder), *words, seconds=400, COLUMNS="80")
    [sweep] = (folder / "runs").iterdir()
    return done, sweep


@pytest.mark.slow
def test_every_run_of_a_tracked_sweep_is_trained_and_listed(swept: Any) -> None:
    done, sweep = swept
    rows = table_of(sweep)
    assert [row["status"] for row in rows] == ["ok", "ok", "not run", "not run"]
    assert [row["model.optimizer.lr"] for row in rows] == ["0.001", "0.003"] * 2
    assert "trainer.epochs" in rows[2]["reason"]
    assert all(list((sweep / number / "wandb").glob("offline-run-*")) for number in ("0", "1"))
    assert done.returncode == 1


def test_the_table_on_a_narrow_terminal_cuts_no_value(swept: Any) -> None:
    lines = [line for line in swept[0].stdout.splitlines() if line.startswith(("0 ", "1 "))]
    assert [line.split()[1] for line in lines] == ["0.001", "0.003"]
    assert "…" not in swept[0].stdout


def test_no_folder_of_a_site_is_in_what_others_can_read_of_a_sweep(swept: Any) -> None:
    sweep = swept[1]
    readable = [path for path in sweep.rglob("*") if path.is_file() and path.stat().st_mode & 0o044]
    assert sweep / "multirun.yaml" in readable
    assert [path for path in readable if b"/private/" in path.read_bytes() and path.name != "log.txt"] == []


def test_the_objective_is_the_main_metric_of_the_final_weights_on_validation_data(swept: Any) -> None:
    run = swept[1] / "0"
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    pooled = [each["metrics"] for each in lines if (each["phase"], each["site"]) == ("validate", "pooled")]
    monitor = json.loads((run / "result.json").read_text())["monitor"]
    assert float(table_of(swept[1])[0][f"validate/pooled/{monitor}"]) == pooled[-1][monitor]


def test_a_run_that_failed_or_validates_on_nothing_has_no_objective(tmp_path: Path) -> None:
    for status in ("failed", "ok"):
        run = write_run(tmp_path / status, rounds=1, validation=False)
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"status": status}))
    assert str(objective(None)) == "nan"


@pytest.mark.slow
def test_an_interrupted_sweep_shows_what_it_has_and_leaves_it_on_disk(tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / "sweep", {"a": {}, "b": {}})
    words = ["-m", "seed=1,2,3", "hydra.sweep.dir=sweep", "federation=none", "trainer.centralized.max_epochs=1"]
    once = {"HANGS_ONCE_THERE_IS": str(tmp_path / "sweep" / "0" / "result.json")}
    assert forked(study, signal.SIGINT, *words, hangs="fit", **once) == 130
    assert [row["status"] for row in table_of(tmp_path / "sweep")] == ["ok", "interrupted"]
    shown = (tmp_path / "out").read_text()
    assert [line for line in shown.splitlines() if line.startswith("run  seed  status")]
    assert (tmp_path / "err").read_text() == ""


def test_what_does_not_fit_a_terminal_is_named_below_the_table(tmp_path: Path) -> None:
    from rich.console import Console

    runs = [write_run(tmp_path / f"{name}", rounds=1) for name in ("first", "second")]
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(compare_table(runs, 60))
    shown = console.export_text()
    assert "accuracy" in shown
    assert "too wide for this terminal: " in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_a_run_whose_process_ended_without_a_word_is_lost(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.write(Note(0, tmp_path / "0", ("seed=1",), process=1, ended=True))
    assert [note.status for note in notes.close()] == ["lost"]
