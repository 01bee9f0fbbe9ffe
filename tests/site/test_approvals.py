"""Persons at a site approve a study before its first task: what they have not signed, as it is, runs nowhere."""

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.config.approvers import Approvers
from flip.config.envelope import Envelope, data_of
from flip.config.free_keys import read_free
from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.site import approvals
from flip.site.approvals import Approval, Approvals, revoke
from tests.site.test_gate import RULES, Hospital
from tests.studies import tiny_heart_study

PERSONS = {name: Ed25519PrivateKey.from_private_bytes(bytes([place]) * 32) for place, name in enumerate(("ada", "bob"))}
STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
LAST = "2099-12-31"
SWEEP = ("seed: any", "model.optimizer.lr: [1e-4, 1e-1]", "strategy: [fedavg, fedprox]")


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


KEYS = {name: public(key) for name, key in PERSONS.items()}


class Approving(Hospital):
    """A deployed site whose file asks for approval."""

    def asks(self, needed: int = 1, **rules: object) -> None:
        self.policy(RULES | {"approval": {"keys": KEYS, "needed": needed}} | rules)
        self.open()

    @property
    def places(self) -> Approvals:
        place = self.silo.place.now()
        return Approvals(place.name, place.site, place.home)

    def envelope(self, *free: str, **terms: Any) -> Envelope:
        manifest = json.loads(self.study.manifest_text)
        stated = {"runs": 9, "reason": "trial", "ethics": "IRB 7", "expires": LAST, "site": "cleveland"} | terms
        stated = {"data": data_of(self.places.site), "manifest": manifest, "free": read_free(manifest, free)} | stated
        return Envelope(**stated)

    def approve(self, *names: str, **terms: Any) -> Path:
        approval = Approval(self.envelope(**terms), [])
        for name in names:
            approval = approval.signed(name, PERSONS[name])
        return self.places.keep(approval)

    def fault(self, **task: Any) -> Fault | None:
        return self.silo.answer(self.task("statistics", **task)).fault


