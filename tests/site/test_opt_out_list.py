"""A site's list of persons who opted out: none of their rows is in an answer, and without the list there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import datamodules.cohort_table
from flip.__main__ import main
from flip.config.opt_out import opted_out
from flip.config.schema import Site as SiteFile
from flip.errors import UserError
from flip.messages import Fault, Reply, Task
from flip.messages.summary import OPTED_OUT, Topic
from flip.site.fingerprint import fingerprint
from flip.site.journal import journal_of
from flip.site.secret import noise_key
from flip.site.silo import Silo
from flip.site.whose import ignores_list
from tests.site.test_disclosure import Site

GONE = [f"p{number}" for number in (3, 11, 12, 20, 25, 40)]


def named(path: Path, persons: list[str]) -> Path:
    path.write_text("".join(f"{each}\n" for each in persons))
    return path


def west(folder: Path, persons: list[str] | None = None, *, without: tuple[str, ...] = ()) -> Site:
    """A site of 42 persons, with a list of some, or without the rows of others."""
    folder.mkdir()
    site = Site(folder, "dataset.batch_size=64")
    table = folder / "cohort.csv"
    table.write_text("".join(x for x in table.read_text().splitlines(keepends=True) if x.split(",")[0] not in without))
    if persons is not None:
        own = replace(site.silo.site, opt_out=str(named(folder / "opt_out.txt", persons)))
        site.silo = Silo("west", own, folder / "home")
    return site


def told(site: Site) -> dict[str, Reply]:
    return {
        "statistics": site.ask("statistics"),
        "fit": site.ask("fit"),
        "test": site.ask("evaluate", split="test"),
    }


def test_what_leaves_is_that_of_a_site_of_which_they_were_deleted(tmp_path):
    ours, theirs = told(west(tmp_path / "list", GONE)), told(west(tmp_path / "deleted", without=tuple(GONE)))
    assert [each.fault for each in ours.values()] == [None] * 3
    for step in ours:
        mine, other = ours[step], theirs[step]
        assert (mine.examples, mine.metrics, mine.withheld) == (other.examples, other.metrics, other.withheld)
        assert all(np.array_equal(mine.weights[name], other.weights[name]) for name in other.weights)
        sums = {topic: named for topic, named in mine.summaries.items() if topic is not Topic.SKIPPED}
        assert sums.keys() == {topic for topic in other.summaries if topic is not Topic.SKIPPED}
        for topic, named_sums in sums.items():
            for name, each in named_sums.items():
                np.testing.assert_array_equal(each.values, other.summaries[topic][name].values)
    assert ours["fit"].weights and ours["statistics"].metrics["persons"] == 36


@pytest.mark.parametrize(("persons", "counted"), [(GONE, {OPTED_OUT: 60}), (GONE[:2], {})])
def test_how_many_are_left_out_is_told_where_they_are_a_minimum_cell(tmp_path, persons, counted):
    skipped = west(tmp_path / "west", persons).ask("statistics").summaries.get(Topic.SKIPPED, {})
    assert {reason: each.values.tolist()[0] for reason, each in skipped.items()} == counted


def test_a_changed_list_is_seen_at_the_next_task_for_what_was_answered_before_too(tmp_path):
    site = west(tmp_path / "west", GONE)
    before = told(site)
    named(tmp_path / "west" / "opt_out.txt", [*GONE, "p1"])
    assert [each.fault for each in told(site).values()] == [Fault.REFUSED_NEAR] * 3  # both would tell of this one
    named(tmp_path / "west" / "opt_out.txt", [*GONE, "p1", "p2", "p4", "p5", "p6"])
    after = told(site)
    assert (before["statistics"].metrics["persons"], after["statistics"].metrics["persons"]) == (36, 31)
    assert any(not np.array_equal(before["fit"].weights[n], after["fit"].weights[n]) for n in before["fit"].weights)
    silo = site.silo
    site.silo = Silo("west", silo.site, silo.home)  # a process that was started since
    again = site.ask("fit")
    assert all(np.array_equal(again.weights[n], after["fit"].weights[n]) for n in again.weights)


def test_a_person_whom_table_and_list_write_as_a_number_with_a_fraction_of_0_is_out(tmp_path, capsys):
    site = west(tmp_path / "west", ["12.0", "13"])
    table = tmp_path / "west" / "cohort.csv"
    table.write_text(
        "".join(
            f"{x[1:].replace(',', '.0,', 1)}" if x[0] == "p" and x[1].isdigit() else x
            for x in table.read_text().splitlines(keepends=True)
        )
    )
    assert site.ask("statistics").metrics["persons"] == 40
    for person, answer in (("12.0", "In no run"), ("14.0", "run  ")):
        assert main(["site", "audit", str(site.silo.home), "--person", person]) == 0
        assert capsys.readouterr().out.startswith(answer)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"\xff\xfe"), lambda p: p.write_text("")])
def test_a_list_that_is_gone_or_cannot_be_read_refuses_everything(tmp_path, spoil):
    site = west(tmp_path / "west", GONE)
    assert site.ask("fit").fault is None
    spoil(tmp_path / "west" / "opt_out.txt")
    assert [reply.fault for reply in told(site).values()] == [Fault.REFUSED_POLICY] * 3
    assert "opt_out: " in (site.silo.home / "site.log").read_text()


def test_a_dataset_that_takes_the_list_and_does_not_keep_to_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datamodules.cohort_table, "without", lambda table, *_, **__: (table, [], (0, 0)))
    site = west(tmp_path / "west", GONE)
    assert site.ask("statistics").fault is Fault.REFUSED_RULE
    assert "CohortTable has rows of 6 persons on the list" in (site.silo.home / "site.log").read_text()


def test_a_dataset_that_takes_no_list_is_refused_by_name():
    site = SiteFile(root="x", opt_out="list.txt")
    other = {"dataset": {"_target_": "torch.utils.data.TensorDataset"}}
    assert "torch.utils.data.TensorDataset takes no list" in ignores_list(other, site)
    assert ignores_list(other, SiteFile(root="x")) == ""
    assert ignores_list({"dataset": {"_target_": "datamodules.cohort_table.CohortTable"}}, site) == ""


def test_the_sites_log_says_how_many_of_the_list_have_no_row(tmp_path):
    site = west(tmp_path / "west", [*GONE, "P3", "0040"])
    site.ask("statistics")
    said = (site.silo.home / "site.log").read_text()
    assert "60 rows of 6 persons are left out; 2 on the list have none here" in said


def test_the_journal_knows_who_stood_in_which_run_and_who_no_longer_does(tmp_path, capsys):
    site = west(tmp_path / "west", GONE)
    site.ask("statistics")
    own = journal_of("west", site.silo.site, site.silo.home)
    assert own.cohorts_of("p1") and not own.cohorts_of("p3")
    for person, answer in (("p1", "run  "), ("p3", "In no run")):
        assert main(["site", "audit", str(site.silo.home), "--person", person]) == 0
        assert capsys.readouterr().out.startswith(answer)


def test_noise_and_fingerprint_are_others_once_the_list_has_changed(tmp_path):
    site = SiteFile(root=str(tmp_path / "data.csv"), opt_out=str(named(tmp_path / "list.txt", ["p1"])))
    (tmp_path / "data.csv").write_text("id\np1\np2\n")
    task = Task("run", "study", 0, "fit", {}, {}, {}, "{}")

    def made() -> tuple[bytes, str]:
        prints = fingerprint("west", site, tmp_path / "home", datamodule=object(), task=task)
        return noise_key("west", site, tmp_path / "home", task, {}), prints["data"]

    first, again = made(), made()
    named(tmp_path / "list.txt", ["p2"])
    later = made()
    assert first == again and first[0] != later[0] and first[1] != later[1]


# The list.


@pytest.mark.parametrize(
    ("text", "persons"),
    [
        ("p1\n\np2", {"p1", "p2"}),
        ("person_id\np1\n", {"p1"}),
        ('\ufeff"p 1"\r\n p2 \r\n', {"p 1", "p2"}),
        ("12.0\n13\n", {"12", "13"}),
    ],
)
def test_a_list_is_one_person_a_line(tmp_path, text, persons):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert opted_out(SiteFile(opt_out=str(tmp_path / "list.csv"))) == persons


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("p1,2024-01-01\n", "line 1, holds more than a person"),
        ("p1\np2;2024\n", "line 2, holds more"),
        ('p1\n"p2\np3\n', "line 2, holds more"),
        ('"p1\np2"\np3\n', "line 1, holds more"),
        ('p1"\n', "line 1, holds more"),
        ("person_id\n", "names nobody"),
        ("", "names nobody"),
    ],
)
def test_a_list_that_could_leave_somebody_in_is_refused(tmp_path, text, why):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        opted_out(SiteFile(opt_out=str(tmp_path / "list.csv")))
