"""A site's journal: every task and what left for it, sealed; what cannot be written down does not leave."""

import errno
import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flip.__main__ import main
from flip.config.schema import Site
from flip.messages import Fault, Reply, Task
from flip.messages.wire import pack_reply, unpack_reply
from flip.site import journal as written
from flip.site.journal import FILE, Behind, Broken, content_of, journal_of
from flip.site.refusal import Refusal
from tests.site.test_gate import RULES, Hospital


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital"))


@pytest.fixture
def hospital(built: Hospital) -> Hospital:
    """A site that was never asked anything."""
    shutil.rmtree(built.silo.home)
    built.open()
    return built


def lines(hospital: Hospital) -> list[dict]:
    return [json.loads(line) for line in (hospital.silo.home / FILE).read_text().splitlines()]


TASK = Task("run", "study", 0, "fit", {}, {}, {}, "{}")


def kept(home: Path, tasks: int = 3) -> tuple[Path, list[str]]:
    """The journal of a site that has answered some tasks, and the heads that left."""
    home.mkdir(exist_ok=True)
    own, heads = journal_of(home.name, Site(), home), list[str]()
    for number in range(tasks):
        task = replace(TASK, round=number)
        own.asked(task)
        reply = Reply(home.name, task.digest)
        heads.append(own.left(task, reply, content_of(reply), Behind(50, own.of_persons(["p1", "p2"]), False)).journal)
    return home / FILE, heads


def entries(path: Path) -> list[dict]:
    return list(journal_of(path.parent.name, Site(), path.parent).entries())


def test_every_task_is_written_down_with_how_it_ended_and_what_left(hospital):
    told = hospital.silo.answer(hospital.task("statistics"))
    hospital.silo.answer(hospital.task("fit"))
    again = hospital.silo.answer(hospital.task("fit"))
    refused = hospital.silo.answer(hospital.task("fit", 99))
    ended = [each for each in lines(hospital) if each["outcome"] != "asked"]
    assert [(each["step"], each["outcome"], each["fault"]) for each in ended] == [
        ("statistics", "answered", None),
        ("fit", "answered", None),
        ("fit", "repeated", None),
        ("fit", "refused", "REFUSED_PROTOCOL"),
    ]
    assert ended[0]["persons"] > ended[1]["persons"] > 0 and ended[2]["persons"] == 0
    assert ended[1]["numbers"]["weights"] == 14 and ended[3]["numbers"] == {}
    assert [(each["bytes"], each["digest"]) for each in ended[1:3]] == [content_of(again)] * 2
    assert (ended[0]["digest"], ended[3]["digest"]) == (content_of(told)[1], content_of(refused)[1])
    assert [each["outcome"] for each in lines(hospital)][::2] == ["asked"] * 4


def test_a_process_that_comes_after_one_that_ended_says_so_to_the_coordinator_the_log_and_the_journal(hospital):
    reply = hospital.silo.ended(hospital.task("fit"), "its process ended (status -9)")
    assert (reply.fault, reply.examples, reply.weights) == (Fault.ENDED, 0, {})
    assert "fit round 1: its process ended (status -9)" in (hospital.silo.home / "site.log").read_text()
    assert [(each["outcome"], each.get("fault")) for each in lines(hospital)] == [("asked", None), ("failed", "ENDED")]
    assert reply.journal == f"2:{lines(hospital)[-1]['seal']}"
    assert hospital.silo.answer(hospital.task("fit")).fault is None


def test_a_task_whose_process_was_ended_stands_there_as_asked(hospital, monkeypatch):
    def ended(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("flip.site.silo.let_in", ended)
    with pytest.raises(SystemExit):
        hospital.silo.answer(hospital.task())
    assert [each["outcome"] for each in lines(hospital)] == ["asked"]


def test_a_reply_carries_the_head_of_the_journal_and_a_kept_one_that_of_now(hospital):
    first, second = (hospital.silo.answer(hospital.task()) for _ in range(2))
    heads = [f"{each['n']}:{each['seal']}" for each in lines(hospital)]
    assert [first.journal, second.journal] == [heads[1], heads[3]]
    assert unpack_reply(pack_reply(second)).journal == second.journal
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)


def test_no_row_and_no_name_of_a_person_is_in_it(hospital):
    hospital.silo.answer(hospital.task("statistics"))
    keys = {"n", "time", "run", "study", "step", "stage", "round", "task", "outcome", "fault", "numbers", "persons",
            "cohort", "bytes", "digest", "seal"}  # fmt: skip
    assert set(lines(hospital)[-1]) == keys