@pytest.fixture
def hospital(tmp_path: Path) -> Approving:
    made = Approving(tmp_path)
    made.asks()
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The studies for which data were read."""
    seen: list[str] = []
    from flip.site import silo

    admit = silo.admit

    def noted(accepted: Any, place: Any) -> Any:
        seen.append(accepted.digest)
        return admit(accepted, place)

    monkeypatch.setattr(silo, "admit", noted)
    return seen


def log(hospital: Approving) -> str:
    return "".join(path.read_text() for path in (hospital.folder / "home").rglob("*.log"))


# Without an approval nothing runs.


def test_a_study_that_nobody_has_approved_is_refused_before_data_are_read(hospital, read):
    assert (hospital.fault(), read) == (Fault.REFUSED_APPROVAL, [])
    assert "no approval lies in" in log(hospital)
    hospital.approve("ada")
    assert (hospital.fault(), len(read)) == (None, 1)


def test_a_hospital_whose_file_does_not_say_who_may_approve_refuses_every_study(hospital):
    hospital.approve("ada")
    hospital.policy({key: value for key, value in RULES.items() if key != "approval"})
    assert hospital.fault() is Fault.REFUSED_APPROVAL
    hospital.policy(RULES | {"approval": "none"})
    assert hospital.fault() is None


def test_a_simulated_site_needs_none_unless_its_file_says_so():
    two = {"minimum_persons": 2, "minimum_cell": 2}
    assert Policy.read("va", "public_data").approval is None
    assert Policy.read("va", two).approval is None
    stated = Policy.read("va", two | {"approval": {"keys": {"ada": KEYS["ada"]}}}).approval
    assert stated and stated.needed == 1


def tampered(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def linked(hospital: Approving) -> None:
    path = hospital.approve("ada")
    path.rename(hospital.folder / "elsewhere.json")
    path.symlink_to(hospital.folder / "elsewhere.json")


def folder_linked(hospital: Approving) -> None:
    folder = hospital.approve("ada").parent
    folder.rename(hospital.folder / "elsewhere")
    folder.symlink_to(hospital.folder / "elsewhere")


def stranger(hospital: Approving, name: str) -> None:
    hospital.places.keep(Approval(hospital.envelope(), []).signed(name, STRANGER))


def borrowed(hospital: Approving) -> None:
    """A signature of another envelope of the same person."""
    one = Approval(hospital.envelope(), []).signed("ada", PERSONS["ada"])
    hospital.places.keep(Approval(hospital.envelope(runs=99), one.signatures))


def copied_back(hospital: Approving) -> None:
    path = hospital.approve("ada")
    text = path.read_text()
    revoke(path, Approval.parse(text).envelope)
    path.unlink()
    path.with_name("again.json").write_text(text)


def other_manifest(**changes: object) -> Callable[[Approving], object]:
    return lambda h: h.approve("ada", manifest={**json.loads(h.study.manifest_text), **changes})


NOTHING: dict[str, Callable[[Approving], object]] = {
    "no signature": lambda h: h.approve(),
    "a day too late": lambda h: h.approve("ada", expires="2020-01-01"),
    "more runs than were signed": lambda h: tampered(
        h.approve("ada"), lambda each: each["envelope"].update(runs=10**6)
    ),
    "a later end than was signed": lambda h: tampered(
        h.approve("ada", expires="2020-01-01"), lambda each: each["envelope"].update(expires=LAST)
    ),
    "a free key that was not signed": lambda h: tampered(
        h.approve("ada"), lambda each: each["envelope"]["free"].update(seed="any")
    ),
    "another name below a signature": lambda h: tampered(
        h.approve("ada"), lambda each: each["signatures"][0].update(name="bob")
    ),
    "a key that the file does not list": lambda h: stranger(h, "eve"),
    "a key under a listed name": lambda h: stranger(h, "ada"),
    "a signature of another envelope": borrowed,
    "another site's": lambda h: h.approve("ada", site="va"),
    "other data": lambda h: h.approve("ada", data="0" * 64),
    "another study's": other_manifest(name="other"),
    "of older code": other_manifest(code="0" * 64),
    "a link": linked,
    "a linked folder": folder_linked,
    "revoked, and copied back": copied_back,
    "no JSON": lambda h: h.approve("ada").write_text("{"),
    "no approval": lambda h: h.approve("ada").write_text('{"envelope": {}, "signatures": [{"name": 3}]}'),
    "of no study": lambda h: tampered(
        h.approve("ada", free={"strategy": {"one_of": [{}]}}, manifest={"strategy": {}}),
        lambda each: each["envelope"]["manifest"].pop("strategy"),
    ),
    "signatures that are none": lambda h: tampered(
        h.approve("ada"), lambda each: each.update(signatures=[{"name": ["ada"], "signed": 1, "signature": "%"}])
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_approval_of_this_study_here_and_now_does_nothing(hospital, name):
    NOTHING[name](hospital)
    assert hospital.fault() is Fault.REFUSED_APPROVAL


def test_two_signatures_are_of_two_persons(hospital):
    hospital.asks(needed=2)
    hospital.approve("ada", "ada")
    assert hospital.fault() is Fault.REFUSED_APPROVAL
    assert "1 of 2 signatures" in log(hospital)
    hospital.approve("ada", "bob")
    assert hospital.fault() is None


# For how long, and how often.


def test_one_that_is_revoked_or_no_longer_listed_holds_for_no_further_task_even_one_answered_before(hospital):
    path = hospital.approve("ada")
    assert hospital.fault() is None
    hospital.policy(RULES | {"approval": {"keys": {"bob": KEYS["bob"]}}})
    assert hospital.fault() is Fault.REFUSED_APPROVAL
    hospital.asks()
    assert hospital.fault() is None
    revoke(path, Approval.parse(path.read_text()).envelope)
    assert hospital.fault() is Fault.REFUSED_APPROVAL


def test_it_holds_to_the_end_of_its_last_day(hospital, monkeypatch):
    hospital.approve("ada", expires="2030-05-31")
    for day, fault in ((date(2030, 5, 31), None), (date(2030, 6, 1), Fault.REFUSED_APPROVAL)):
        monkeypatch.setattr(approvals, "today", lambda day=day: day)
        assert hospital.fault() is fault


def test_no_more_runs_than_were_approved_whenever_the_site_is_started(hospital):
    hospital.approve("ada", runs=2)
    assert [hospital.fault(run=each) for each in ("one", "one", "two")] == [None] * 3
    hospital.open()
    assert [hospital.fault(run=each) for each in ("three", "two")] == [Fault.REFUSED_APPROVAL, None]
    assert "its 2 runs have been made" in log(hospital)
    hospital.approve("ada", runs=2, reason="two more")
    assert hospital.fault(run="three") is None


def test_studies_of_a_sweep_under_one_identifier_are_a_run_each(hospital):
    hospital.approve("ada", runs=2, free={"seed": "any"})
    text = hospital.study.manifest_text
    swept = [json.dumps(json.loads(text) | {"seed": n}, sort_keys=True, separators=(",", ":")) for n in (7, 8)]
    told = []
    for each in (text, *swept, swept[0]):
        hospital.study = replace(hospital.study, manifest_text=each)
        told.append(hospital.fault(run="one"))
    assert told == [None, None, Fault.REFUSED_APPROVAL, None]


# The envelope: every byte but those of the free keys.


def leaves(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, each in pairs for leaf in leaves(each, (*path, key))]
    return [path]


def test_no_value_outside_of_the_free_keys_may_be_another_nor_be_added_or_left_out(hospital):
    envelope = hospital.envelope(*SWEEP)
    free = {("seed",), ("model", "optimizer", "lr")}
    text = hospital.study.manifest_text
    assert envelope.uncovered(text) == ""
    for path in leaves(json.loads(text)):
        for change in (lambda owner, key: owner.__setitem__(key, [0.5]), lambda owner, key: owner.pop(key)):
            manifest = owner = json.loads(text)
            for key in path[:-1]:
                owner = owner[key]
            change(owner, path[-1])
            assert envelope.uncovered(written(manifest)), path
            if isinstance(owner, dict) and path not in free:
                assert envelope.uncovered(written({**manifest, f"{path[-1]}x": 1})), path


def written(manifest: object) -> str:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("change", ['{{"seed":1,{0}', " {{{0}", '{{"model.optimizer.lr":0.01,{0}', "{{{0} "])
def test_the_same_study_written_otherwise_is_not_the_approved_one(hospital, change):
    text = change.format(hospital.study.manifest_text[1:])
    assert hospital.envelope(*SWEEP).uncovered(text)


COVERED = (
    ["seed=7"],
    ["model.optimizer.lr=0.1", "seed=1"],
    ["strategy=fedprox", "model.optimizer.lr=0.0001", "seed=2"],
)
BEYOND = {
    "a larger step": (["model.optimizer.lr=0.11"], "model.optimizer.lr: beyond what is free"),
    "a third strategy": (["strategy=fedyogi"], "strategy._target_"),
    "another pull": (["strategy=fedprox", "strategy.mu=1.0"], "strategy.mu"),
    "more rounds": (["strategy.rounds=4"], "strategy.rounds"),
    "more rounds of the other": (["strategy=fedprox", "strategy.rounds=4"], "strategy.rounds"),
    "weights of sites": (["strategy.site_weights={cleveland: 9, va: 1}"], "strategy.site_weights"),
    "smaller batches": (["dataset.batch_size=2"], "dataset.batch_size"),
    "another split": (["dataset.split.seed=7"], "dataset.split.seed"),
    "another column of persons": (["dataset.person=sex"], "dataset.person"),
    "more steps": (["trainer.steps=50"], "trainer.steps"),
    "another optimizer": (["model.optimizer._target_=torch.optim.Adam"], "model.optimizer._target_"),
    "a mechanism": (["privacy=dp_sgd"], "mechanisms"),
}


@pytest.mark.slow
def test_a_sweep_is_approved_once_and_lets_its_variants_through_and_nothing_else(hospital):
    data = hospital.folder / "data"
    envelope, own = hospital.envelope(*SWEEP), hospital.study
    hospital.places.keep(Approval(envelope, []).signed("ada", PERSONS["ada"]))
    for words in COVERED:
        hospital.study = tiny_heart_study(data, *words)
        assert hospital.fault(run=str(words)) is None, words
    for words, key in BEYOND.values():
        hospital.study = tiny_heart_study(data, *words)
        assert hospital.fault(run=str(words)) is Fault.REFUSED_APPROVAL
        assert key in envelope.uncovered(hospital.study.manifest_text), words
    hospital.study = own
    assert hospital.fault() is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dataset.batch_size: [1, 8]", "cannot be free"),
        ("dataset.split.seed: any", "cannot be free"),
        ("strategy.rounds: [1, 500]", "cannot be free"),
        ("code: any", "cannot be free"),
        ("model.features: [1, 99]", "cannot be free"),
        ("model.optimizer._target_: [torch.optim.Adam]", "cannot be free"),
        ("strategy: any", "of strategy, their names"),
        ("strategy: [fedavgg]", "did you mean 'fedavg'?"),
        ("strategy.mu: [0, 1]", "has no number or text of this name"),
        ("model.optimizer.lr: [1, 0.1]", "the least is above the most"),
        ("model.optimizer.lr: 0.1", "must be any"),
        ("seed", "must be any"),
        ("seed: [1, {", "--free 'seed: [1, {'"),
    ],
)
def test_a_free_key_that_cannot_be_one_is_named(hospital, word, said):
    with pytest.raises(UserError, match="--free") as error:
        read_free(json.loads(hospital.study.manifest_text), [word])
    assert said in str(error.value)


def test_no_signature_frees_what_an_approval_cannot(hospital):
    unfit = replace(hospital.envelope(), free={"dataset.batch_size": "any"})
    hospital.places.keep(Approval(unfit, []).signed("ada", PERSONS["ada"]))
    assert hospital.fault() is Fault.REFUSED_APPROVAL
    assert "cannot be free" in log(hospital)


# Nobody elsewhere.


@pytest.mark.parametrize("key", ["approval", "approvals", "policy"])
def test_an_approval_that_comes_with_a_study_does_nothing(hospital, key):
    approval = Approval(hospital.envelope(), []).signed("ada", PERSONS["ada"])
    manifest = {**json.loads(hospital.study.manifest_text), key: json.loads(approval.text)}
    task = hospital.task("statistics")
    for asked in (replace(task, manifest=written(manifest)), replace(task, manifest=approval.text)):
        assert hospital.silo.answer(asked).fault is Fault.REFUSED_APPROVAL
    told = Task(**{**vars_of(task), "params": {key: approval.text}})
    assert hospital.silo.answer(told).fault is Fault.REFUSED_PROTOCOL


def vars_of(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "or be none for no approval"),
        ("ada", "or be none for no approval"),
        ({"keys": {}}, "must name at least one person"),
        ({"keys": {"ada": "AAAA"}}, "approval.keys.ada: is no public key"),
        ({"keys": {"ada": KEYS["ada"] + "\n"}}, "approval.keys.ada: is no public key"),
        ({"keys": {"ada": KEYS["ada"], "eve": KEYS["ada"]}}, "two names have the same key"),
        ({"keys": KEYS, "needed": 3}, "must be 1 or 2 signatures"),
        ({"keys": KEYS, "needed": True}, "must be 1 or 2 signatures"),
        ({"keys": KEYS, "needed": 1.0}, "must be 1 or 2 signatures"),
        ({"keys": {"ada": KEYS["ada"]}, "needed": 2}, "is more than the persons in keys"),
        ({"keys": KEYS, "need": 2}, "approval.need: no such rule; did you mean 'needed'?"),
    ],
)
def test_a_rule_on_approval_that_is_misspelt_is_named(value, said):
    with pytest.raises(UserError) as error:
        Policy.read("kings", RULES | {"approval": value}, deployed=True)
    assert said in str(error.value)


def test_another_list_of_who_opted_out_lapses_it(hospital: Approving, tmp_path: Path) -> None:
    listed = tmp_path / "opted_out.txt"
    listed.write_text("7\n")
    places = replace(hospital.places, site=replace(hospital.places.site, opt_out=str(listed)))
    approval = Approval(hospital.envelope(data=data_of(places.site)), []).signed("ada", PERSONS["ada"])
    assert places.invalid(approval, Approvers(KEYS)) == ""
    listed.write_text("7\n8\n")
    assert "opt_out" in places.invalid(approval, Approvers(KEYS))


def test_a_folder_in_a_files_place_is_not_held_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="is no file"):
        approvals.read_file(tmp_path)
    assert os.listdir("/proc/self/fd") == before
