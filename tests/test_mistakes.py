"""Every mistake gets one message: key, place, nearest valid name; exit status 2, and nothing left behind."""

from pathlib import Path

import pytest
from conftest import Acme, Flip

from flip.targets import foreign_packages

# (overrides of the study `acme`, what the message says)
MISTAKES = {
    "unknown option": (["strategy=fedavgg"], ["strategy=fedavgg (the command line)", "did you mean 'fedavg'"]),
    "unknown experiment": (["experiment=acmee"], ["experiment=acmee (the command line)", "did you mean 'acme'"]),
    "unknown key": (["seeed=3"], ["seeed (the command line): no such key", "did you mean 'seed'"]),
    "unknown nested key": (["trainer.stepps=3"], ["trainer.stepps (the command line)", "did you mean 'steps'"]),
    "unknown key of a site": (["sites.north.rooot=x"], ["sites.north.rooot (the command line)", "did you mean 'root'"]),
    "plus past the schema": (["+speed=3"], ["speed (the command line): no such key"]),
    "wrong type": (
        ["trainer.steps=many"],
        ["trainer.steps (the command line): 'many' is the wrong type", "whole number"],
    ),
    "wrong choice": (["trainer.optimizer_state=drop"], ["trainer.optimizer_state", "one of reset, keep"]),
    "wrong type in a target": (
        ["strategy.rounds=many"],
        ["strategy.rounds (the command line): 'many' is the wrong type"],
    ),
    "typo in a target": (["strategy.ronds=3"], ["strategy.ronds (the command line)", "did you mean 'rounds'"]),
    "typo in a nested target": (
        ["model.optimizer.lrr=3"],
        ["model.optimizer.lrr (the command line)", "did you mean 'lr'"],
    ),
    "missing value": (["name=???"], ["name (the command line): has no value"]),
    "missing argument": (["~strategy.rounds"], ["strategy (conf/strategy/fedavg.yaml): FedAvg needs strategy.rounds"]),
    "outside the allow-list": (
        ["model._target_=shutil.copytree"],
        ["model._target_ (the command line): shutil.copytree is outside the allowed prefixes", "allow_targets"],
    ),
    "not a class": (["model._target_=acme.parts.SETTING"], ["acme.parts.SETTING is not a class"]),
    "typo in a function's argument": (
        ["model._target_=acme.parts.narrow", "~model.width", "+model.rl=1"],
        ["model.rl (the command line): narrow has no such argument; did you mean 'lr'"],
    ),
    "through another module": (["model._target_=acme.parts.Path"], ["is defined elsewhere, as pathlib.Path"]),
    "something private": (["model._target_=acme.parts.__builtins__"], ["names something private"]),
    "no such class": (["model._target_=acme.parts.Modle"], ["'Modle' is not in acme.parts", "did you mean 'Model'"]),
    "no such module": (["model._target_=acme.partz.Model"], ["'partz' is not in acme", "did you mean 'parts'"]),
    "import error": (
        ["model._target_=acme.broken.Model"],
        ["importing acme.broken failed: ModuleNotFoundError: No module named 'a_package_that_nobody_has'"],
    ),
    "raising constructor": (
        ["model.width=3"],
        ["acme.yaml): acme.parts.Model could not be built: ValueError: width must be even"],
    ),
    "missing data root": (
        ["sites.north.root=/nowhere"],
        ["sites.north.root (the command line): /nowhere does not exist"],
    ),
    "site named twice": (["sites=[north,north]"], ["sites (the command line): north is named twice"]),
    "no site": (["sites=[]"], ["sites: there is none; choose some"]),
    "unknown site": (["sites=[nort]"], ["sites=nort (the command line)", "did you mean 'north'"]),
    "impossible pairing": (
        ["federation=inprocess", "strategy._target_=acme.parts.Median", "+privacy.sum._target_=acme.parts.SecureSum"],
        ["Median needs every site's reply apart, which SecureSum does not show"],
    ),
    "privacy without federation": (
        ["+privacy.sum._target_=acme.parts.SecureSum"],
        ["without federation a site sends nothing, so privacy=sum would protect nothing"],
    ),
    "more sites asked for than train": (
        ["federation=inprocess", "strategy.min_sites=3"],
        ["strategy.min_sites (the command line): 3 of 2 training sites can never answer"],
    ),
    "unreadable override": (["strategy.share=[a"], ["strategy.share=[a (the command line): cannot be read"]),
    "unknown rule of a policy": (
        ["sites.north.policy={minimum: 3}"],
        ["sites.north.policy.minimum (the command line): no such rule"],
    ),
    "somebody else's Trainer": (
        ["trainer.lightning.logger=true"],
        ["trainer.lightning.logger", "not the study's to set"],
    ),
    "the site's own argument": (["dataset.root=/data"], ["dataset.root (the command line): is the site's to set"]),
    "nothing to resolve": (["name=${nobody}"], ["name (the command line): cannot be resolved", "nobody"]),
    "a mechanism that is none": (
        ["federation=inprocess", "+privacy.sum=3"],
        ["privacy.sum (the command line): must hold _target_ and its arguments, not 3"],
    ),
    "a value that its class refuses": (
        ["strategy.rounds=0"],
        ["strategy.rounds=0 (the command line): must be 1 or more"],
    ),
    "a schema's and a constructor's at once": (
        ["seeed=3", "strategy.ronds=3", "dataset=???"],
        ["for 3 reasons", "did you mean 'seed'", "did you mean 'rounds'", "dataset"],
    ),
    "several at once": (
        ["seeed=3", "trainer.steps=many", "name=???"],
        ["for 3 reasons", "seeed", "trainer.steps", "name (the command line): has no value"],
    ),
    "several kinds at once": (
        ["federation=flowr", "model.widht=4", "strategy.ronds=3"],
        ["for 3 reasons", "did you mean 'flower'", "did you mean 'width'", "did you mean 'rounds'"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_remedy_and_leaves_nothing(name: str, flip: Flip, acme: Acme, folder: Path) -> None:
    overrides, said = MISTAKES[name]
    done = flip(*acme.arguments(*overrides))
    assert done.returncode == 2, done.stdout + done.stderr
    assert [text for text in said if text not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_a_typo_in_a_file_names_the_file(flip: Flip, acme: Acme) -> None:
    written = acme.write("strategy/own.yaml", "_target_: flip.strategies.fedavg.FedAvg\nrounds: 3\nfracton: 0.5\n")
    done = flip(*acme.arguments("strategy=own"))
    assert f"strategy.fracton ({written}): FedAvg has no such argument; did you mean 'fraction'?" in done.stderr
    assert done.returncode == 2


def test_an_unknown_key_in_a_file_names_the_file(flip: Flip, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text() + "trainr: {steps: 3}\n")
    done = flip(*acme.arguments())
    assert f"trainr ({path}): no such key; did you mean 'trainer'?" in done.stderr


def test_a_missing_value_of_a_site_names_its_file(flip: Flip, acme: Acme) -> None:
    path = acme.write("sites/north.yaml", "# @package sites.north\nroot: ???\npolicy: public_data\n")
    assert f"sites.north.root ({path}): has no value" in flip(*acme.arguments()).stderr


def test_an_option_that_a_file_names_wrongly_names_the_file(flip: Flip, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text().replace("[north, south]", "[north, soth]"))
    done = flip(*acme.arguments())
    assert f"sites=soth ({path}): there is no such option; did you mean 'south'?" in done.stderr
    assert done.returncode == 2


def test_a_file_that_is_not_yaml_is_named_with_its_line(flip: Flip, acme: Acme) -> None:
    path = acme.write("strategy/own.yaml", "rounds: [1, 2\nfraction: 3\n")
    done = flip(*acme.arguments("strategy=own"))
    assert str(path) in done.stderr
    assert "line 2" in done.stderr
    assert done.returncode == 2


def test_an_empty_site_is_named_with_its_folder(flip: Flip, acme: Acme, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cohorts" / "south" / "persons.txt").write_text("")
    done = flip(*acme.arguments())
    assert f"{tmp_path / 'cohorts' / 'south'} holds no person" in done.stderr
    assert "~sites.south" in done.stderr
    assert done.returncode == 2
    assert list(folder.iterdir()) == []


def test_a_site_twice_in_an_experiment_names_the_file(flip: Flip, acme: Acme) -> None:
    path = acme.conf / "experiment" / "acme.yaml"
    path.write_text(path.read_text().replace("[north, south]", "[north, north]"))
    assert f"sites ({path}): north is named twice" in flip(*acme.arguments()).stderr


def test_models_in_the_working_folder_are_never_imported(flip: Flip, acme: Acme, folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("open('taken', 'w').close()\n")
    done = flip(*acme.arguments("model._target_=models.tabular.Nothing"))
    assert "'Nothing' is not in models.tabular" in done.stderr
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


def test_a_config_dir_that_is_not_there_is_named(flip: Flip) -> None:
    done = flip("--config-dir", "nowhere", "experiment=x")
    assert "nowhere: there is no such folder" in done.stderr
    assert done.returncode == 2


def test_a_primary_that_is_not_there_is_named(flip: Flip, acme: Acme) -> None:
    done = flip("--config-dir", str(acme.conf), "--config-name", "confg")
    assert "--config-name confg: there is no such file" in done.stderr
    assert "did you mean 'config'" in done.stderr
