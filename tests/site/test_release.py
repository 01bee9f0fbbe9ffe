"""What a site's file holds back waits there, computed and kept, until a listed person releases or refuses it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from flip.__main__ import main
from flip.cli.execute import execute
from flip.config.policy import Policy
from flip.config.site_file import load_site
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.site.journal import journal_of
from flip.site.refusal import Refusal
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.site.test_approvals import KEYS, PERSONS, STRANGER
from tests.site.test_gate import RULES, Hospital
from tests.studies import tiny_heart_study

ALL = ["statistics", "training", "results"]
OF_STAGE = {
    "statistics": {"step": "statistics"},
    "training": {"step": "fit"},
    "results": {"step": "evaluate", "stage": "test", "split": "test"},
}


def key_of(name: str, folder: Path) -> Path:
    """A person's private key, in a file."""
    path = folder / f"{name}.pem"
    private = {**PERSONS, "stranger": STRANGER}[name]
    pem, pkcs = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(private.private_bytes(pem, pkcs, serialization.NoEncryption()))
    path.chmod(0o600)
    return path


class Holding(Hospital):
    """A hospital whose file holds what would leave, and the desk of the persons who may release it."""

    def open(self, *, deployed: bool = True) -> None:
        home = self.file.with_suffix("")  # as at a hospital, the folder of the same name as its file
        self.silo = Silo("cleveland", load_site(self.file), home, deployed=deployed, file=self.file)

    def holds(self, *stages: str, needed: int = 1) -> None:
        rule = {"stages": list(stages), "keys": KEYS, "needed": needed} if stages else None
        self.policy(RULES | {"release": rule})
        self.open()

    def asked(self, stage: str, **task: Any) -> Task:
        return self.task(**{**OF_STAGE[stage], **task})

    def fault(self, stage: str, **task: Any) -> Fault | None:
        return self.silo.answer(self.asked(stage, **task)).fault

    def desk(self, stage: str, *words: str, name: str = "ada", key: str = "ada", run: str = "run") -> int:
        path = key_of(key, self.folder.parent)
        signed = ["--stage", stage, "--name", name, "--key", str(path), "--reason", "checked"]
        return main(["site", "release", str(self.file), run, *signed, *words])

    def entries(self) -> list[dict[str, Any]]:
        place = self.silo.place
        found = journal_of(place.name, place.site, place.home).entries()
        return [dict(each) for each in found if each["outcome"] != "asked"]


@pytest.fixture
def hospital(tmp_path: Path) -> Holding:
    (tmp_path / "hospital").mkdir()
    return Holding(tmp_path / "hospital")


@pytest.mark.parametrize("stage", ALL)
def test_what_is_held_leaves_as_it_would_have_left_once_a_person_releases_it(hospital, stage):
    hospital.holds()
    plain = hospital.silo.answer(hospital.asked(stage))
    hospital.holds(stage)
    held = hospital.silo.answer(hospital.asked(stage))
    assert (held.fault, held.examples, held.metrics, held.weights) == (Fault.HELD, 0, {}, {})
    assert (held.summaries, held.fingerprint) == ({}, {})  # nothing but the fault
    assert hospital.desk(stage) == 0
    told = hospital.silo.answer(hospital.asked(stage))
    assert (told.fault, told.examples, told.metrics) == (None, plain.examples, plain.metrics)
    assert [array.tobytes() for array in told.weights.values()] == [each.tobytes() for each in plain.weights.values()]
    assert (*told.summaries,) == (*plain.summaries,)


def test_only_the_stages_that_the_file_names_are_held(hospital):
    hospital.holds("results")
    assert [hospital.fault(stage) for stage in ALL] == [None, None, Fault.HELD]


def test_a_site_that_is_started_anew_holds_and_releases_the_same(hospital):
    hospital.holds("training")
    assert hospital.fault("training") is Fault.HELD
    hospital.open()
    assert hospital.fault("training") is Fault.HELD
    hospital.desk("training")
    hospital.open()
    assert hospital.fault("training") is None


def test_a_release_of_the_training_is_one_envelope_and_of_that_run_alone(hospital):
    hospital.holds("training")
    assert hospital.fault("training") is Fault.HELD
    hospital.desk("training")
    assert hospital.fault("training") is None
    assert hospital.silo.answer(hospital.moved(1e-3, 1)).fault is None  # the next round
    assert hospital.fault("training", run="another") is Fault.HELD


def test_a_release_of_results_is_of_the_very_answers_that_were_shown(hospital):
    hospital.holds("results")
    assert hospital.fault("results") is Fault.HELD
    hospital.desk("results")
    assert hospital.fault("results") is None
    other = hospital.moved(1.0, step="evaluate", stage="test", split="test")
    assert hospital.silo.answer(other).fault is Fault.HELD


def test_what_a_person_refuses_never_leaves_whoever_releases_it_later(hospital):
    hospital.holds("statistics")
    assert hospital.fault("statistics") is Fault.HELD
    assert hospital.desk("statistics", "--refuse") == 0
    assert hospital.fault("statistics") is Fault.REFUSED_RELEASE
    assert hospital.desk("statistics", name="bob", key="bob") == 2  # nothing waits any more
    assert hospital.fault("statistics") is Fault.REFUSED_RELEASE


def test_two_persons_release_where_the_file_asks_for_two(hospital, capsys):
    hospital.holds("results", needed=2)
    assert hospital.fault("results") is Fault.HELD
    hospital.desk("results")
    assert "not enough yet" in capsys.readouterr().out
    hospital.desk("results")  # the same person again is no second one
    assert hospital.fault("results") is Fault.HELD
    hospital.desk("results", name="bob", key="bob")
    assert hospital.fault("results") is None