# What can go wrong.


@pytest.mark.parametrize("key", ["time", "run", "persons", "outcome", "cohort"])
def test_an_entry_that_was_changed_is_named(tmp_path, key):
    path, _ = kept(tmp_path / "north")
    texts = path.read_text().splitlines()
    texts[3] = json.dumps({**json.loads(texts[3]), key: "other"})
    path.write_text("\n".join(texts) + "\n")
    with pytest.raises(Broken, match="line 4: is not as it was written"):
        entries(path)


def test_an_entry_that_was_taken_out_is_named(tmp_path):
    path, _ = kept(tmp_path / "north")
    texts = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*texts[:2], *texts[3:]]))
    with pytest.raises(Broken, match="line 3: is numbered 4"):
        entries(path)


def test_a_journal_whose_end_was_changed_refuses_everything(hospital):
    hospital.silo.answer(hospital.task("statistics"))
    path = hospital.silo.home / FILE
    path.write_text(path.read_text().replace("answered", "repeated"))
    refused = hospital.silo.answer(hospital.task("statistics"))
    assert (refused.fault, refused.journal) == (Fault.REFUSED_JOURNAL, "")
    assert "the last line is not as it was written. Put" in (hospital.silo.home / "site.log").read_text()
    path.rename(path.with_name("aside.jsonl"))  # the remedy that the log names
    assert hospital.silo.answer(hospital.task("statistics")).journal.startswith("2:")


def test_a_line_that_a_crash_tore_is_dropped_by_the_next(tmp_path):
    path, _ = kept(tmp_path / "north")
    with path.open("a") as file:
        file.write('{"n": 7, "time"')
    kept(tmp_path / "north", 1)
    assert [each["n"] for each in entries(path)] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("calls", [0, 1])
def test_what_a_full_disk_has_no_line_for_does_not_leave(hospital, monkeypatch, calls):
    write, made = os.write, []

    def full(file: int, content: bytes) -> int:
        if content.startswith(b'{"n"'):
            made.append(1)
            if len(made) > calls:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content)

    monkeypatch.setattr(written.os, "write", full)
    reply = hospital.silo.answer(hospital.task("statistics"))
    assert (reply.fault, dict(reply.summaries), reply.journal) == (Fault.DISK, {}, "")


def test_a_line_that_is_written_in_part_is_taken_back(tmp_path, monkeypatch):
    path, _ = kept(tmp_path / "north", 1)
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(written.os, "write", lambda file, content: write(file, content[:20]))
    with pytest.raises(OSError, match="No space left"):
        kept(tmp_path / "north", 1)
    assert path.read_bytes() == before


def test_a_site_whose_secret_others_can_read_refuses(hospital):
    hospital.silo.answer(hospital.task("statistics"))
    (hospital.silo.home / "secret").chmod(0o644)
    assert hospital.silo.answer(hospital.task("statistics")).fault is Fault.REFUSED_JOURNAL


def _ask(home: Path) -> None:
    kept(home, 50)


def test_two_processes_of_a_site_write_one_chain(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_ask, args=(tmp_path / "north",)) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert [each["n"] for each in entries(tmp_path / "north" / FILE)] == list(range(1, 201))


# `flip site audit`.


def audit(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, str]:
    status = main(["site", "audit", str(path.parent), *arguments])
    return status, capsys.readouterr().out


def test_an_audit_prints_each_task_once_and_says_that_the_journal_is_whole(tmp_path, capsys):
    path, heads = kept(tmp_path / "north")
    status, said = audit(capsys, path, "--head", heads[-1])
    assert status == 0 and f"6 entries, all as they were written. Head: {heads[-1]}" in said
    assert [line.split()[2:8] for line in said.splitlines()[1:4]] == [
        ["run", "fit", "study", str(number), "answered", "50"] for number in range(3)
    ]


def test_an_audit_takes_the_sites_own_file_too(tmp_path, capsys):
    kept(tmp_path / "north")
    (tmp_path / "north.yaml").write_text("root: data.csv\npolicy: {minimum_persons: 50, minimum_cell: 5}\n")
    assert main(["site", "audit", str(tmp_path / "north.yaml")]) == 0


