"""Several runs side by side: what differs, what is the same, and means over seeds."""

import re
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


def test_personal_models_are_compared_by_site_and_with_fine_tuning_at_the_end(tmp_path: Path) -> None:
    def scores(value: float, prefix: str = "") -> dict[str, float]:
        own = {f"{prefix}test/site/{site}/accuracy": value + 0.001 * at for at, site in enumerate(("cleveland", "va"))}
        return own | {f"{prefix}test/pooled/accuracy": value}

    shared = {"metrics": scores(0.7) | scores(0.8, "baseline/fine_tuned/")}
    runs = [
        write_run(tmp_path / "shared", rounds=2, result=shared),
        write_run(tmp_path / "ditto", rounds=2, strategy="ditto.Ditto", result={"metrics": scores(0.75)}),
    ]
    lines = [line.split() for line in compared(runs).splitlines()]
    rows = {" ".join(words).partition(" ok")[0]: words for words in lines if "ok" in words}
    found = {label: [word for word in words if word.startswith("0.")] for label, words in rows.items()}
    assert found == {
        "shared FedAvg": ["0.700", "0.700", "0.701"],
        "shared, fine-tuned FedAvg": ["0.800", "0.800", "0.801"],
        "ditto Ditto": ["0.750", "0.750", "0.751"],
    }
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "comparison.html")]) == 0
    text = (tmp_path / "comparison.html").read_text()
    assert "2 runs compared" in Page(text).text
    assert re.findall(r"<td><b>([\d.]+)</b>", text) == ["0.800", "0.800", "0.801"]  # in green, whichever row it is
    assert "at each site: accuracy" in compared(runs)
    by_site = re.search(r"Test accuracy at each site.*?<table[^>]*>(.*?)</table>", text, re.DOTALL)
    rows = [re.findall(r">([\w., -]+)<", row) for row in by_site[1].split("<tr>")[1:]] if by_site else []
    assert rows[0] == ["site", "shared", "shared, fine-tuned", "ditto"]
    assert ["va", "0.701", "0.801", "0.751"] in rows


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("calibration_slope_binned", (1.4, 0.9), "0.900"), ("index_bias", (-3.0, 0.5), "0.500"),
     ("volume_error_liver", (-9.0, 2.0), "2.000"), ("brier", (0.2, 0.1), "0.100"), ("auroc", (0.7, 0.8), "0.800")],
)  # fmt: skip
def test_the_best_is_the_nearest_where_neither_more_nor_less_is_better(
    metric: str, values: tuple[float, float], best: str, tmp_path: Path
) -> None:
    results = [{"metrics": {f"test/pooled/{metric}": each}} for each in values]
    runs = [write_run(tmp_path / str(at), rounds=1, result=each) for at, each in enumerate(results)]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "comparison.html")]) == 0
    assert re.findall(r"<td><b>([\d.]+)</b>", (tmp_path / "comparison.html").read_text()) == [best]


def test_several_runs_give_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "a", rounds=2), write_run(tmp_path / "b", rounds=2, backend="flower")]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "comparison.html")]) == 0
    assert capsys.readouterr().out.strip().endswith("comparison.html")
    assert "same weights as a" in Page((tmp_path / "comparison.html").read_text()).text