def test_a_key_that_the_file_does_not_list_and_a_file_that_was_changed_release_nothing(hospital, capsys):
    hospital.holds("statistics")
    assert hospital.fault("statistics") is Fault.HELD
    assert hospital.desk("statistics", key="stranger") == 2
    assert "policy.release.keys does not have this key" in capsys.readouterr().err
    hospital.desk("statistics", "--refuse")
    [path] = (hospital.folder / "releases").glob("*.json")
    path.write_text(path.read_text().replace('"leaves":false', '"leaves":true'))
    assert hospital.fault("statistics") is Fault.HELD


def test_the_journal_tells_of_what_was_held_who_decided_and_what_left(hospital):
    hospital.holds("results")
    hospital.fault("results")
    hospital.desk("results")
    hospital.fault("results")
    hospital.fault("results")
    held, decided, left, again = hospital.entries()
    assert [each["outcome"] for each in (held, decided, left, again)] == ["held", "released", "answered", "repeated"]
    assert (decided["by"], decided["stage"]) == (["ada"], "results")
    assert held["held"] == left["digest"] and left["persons"] > 0  # what left is what was shown
    assert main(["site", "audit", str(hospital.file)]) == 0


def test_a_person_reads_what_would_leave_before_it_does(hospital, capsys):
    hospital.holds("results")
    hospital.fault("results")
    capsys.readouterr()
    assert main(["site", "release", str(hospital.file)]) == 0
    words = capsys.readouterr().out
    persons = json.loads(next((hospital.silo.home / "held").glob("*.json")).read_text())["persons"]
    assert f"answer to evaluate of test, round 1: {persons} persons stand behind it" in words
    assert "metric loss: 0." in words
    hospital.desk("results")
    capsys.readouterr()
    main(["site", "release", str(hospital.file)])
    assert capsys.readouterr().out.startswith("Nothing waits at")


WRONG = [
    ({"keys": KEYS}, "stages=None"),
    ({"stages": ["test"], "keys": KEYS}, "'test' is no stage"),
    ({"stages": ["results"]}, "keys=None"),
    ("held", "must hold stages"),
]


@pytest.mark.parametrize(("rule", "words"), WRONG)
def test_a_rule_that_holds_nothing_or_names_nobody_is_a_mistake(rule, words):
    with pytest.raises(UserError, match=f"policy.release.*{words}"):
        Policy.read("va", {"minimum_persons": 2, "minimum_cell": 2, "release": rule})


# A whole run, which waits at one site in each stage, and goes on each time.


@pytest.mark.slow
def test_a_run_waits_in_each_stage_and_ends_with_the_digest_of_one_that_was_not_disturbed(tmp_path, capsys):
    data = write_tiny_heart(tmp_path / "data")
    words = ["experiment=heart_disease", f"paths.data_dir={data}", "strategy.rounds=2", "trainer.steps=5"]
    rule = f"release: {{stages: [statistics, training, results], keys: {{ada: '{KEYS['ada']}'}}}}"
    policy = f"sites.va.policy={{minimum_persons: 2, minimum_cell: 2, {rule}}}"
    free = "sites.va.policy={minimum_persons: 2, minimum_cell: 2}"
    run, plain = tmp_path / "run", tmp_path / "plain"
    few = ["federation=inprocess", "baselines.alone=true"]
    assert main([*words, *few, free, f"hydra.run.dir={plain}"]) == 0
    key, file = key_of("ada", tmp_path), run / "sites" / "va.yaml"
    capsys.readouterr()
    status, waited = main([*words, *few, policy, f"hydra.run.dir={run}"]), list[str]()
    while status == 3 and len(waited) < 9:
        said, result = capsys.readouterr().out, result_of(run)
        waited.append(result["reason"].partition(" at va: held at the site until")[0])
        assert (result["status"], result["metrics"]) == ("held", {})
        assert "python -m flip resume=" in said and f"{waited[-1]} at va: held" in said
        assert f"{waited[-1]} at va: held" in (run / "report.html").read_text()
        signed = ["--stage", waited[-1], "--name", "ada", "--key", str(key), "--reason", "checked"]
        identifier = json.loads((run / "provenance.json").read_text())["run"]
        assert main(["site", "release", str(file), identifier, *signed]) == 0
        status = main([f"resume={run}"])
    assert (status, waited) == (0, ALL)
    assert {key: result_of(run)[key] for key in ("digest", "metrics")} == {
        key: result_of(plain)[key] for key in ("digest", "metrics")
    }


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


@pytest.mark.parametrize("rule", [{"release": {"stages": ["training"], "keys": KEYS}}, {"releases": ["statistics"]}])
def test_rows_of_a_site_that_holds_back_or_keeps_weights_are_not_taken_out_to_be_trained_on_with_others(hospital, rule):
    hospital.silo.datamodule(hospital.task("fit"))
    hospital.policy(RULES | rule)
    with pytest.raises(Refusal, match=f"policy.{next(iter(rule))}"):
        hospital.silo.datamodule(hospital.task("fit"))
    assert hospital.entries()[-1]["fault"] == "REFUSED_RULE"


def test_a_run_without_federation_ends_as_refused_by_a_site_that_holds(tmp_path):
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"), "federation=none")
    holds = {"minimum_persons": 2, "minimum_cell": 1, "release": {"stages": ["training"], "keys": KEYS}}
    sites = {**study.sites, "va": replace(study.sites["va"], policy=holds)}
    result = execute(replace(study, sites=sites), tmp_path / "run")
    assert result["status"] == "refused"
    assert f"va: {Fault.REFUSED_RULE.value}" in result["reason"]
