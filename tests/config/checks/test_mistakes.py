"""Every mistake gets one message: key, place, nearest valid name; exit status 2, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flip.__main__ import main
from flip.config.code import foreign_packages
from tests.conftest import Acme, Flip
from tests.mistakes import MISTAKES

Said = Callable[..., str]


@pytest.fixture
def said(folder: Path, capsys: Any) -> Said:
    """What the command line says of a mistake, in this process: it ends with status 2 and leaves nothing."""

    def run(*arguments: str) -> str:
        status = main(arguments)
        text: str = capsys.readouterr().err
        assert status == 2, text
        assert list(folder.iterdir()) == []
        return text

    return run


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_remedy_and_leaves_nothing(name: str, said: Said, acme: Acme) -> None:
    overrides, parts = MISTAKES[name]
    text = said(*acme.arguments(*overrides))
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.slow
def test_a_mistake_ends_the_process_with_status_2_and_no_traceback(flip: Flip, acme: Acme, folder: Path) -> None:
    done = flip(*acme.arguments("strategy=fedavgg"))
    assert done.returncode == 2
    assert "did you mean 'fedavg'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_a_typo_in_a_file_names_the_file(said: Said, acme: Acme) -> None:
    written = acme.write("strategy/own.yaml", "_target_: flip.strategies.fedavg.FedAvg\nrounds: 3\nfracton: 0.5\n")
    text = said(*acme.arguments("strategy=own"))
    assert f"strategy.fracton ({written}): FedAvg has no such argument; did you mean 'fraction'?" in text


def test_an_unknown_key_in_a_file_names_the_file(said: Said, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text() + "trainr: {steps: 3}\n")
    assert f"trainr ({path}): no such key; did you mean 'trainer'?" in said(*acme.arguments())


def test_a_missing_value_of_a_site_names_its_file(said: Said, acme: Acme) -> None:
    path = acme.write("sites/north.yaml", "# @package sites.north\nroot: ???\npolicy: public_data\n")
    assert f"sites.north.root ({path}): has no value" in said(*acme.arguments())


def test_a_site_without_a_policy_is_told_which_there_are(said: Said, acme: Acme) -> None:
    path = acme.write("sites/north.yaml", "# @package sites.north\nroot: x\n")
    text = said(*acme.arguments())
    assert f"sites.north.policy ({path}): has no value" in text
    assert "public_data for public or synthetic data, or {minimum_persons: 50, minimum_cell: 5}" in text


def test_an_experiment_without_its_header_is_told_so(said: Said, acme: Acme) -> None:
    path = acme.write("experiment/acme.yaml", "defaults:\n  - override /dataset: heart_disease\nname: acme\n")
    assert f"{path}: an experiment's first line must be `# @package _global_`" in said(*acme.arguments())


def test_what_is_left_of_another_class_is_told_to_be_merged(said: Said, acme: Acme) -> None:
    kept = acme.write("strategy/own.yaml", "_target_: flip.strategies.fedprox.FedProx\nrounds: 3\nmu: 0.1\n")
    path = acme.conf / "experiment" / "acme.yaml"
    text = path.read_text().replace("defaults:\n", "defaults:\n  - override /strategy: own\n")
    path.write_text(f"{text}strategy: {{_target_: flip.strategies.fedavg.FedAvg}}\n")
    text = said(*acme.arguments())
    assert f"strategy.mu ({kept}): FedAvg has no such argument" in text
    assert f"that file sets it for another class, and what {path} says is merged into it" in text


def test_an_option_that_a_file_names_wrongly_names_the_file(said: Said, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text().replace("[north, south]", "[north, soth]"))
    assert f"sites=soth ({path}): there is no such option; did you mean 'south'?" in said(*acme.arguments())


def test_a_file_that_is_not_yaml_is_named_with_its_line(said: Said, acme: Acme) -> None:
    path = acme.write("strategy/own.yaml", "rounds: [1, 2\nfraction: 3\n")
    text = said(*acme.arguments("strategy=own"))
    assert str(path) in text
    assert "line 2" in text


def test_an_empty_site_is_named_with_its_file(said: Said, acme: Acme) -> None:
    acme.cohort("south").write_text("")
    text = said(*acme.arguments())
    assert f"{acme.cohort('south')} holds no person" in text
    assert "~sites.south" in text


def test_a_table_that_cannot_be_loaded_is_named_with_the_site(said: Said, acme: Acme) -> None:
    acme.cohort("south").write_text(",".join(["?"] * 14) + "\n")
    place = f"sites.south.root ({acme.conf / 'sites' / 'south.yaml'}): {acme.cohort('south')} cannot be used"
    assert f"{place}: no row has a value in all of age" in said(*acme.arguments())


def test_a_site_named_as_all_of_them_is_refused(said: Said, acme: Acme) -> None:
    acme.write("sites/pooled.yaml", "# @package sites.pooled\nroot: x\npolicy: public_data\n")
    assert "is the name of the sites together; choose another" in said(*acme.arguments("sites=[pooled]"))


def test_a_bad_policy_in_a_hospitals_file_names_that_file(acme: Acme, tmp_path: Path, said: Said) -> None:
    own = tmp_path / "north.yaml"
    own.write_text(f"root: {acme.cohort('north')}\npolicy: {{minimum_persons: 0, minimum_cell: 1}}\n")
    text = said(*acme.arguments(f"site_file={own}"))
    assert f"sites.north.policy.minimum_persons=0 ({own}): must be a whole number of persons" in text


def test_a_site_twice_in_an_experiment_names_the_file(said: Said, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text().replace("[north, south]", "[north, north]"))
    assert f"sites ({path}): north is named twice" in said(*acme.arguments())


@pytest.mark.slow
def test_models_in_the_working_folder_are_never_imported(flip: Flip, acme: Acme, folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("open('taken', 'w').close()\n")
    done = flip(*acme.arguments("model._target_=models.tabular.Nothing"))
    assert "models.tabular.Nothing is not on the list of what may stand here (model)" in done.stderr
    assert not (folder / "taken").exists()


def test_models_that_are_not_ours_are_refused_naming_both(flip: Flip, acme: Acme, folder: Path) -> None:
    (acme.packages / "models").mkdir()
    (acme.packages / "models" / "__init__.py").write_text("open('taken', 'w').close()\n")
    done = flip(*acme.arguments())
    assert f"Python finds another 'models' first, in {acme.packages / 'models'}" in done.stderr
    assert "the engine's is" in done.stderr
    assert done.returncode == 2
    assert list(folder.iterdir()) == []


def test_a_flip_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flip").mkdir()
    (tmp_path / "flip" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [text for text in foreign_packages() if str(tmp_path / "flip") in text]


def test_a_config_dir_that_is_not_there_is_named(said: Said) -> None:
    assert "nowhere: there is no such folder" in said("--config-dir", "nowhere", "experiment=x")


def test_a_primary_that_is_not_there_is_named(said: Said, acme: Acme) -> None:
    text = said("--config-dir", str(acme.conf), "--config-name", "confg")
    assert "--config-name confg: there is no such file" in text
    assert "did you mean 'config'" in text
