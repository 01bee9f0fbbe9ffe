"""A run that is run again says what differs: the first thing in the order in which one would look for it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flip.config.site_file import load_site
from flip.coordinator.check_replies import Wanted, checked
from flip.messages import Fault, Reply, Task
from flip.numerics import chosen_outside
from flip.report.command import report
from flip.runs.folder import RunFolder
from flip.runs.identity import difference
from flip.runs.rerun import run_files
from flip.site.fingerprint import WHOLE, contents
from tests.cohorts.heart import write_tiny_heart
from tests.commands import Finished, flip
from tests.studies import SMALL_HEART, compose_study


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small federated run."""
    place = tmp_path_factory.mktemp("begun")
    data = write_tiny_heart(place / "data")
    ran = flip(place, "experiment=heart_disease", "federation=inprocess", *SMALL_HEART, FLIP_DATA_DIR=str(data))
    assert ran.status == 0, ran.err
    return ran


@pytest.fixture
def run(begun: Finished, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(begun.runs[0], tmp_path / "run")


def changed(path: Path, change: Callable[[dict], None]) -> None:
    """Rewrite a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_same_run_is_identical_and_its_rounds_digests_are_kept(begun, run):
    assert difference(begun.runs[0], run) == "identical"
    kept = RunFolder(run, []).digests()
    assert len(kept) == 3
    assert kept[-1] == begun.result["digest"]


DIFFERENCES = {
    "study": ("run.yaml", "trainer.steps is 6, was 5"),
    "sites": ("cohort.json", "va is only tested on"),
    "code": ("provenance.json", "sha256 is 000000000000"),
    "versions": ("provenance.json", "torch is 9.9"),
    "processor": ("provenance.json", "threads is 8"),
    "data": ("cohort.json", "va is 111111111111"),
}


@pytest.mark.parametrize("part", DIFFERENCES)
def test_each_part_is_named_with_both_values_and_an_earlier_one_first(part, begun, run):
    """Every part from this one on is another; this one is named."""
    parts = list(DIFFERENCES)
    later = parts[parts.index(part) :]
    if "study" in later:
        text = (run / "run.yaml").read_text()
        (run / "run.yaml").write_text(text.replace("steps: 5", "steps: 6"))
    for name, change in {
        "sites": lambda each: each["va"].update(trains=False),
        "data": lambda each: each["va"]["fingerprint"].update(data="1" * 64),
    }.items():
        if name in later:
            changed(run / "cohort.json", change)
    for name, change in {
        "code": lambda each: each.update(code_sha256="0" * 64),
        "versions": lambda each: each["versions"].update(torch="9.9"),
        "processor": lambda each: each["hardware"].update(threads=8),
    }.items():
        if name in later:
            changed(run / "provenance.json", change)
    told = difference(begun.runs[0], run)
    if part == "sites":
        assert told.startswith("differs in sites: va is only tested on, own file")
    else:
        assert told.startswith(f"differs in {part}: {DIFFERENCES[part][1]}")
    assert told.endswith("; the same weights")


@pytest.mark.slow
def test_one_edited_test_row_is_named_by_its_site_under_the_same_weights(begun, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(begun.folder / "data", data)
    path = data / "uci_heart" / "processed.va.data"
    test_row = path.read_text().splitlines()
    path.write_text("\n".join([*test_row[:-1], test_row[-1].replace(",0", ",1", 1)]) + "\n")
    ran = flip(tmp_path, "--config-dir", str(begun.runs[0]), "--config-name", "run", FLIP_DATA_DIR=str(data))
    assert ran.status == 0, ran.err
    assert "rerun   differs in data: va is " in ran.out


@pytest.mark.slow
def test_a_run_moves_and_a_rerun_writes_where_it_is_started_and_says_identical(begun, tmp_path):
    """Elsewhere, with the data and the run in other places, over other roots of the environment."""
    shutil.copytree(begun.folder / "data", tmp_path / "elsewhere")
    moved = shutil.copytree(begun.runs[0], tmp_path / "moved")
    (place := tmp_path / "place").mkdir()
    hidden = begun.folder / "data"
    hidden.rename(begun.folder / "gone")
    try:
        ran = flip(place, "--config-dir", str(moved), "--config-name", "run", FLIP_DATA_DIR=str(tmp_path / "elsewhere"))
    finally:
        (begun.folder / "gone").rename(hidden)
    assert ran.status == 0, ran.out + ran.err
    assert "rerun   identical" in ran.out
    assert len(ran.runs) == 1  # below `runs` of the folder where it was started


def test_an_environment_in_which_libraries_choose_other_code_is_named(begun, run, monkeypatch):
    before = chosen_outside()  # of the machine that the tests run on
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert chosen_outside() == before | {"ATEN_CPU_CAPABILITY": "default"}
    changed(run / "provenance.json", lambda each: each.update(environment=chosen_outside()))
    told = difference(begun.runs[0], run)
    assert told == "differs in processor: ATEN_CPU_CAPABILITY is default, was none; the same weights"


def test_the_report_of_two_runs_says_it_too(begun, run, tmp_path, capsys):
    changed(run / "cohort.json", lambda each: each["va"]["fingerprint"].update(data="1" * 64))
    assert report([str(begun.runs[0]), str(run), "--out", str(tmp_path / "both.html")]) == 0
    assert "differs in data: va is 111111111111" in capsys.readouterr().out


def test_the_first_round_with_other_weights_is_named(begun, run, monkeypatch):
    digests = RunFolder(run, []).digests()
    monkeypatch.setattr(RunFolder, "digests", lambda self: [digests[0], "other"] if self.folder == run else digests[:2])
    assert difference(begun.runs[0], run) == "other weights from round 2"


def test_another_metric_under_the_same_weights_is_named(begun, run):
    changed(run / "result.json", lambda each: each["metrics"].update({"test/pooled/accuracy": 0.5}))
    assert difference(begun.runs[0], run).startswith("the same weights; test/pooled/accuracy is 0.5, was ")


# What a site tells of its data


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "table.csv").write_text("age\n41\n"),
        lambda root: (root / "table.csv").rename(root / "other.csv"),
        lambda root: (root / "new.csv").write_text(""),
        lambda root: (root / "large").write_bytes(bytes(WHOLE + 4) + b"1"),
    ],
)
def test_other_contents_names_or_files_have_another_digest_and_moved_ones_the_same(change, tmp_path):
    root = tmp_path / "one"
    root.mkdir()
    (root / "table.csv").write_text("age\n40\n")
    (root / "large").write_bytes(bytes(WHOLE + 5))
    moved = shutil.copytree(root, tmp_path / "two")
    before = contents(root)
    assert contents(moved) == before
    change(root)
    assert contents(root) != before


def test_a_digest_is_under_the_sites_secret(begun):
    cohort = json.loads((begun.runs[0] / "cohort.json").read_text())
    plain = contents(begun.folder / "data" / "uci_heart" / "processed.va.data")
    assert cohort["va"]["fingerprint"]["data"] != plain
    assert len({told["fingerprint"]["file"] for told in cohort.values()}) == 4


@pytest.mark.parametrize("told", [{"data": "a person"}, {"name": "0" * 64}, {"data": 5}, ["data"], {"data": "0" * 63}])
def test_a_reply_whose_fingerprint_is_none_is_invalid(told):
    task = Task("run", "study", 0, "statistics", {}, {}, {}, "{}")
    reply = replace(Reply("va", task.digest), fingerprint=told)
    assert checked(reply, task, Wanted({}, {}, frozenset(), {}, {})).fault is Fault.INVALID


# What a run is run again from


@pytest.mark.slow
def test_sites_on_the_command_line_win(begun, tmp_path):
    data = str(begun.folder / "data")
    ran = flip(tmp_path, "--config-dir", str(begun.runs[0]), "--config-name", "run", "sites=[cleveland,va]",
               "strategy.rounds=1", FLIP_DATA_DIR=data)  # fmt: skip
    assert ran.status == 0, ran.out + ran.err
    assert "rerun   differs in study: strategy.rounds is 1, was 3; other weights from round 1" in ran.out
    assert set(json.loads((ran.runs[0] / "cohort.json").read_text())) == {"cleveland", "va"}


@pytest.mark.parametrize(
    ("typed", "environment", "root"),
    [
        (None, "one", "one/uci_heart"),  # FLIP_DATA_DIR decides, at the rerun too
        (None, "two", "two/uci_heart"),
        ("one", "two", "one/uci_heart"),  # a folder that was typed stays the run's
    ],
)
def test_where_a_rerun_looks_for_the_cohort(typed, environment, root, tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_tiny_heart(tmp_path / name)
    monkeypatch.setenv("FLIP_DATA_DIR", str(tmp_path / "one"))
    given = [f"paths.data_dir={tmp_path / typed}"] if typed else []
    files = run_files(compose_study("experiment=heart_disease", *given))
    for name, text in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    monkeypatch.setenv("FLIP_DATA_DIR", str(tmp_path / environment))
    again = compose_study(config_name="run", config_dir=tmp_path / "run")
    assert Path(again.sites["va"].root).parent == tmp_path / root
    assert load_site(tmp_path / "run" / "sites" / "va.yaml") == again.sites["va"]
    elsewhere = compose_study(f"paths.data_dir={tmp_path / 'two'}", config_name="run", config_dir=tmp_path / "run")
    assert Path(elsewhere.sites["va"].root).parent == tmp_path / "two/uci_heart"
    assert str(tmp_path) not in files["run.yaml"]


@pytest.mark.parametrize("folder", ["with blanks", "it's", "a,b", "{x}"])
def test_any_name_of_a_folder_comes_back(folder, tmp_path, monkeypatch):
    write_tiny_heart(tmp_path / folder)
    monkeypatch.setenv("FLIP_DATA_DIR", str(tmp_path / folder))
    for name, text in run_files(compose_study("experiment=heart_disease")).items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    monkeypatch.delenv("FLIP_DATA_DIR")
    again = compose_study(config_name="run", config_dir=tmp_path / "run")
    assert Path(again.sites["va"].root).parent == tmp_path / folder / "uci_heart"
