"""A swept value without effect is named: runs that ended with the same weights."""

import json
from pathlib import Path

from flip.cli.sweep_notes import Note
from flip.cli.sweep_same import without_effect


def note(folder: Path, number: int, digest: str | None, *overrides: str) -> Note:
    run = folder / str(number)
    run.mkdir()
    (run / "result.json").write_text(json.dumps({"status": "ok", "digest": digest}))
    return Note(number, run, overrides, process=1, ended=True)


def test_runs_with_equal_digests_are_named_with_what_differs(tmp_path):
    known = [
        note(tmp_path, 0, "a" * 64, "seed=1", "strategy.mu=0.1"),
        note(tmp_path, 1, "a" * 64, "seed=1", "strategy.mu=0.2"),
        note(tmp_path, 2, "b" * 64, "seed=2", "strategy.mu=0.1"),
    ]
    (said,) = without_effect(known)
    assert (
        said == "[0], [1] have the same weights (digest aaaaaaaaaaaa): without effect on them is strategy.mu=0.1, 0.2"
    )


def test_each_group_is_named_by_itself_and_every_key(tmp_path):
    known = [note(tmp_path, n, "ab"[n % 2] * 64, f"seed={n % 2}", f"x={n}", "+y=1") for n in range(4)]
    assert [said.partition(" have")[0] for said in without_effect(known)] == ["[0], [2]", "[1], [3]"]
    assert all("seed" not in said and "x=" in said and "y=" not in said for said in without_effect(known))


def test_runs_without_weights_or_with_their_own_are_not_named(tmp_path):
    known = [note(tmp_path, 0, None, "seed=1"), note(tmp_path, 1, None, "seed=2"), note(tmp_path, 2, "a", "seed=3")]
    assert list(without_effect(known)) == []
