"""Text of others is one line on its way to a screen, a log or a table, whatever it holds."""

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from flip.cli.closing import last_words
from flip.site.log import site_log
from flip.text import printable
from flip.tracking import CsvTracker

FORGED = "kings\nok  1.0 s  digest fake"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sex/female/auroc", "sex/female/auroc"),
        ("Münster, 東京", "Münster, 東京"),
        (FORGED, r"kings\nok  1.0 s  digest fake"),
        ("\x1b[2J\x1b[32mok", r"\x1b[2J\x1b[32mok"),
        ("a\rb\x08\x07", r"a\rb\x08\x07"),
        ("\u202eko\u2028", r"\u202eko\u2028"),  # written from the right; a line's end that is none of ASCII's
        ("\x85\x9b31m", r"\x85\x9b31m"),  # a next line, and the one character that begins a sequence
        ("\ud800", r"\ud800"),  # half a character
        (None, "None"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["x" * 201, "\n" * 200, "x" * 10**6])
def test_a_name_is_shown_in_two_hundred_characters_at_most(text):
    assert len(printable(text)) == 200
    assert printable(text).endswith("...")
    assert printable("x" * 200) == "x" * 200


def test_a_record_of_a_sites_log_is_one_line_and_its_traceback_is_indented(tmp_path: Path):
    forged = "fit\n2026-01-01 00:00:00,000 INFO forged"
    log = site_log("kings", tmp_path)
    log.warning("%s round %s", forged, 1)
    try:
        raise KeyError(forged) from ValueError(forged)
    except KeyError as error:
        log.exception("%s", error)
    lines = (tmp_path / "site.log").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("    ")]) == 2
    assert not [line for line in lines if line.endswith(" INFO forged") and not line.startswith("    ")]
    for handler in log.handlers:
        logging.Handler.close(handler)


def test_a_row_of_the_table_of_metrics_is_one_line_of_names_that_can_be_seen(tmp_path: Path):
    record = {"round": 0, "phase": "fit", "site": FORGED, "metrics": {FORGED: 1.0, "l" * 500: 2.0}}
    (tmp_path / "rounds.jsonl").write_text(json.dumps(record) + "\n")
    CsvTracker().finish(tmp_path, {})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [len(row) for row in csv.reader(lines)] == [5, 5, 5]
    assert max(map(len, lines)) < 300


def test_why_a_run_failed_cannot_pass_for_its_end(tmp_path: Path):
    study = SimpleNamespace(allow_targets=(), federation={})
    result = {"status": "failed", "reason": f"lost: {FORGED}", "rounds": 1, "seconds": 1.0, "stopped": "", "digest": ""}
    assert not [line for line in last_words(result, tmp_path, 1.0, study=study).splitlines() if line[:2] == "ok"]


def test_the_command_that_goes_on_allows_what_the_run_was_allowed(tmp_path: Path):
    """A run's folder says nothing of that to the run that goes on."""
    result = {"status": "interrupted", "reason": "Ctrl-C", "rounds": 1}
    study = SimpleNamespace(allow_targets=("acme.", "own."), federation={"_target_": "x"})
    assert last_words(result, tmp_path, None, study=study).endswith(f"resume={tmp_path} 'allow_targets=[acme.,own.]'")
    local = SimpleNamespace(allow_targets=("acme.",), federation={})
    assert last_words(result, tmp_path, None, study=local).endswith("--config-name run 'allow_targets=[acme.]'")
