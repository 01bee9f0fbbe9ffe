"""Several runs side by side: what differs, what is the same, and means over seeds."""

from pathlib import Path

import pytest
from rich.console import Console

from flip.__main__ import main
from flip.report.compare import compare_table
from tests.report.fixture import Page, write_run


def compared(runs: list[Path]) -> str:
    console = Console(width=220, color_system=None)
    with console.capture() as capture:
        console.print(compare_table(runs))
    return capture.get()


def test_a_comparison_shows_only_the_settings_that_differ(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", rounds=2), write_run(tmp_path / "b", rounds=3, strategy="fedprox.FedProx")]
    head = "".join(compared(runs).splitlines()[:2])
    assert "rounds" in head
    assert "strategy" in head
    assert "seed" not in head
    assert "dataset" not in head


def test_a_comparison_flags_the_same_weights(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", rounds=2), write_run(tmp_path / "b", rounds=2, backend="flower")]
    assert "= a" in compared(runs)


def test_a_comparison_means_over_seeds(tmp_path: Path) -> None:
    scores = {1: 0.70, 2: 0.74}
    runs = [
        write_run(tmp_path / str(s), rounds=1, seed=s, result={"metrics": {"test/pooled/accuracy": score}})
        for s, score in scores.items()
    ]
    shown = compared(runs)
    assert "0.720" in shown
    assert "±0.028" in shown
    assert "2 seeds" in shown


def test_several_runs_give_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "a", rounds=2), write_run(tmp_path / "b", rounds=2, backend="flower")]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "comparison.html")]) == 0
    assert capsys.readouterr().out.strip().endswith("comparison.html")
    assert "same weights as a" in Page((tmp_path / "comparison.html").read_text()).text