def test_an_audit_names_the_first_broken_entry(tmp_path, capsys):
    path, _ = kept(tmp_path / "north")
    path.write_text(path.read_text().replace('"round": 1', '"round": 7'))
    status, said = audit(capsys, path)
    assert status == 1 and "line 3: is not as it was written" in said and "The 2 entries before it" in said


def test_an_audit_sees_a_tail_that_was_cut_by_a_head_or_by_a_coordinators_run(tmp_path, capsys):
    path, heads = kept(tmp_path / "north")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps({"site": "va", "journal": e}) + "\n" for e in heads))
    assert audit(capsys, path)[0] == 0
    for known in (["--head", heads[-1]], ["--head", str(tmp_path), "--name", "va"]):
        status, said = audit(capsys, path, *known)
        assert status == 1 and "CUT: the journal ends at entry 4, and a reply left with the head of entry 6." in said


def test_an_audit_sees_a_journal_that_was_begun_anew(tmp_path, capsys):
    path, heads = kept(tmp_path / "north")
    path.unlink()
    kept(tmp_path / "north")
    status, said = audit(capsys, path, "--head", heads[0])
    assert status == 1 and "REPLACED: entry 2" in said


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"site": 1, "journal": ""}', '{"site": "north", "journal": "7"}', "null", "\\xff", "[" * 10**5]
)
def test_an_audit_names_a_damaged_line_of_a_coordinators_run(tmp_path, capsys, line):
    path, heads = kept(tmp_path / "north")
    whole = json.dumps({"site": "north", "journal": heads[0]})
    (tmp_path / "rounds.jsonl").write_bytes(f"{whole}\n{line}\n".encode("latin-1"))
    assert main(["site", "audit", str(path.parent), "--head", str(tmp_path)]) == 2
    assert f"line 2 of {tmp_path / 'rounds.jsonl'} is damaged; ask the coordinator" in capsys.readouterr().err
    (tmp_path / "rounds.jsonl").write_text(f'{whole}\n{{"site": "north", "jour')  # a line that is being written
    assert audit(capsys, path, "--head", str(tmp_path))[0] == 0


def test_rows_that_are_pooled_without_federation_are_told_of_with_their_persons_and_what_was_refused_too(hospital):
    hospital.silo.datamodule(hospital.task("fit"))
    hospital.policy(RULES | {"minimum_persons": 5000})
    with pytest.raises(Refusal):
        hospital.silo.datamodule(hospital.task("fit"))
    ended = [each for each in lines(hospital) if each["outcome"] != "asked"]
    assert [(each["step"], each["outcome"], each["fault"]) for each in ended] == [
        ("fit", "answered", None),
        ("fit", "refused", "REFUSED_COHORT"),
    ]
    assert ended[0]["persons"] > 0 and ended[0]["numbers"] == {}


def test_an_audit_says_in_which_runs_a_persons_rows_stood(tmp_path, capsys):
    path, _ = kept(tmp_path / "north")
    status, said = audit(capsys, path, "--person", "p2")
    assert status == 0 and [line.split()[0] for line in said.splitlines()[:2]] == ["run", "run"]
    assert "In no run" in audit(capsys, path, "--person", "p3")[1]
    assert "p2" not in "".join(each.read_text() for each in (path.parent / "persons").iterdir()) + path.read_text()


def test_an_audit_names_a_run_that_got_what_had_left_before_too(tmp_path, capsys):
    path, _ = kept(tmp_path / "north", tasks=1)
    own, task = journal_of("north", Site(), path.parent), replace(TASK, run="later")
    reply = Reply("north", task.digest)
    own.left(task, reply, content_of(reply), Behind(50, own.of_persons(["p1", "p2"]), True))
    said = audit(capsys, path, "--person", "p2")[1]
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["run", "later"]


def test_an_audit_sees_that_a_list_of_persons_was_changed(tmp_path, capsys):
    path, _ = kept(tmp_path / "north")
    listed = next((path.parent / "persons").iterdir())
    listed.write_text(listed.read_text().splitlines()[0] + "\n")
    assert audit(capsys, path, "--person", "p2")[0] == 1


def test_an_audit_makes_no_secret(tmp_path, capsys):
    path, _ = kept(tmp_path / "north")
    (path.parent / "secret").unlink()
    assert main(["site", "audit", str(path.parent)]) == 2
    assert "is not there, and the journal is sealed by it" in capsys.readouterr().err
    assert not (path.parent / "secret").exists()
