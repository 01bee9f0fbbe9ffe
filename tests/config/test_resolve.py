"""A settled study: what travels and what does not, a site's own file, and a run folder that runs again."""

import json
import re
from pathlib import Path

import pytest

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.cli.origin import Origin
from flip.config.checks.signatures import bind
from flip.config.checks.study import slots
from flip.config.policy import Policy
from flip.config.resolve import settle
from flip.config.site_file import load_site
from flip.config.study import Study
from flip.config.targets import STUDY_TARGETS
from flip.errors import UserError
from flip.runs.rerun import run_files
from tests.conf.bundle_files import write_bundle
from tests.conftest import ROOT, Acme

CONF = ROOT / "conf"
HOSPITAL = "root: /data\npolicy: {minimum_persons: 50, minimum_cell: 5}\n"


def study_of(*overrides: str, config_dir: Path | None = None, config_name: str = "config") -> Study:
    composer = Composer(overrides, config_name, config_dir)
    cfg = composed(composer)
    return settle(cfg, backend=str(cfg.hydra.runtime.choices.get("federation")), where=Origin(composer))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


SCANS = [
    "dataset.structures=[liver]",
    "dataset.image={_target_: datamodules.segmentation.forms.Volumes, spacing_mm: [1, 1, 2]}",
    "dataset.intensity={_target_: datamodules.segmentation.intensity.Percentiles}",
    "dataset.patches.size=[16, 16, 16]",
]
LEFT_TO_THE_STUDY = {
    "dataset=table": [
        "dataset.target={_target_: datamodules.targets.Binary, column: num, positive: [1]}",
        "dataset.tabular.numeric=[age]",
    ],
    "dataset=images": ["dataset.target={_target_: datamodules.targets.Survival, time: days, event: died}"],
    "dataset=segmentation": SCANS,
    "model=segmenter": ["dataset=segmentation", *SCANS],
    "model=nnunet": ["dataset=segmentation", *SCANS],
    "dataset=bundle": ["model=bundle", "bundle=BUNDLE"],
    "model=bundle": ["dataset=bundle", "bundle=BUNDLE"],
}
"""What the options for a stranger's own data do not say."""


NEEDS = {
    "table": "lung_survival",
    "images": "chest_xray",
    "segmentation": "chest_xray",
    "segmenter": "chest_xray",
    "nnunet": "chest_xray",
    "bundle": "chest_xray",
    "image_classifier": "dermatology",
    "adapted_classifier": "chest_xray",
}
"""An experiment that fits an option which none uses as it ships."""


def experiment_of(group: str, name: str) -> str:
    """An experiment that an option fits: a model takes sizes that the dataset declares."""
    files = sorted((CONF / "experiment").glob("*.yaml"))
    used = (path.stem for path in files if f"/{group}: {name}\n" in path.read_text())
    return next(used, NEEDS.get(name, "heart_disease"))


def every_yaml() -> list[list[str]]:
    """A command line for every YAML file of conf, each on the smallest experiment that uses it."""
    lines = [[f"experiment={name}"] for name in options("experiment")]
    for tuned in options("experiment/tuned"):
        experiment = next(name for name in options("experiment") if tuned.startswith(f"{name}_"))
        lines.append([f"experiment={experiment}", f"strategy={tuned.removeprefix(f'{experiment}_')}"])
    for group in ("dataset", "model"):
        for name in options(group):
            more = LEFT_TO_THE_STUDY.get(f"{group}={name}", [])
            lines.append([f"experiment={experiment_of(group, name)}", f"{group}={name}", *more])
    for group in ("trainer", "strategy", "federation", "sites", "tracking", "debug"):
        named = [f"{group}={name}" for name in options(group)]
        lines += [["experiment=heart_disease", each] for each in named]
    lines += [["experiment=heart_disease", "federation=inprocess", f"privacy={name}"] for name in options("privacy")]
    return [
        [each.replace("sites=", "sites=[") + ("]" if each.startswith("sites=") else "") for each in line]
        for line in lines
    ]


@pytest.mark.parametrize("overrides", every_yaml(), ids=" ".join)
def test_every_yaml_composes_validates_and_binds(overrides: list[str], folder: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle") if "bundle=BUNDLE" in overrides else None
    study = study_of(*(each.replace("BUNDLE", str(bundle)) for each in overrides))
    assert [problem for slot in slots(study) for problem in bind(slot, study.where)] == []


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_opens_with_the_command_that_uses_it(path: Path) -> None:
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("python -m flip" in line for line in comment[:3])


def test_the_manifest_holds_the_study_and_nothing_of_a_site_or_the_machine(acme: Acme, folder: Path) -> None:
    study = study_of("experiment=acme", config_dir=acme.conf)
    assert sorted(study.manifest) == [
        "code", "dataset", "engine", "given", "mechanisms", "model", "name", "notice", "numerics", "outcomes",
        "privacy", "seed", "strategy", "trainer",
    ]  # fmt: skip
    assert json.loads(study.manifest_text) == study.manifest
    for site in study.sites.values():
        assert site.root not in study.manifest_text
    assert str(folder) not in study.manifest_text


def test_the_manifest_is_the_same_from_any_folder_and_any_backend(
    acme: Acme, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = study_of("experiment=acme", config_dir=acme.conf)
    monkeypatch.chdir(tmp_path)
    there = study_of("experiment=acme", "federation=inprocess", "paths.runs=elsewhere", config_dir=acme.conf)
    assert here.manifest_sha256 == there.manifest_sha256


def test_another_value_of_the_study_is_another_manifest(acme: Acme, folder: Path) -> None:
    shas = {study_of("experiment=acme", each, config_dir=acme.conf).manifest_sha256 for each in ("seed=1", "seed=2")}
    assert len(shas) == 2


def test_mechanisms_keep_the_order_of_the_configuration(acme: Acme, folder: Path) -> None:
    privacy = ["+privacy.zeta._target_=acme.parts.SecureSum", "+privacy.alpha._target_=acme.parts.SecureSum"]
    study = study_of("experiment=acme", "federation=inprocess", *privacy, config_dir=acme.conf)
    assert study.manifest["mechanisms"] == ["zeta", "alpha"]
    again = run_files(study)["run.yaml"]
    assert again.index("zeta:") < again.index("alpha:")


def test_relative_folders_are_taken_from_the_working_folder(acme: Acme, folder: Path) -> None:
    study = study_of("experiment=acme", "sites.north.root=cohort", config_dir=acme.conf)
    assert study.sites["north"].root == str(folder / "cohort")
    assert study.paths.runs == str(folder / "runs")


def test_the_command_line_beats_the_experiment(acme: Acme, folder: Path) -> None:
    assert study_of("experiment=acme", "model.width=8", config_dir=acme.conf).manifest["model"]["width"] == 8


def test_a_file_of_ones_own_takes_the_place_of_the_engines(acme: Acme, folder: Path) -> None:
    acme.write("strategy/fedavg.yaml", "_target_: flip.strategies.fedavg.FedAvg\nrounds: 77\n")
    assert study_of("experiment=acme", config_dir=acme.conf).manifest["strategy"]["rounds"] == 77


def test_a_key_that_a_file_leaves_to_its_default_can_be_set(acme: Acme, folder: Path) -> None:
    assert study_of("experiment=acme", "sites.north.trains=false", config_dir=acme.conf).sites["north"].trains is False


def test_a_strategy_brings_what_is_tuned_for_the_experiment(acme: Acme, folder: Path) -> None:
    acme.write("experiment/tuned/acme_fedprox.yaml", "# @package _global_\nstrategy: {mu: 0.5}\n")
    tuned = study_of("experiment=acme", "strategy=fedprox", config_dir=acme.conf)
    assert tuned.manifest["strategy"]["mu"] == 0.5


def write(study: Study, folder: Path) -> Path:
    """What the engine writes into a run folder for the rerun."""
    for name, text in run_files(study).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


ALLOWED = "allow_targets=[acme.]"  # a run folder's own does not count
AWKWARD = [
    "name=1e5",
    "seed=7",
    "+dataset.note='a: {b} # c'",
    "model.optimizer.lr=1e-05",
    "federation=flower",
    "federation.timeout=9",
]


def test_a_run_folder_composes_to_the_same_study(acme: Acme, folder: Path, tmp_path: Path) -> None:
    first = study_of("experiment=acme", *AWKWARD, "sites.south.trains=false", config_dir=acme.conf)
    again = study_of(ALLOWED, config_dir=write(first, tmp_path / "run"), config_name="run")
    assert again.manifest_text == first.manifest_text
    assert again.sites == first.sites
    assert again == first


def test_a_run_folder_composes_with_another_backend(acme: Acme, folder: Path, tmp_path: Path) -> None:
    first = study_of("experiment=acme", *AWKWARD, config_dir=acme.conf)
    swapped = study_of(ALLOWED, "federation=inprocess", config_dir=write(first, tmp_path / "run"), config_name="run")
    assert swapped.backend == "inprocess"
    assert swapped.federation["_target_"] == "flip.federation.inprocess.InProcess"
    assert swapped.federation["timeout"] != 9
    assert swapped.manifest_sha256 == first.manifest_sha256


def test_run_yaml_holds_no_folder_of_a_site(acme: Acme, folder: Path) -> None:
    study = study_of("experiment=acme", "paths.data_dir=/hospital", config_dir=acme.conf)
    text = run_files(study)["run.yaml"]
    assert [folder for folder in (str(acme.cohorts), "/hospital") if folder in text] == []


def test_a_rerun_keeps_hydras_settings(acme: Acme, folder: Path, tmp_path: Path) -> None:
    run = write(study_of("experiment=acme", config_dir=acme.conf), tmp_path / "run")
    cfg = composed(Composer([], "run", run))
    assert str(cfg.hydra.run.dir).startswith("runs/acme/")  # where the rerun is started
    assert cfg.hydra.output_subdir is None


def test_one_hospital_runs_under_its_own_file(acme: Acme, folder: Path) -> None:
    (folder / "hospital.yaml").write_text(HOSPITAL)
    study = study_of("experiment=acme", "site_file=hospital.yaml", config_dir=acme.conf)
    assert list(study.sites) == ["hospital"]
    assert study.sites["hospital"].root == "/data"


def test_what_a_hospital_runs_alone_on_its_own_file_asks_for_no_approval(acme: Acme, folder: Path) -> None:
    asks = "{minimum_persons: 50, minimum_cell: 5, approval: {keys: {ada: KEY}}}"
    (folder / "hospital.yaml").write_text(HOSPITAL.partition("policy:")[0] + f"policy: {asks}\n")
    study = study_of("experiment=acme", "site_file=hospital.yaml", config_dir=acme.conf)
    rules = {"minimum_persons": 50, "minimum_cell": 5, "approval": "none"}
    assert study.sites["hospital"].policy == rules


def test_a_sites_file_reads_the_same_from_a_run_folder(acme: Acme, folder: Path, tmp_path: Path) -> None:
    study = study_of("experiment=acme", config_dir=acme.conf)
    run = write(study, tmp_path / "run")
    assert load_site(run / "sites" / "north.yaml") == study.sites["north"]


SITE_MISTAKES = {
    "seed: 3\nroot: /d\npolicy: public_data\n": "seed ({path}): a site cannot change the study",
    "rooot: /d\npolicy: public_data\n": "rooot ({path}): no such key; did you mean 'root'?",
    "policy: public_data\n": "root ({path}): has no value",
    "root: /d\n": "policy ({path}): has no value",
    "root: /d\npolicy: public_data\ntrains: perhaps\n": "trains ({path}): 'perhaps' is the wrong type",
    "- a\n": "{path}: must hold keys and values",
    "root: [\n": "{path}: ",
}


@pytest.mark.parametrize("text", SITE_MISTAKES)
def test_a_mistake_in_a_sites_file_names_the_file(text: str, folder: Path) -> None:
    path = folder / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_site(path)
    assert SITE_MISTAKES[text].format(path=path) in str(caught.value)


def test_a_sites_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: no such file"):
        load_site(folder / "absent.yaml")


def test_a_number_that_is_none_cannot_travel(acme: Acme, folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.width \(the command line\): nan cannot travel"):
        study_of("experiment=acme", "model.width=nan", config_dir=acme.conf)


def test_in_a_simulation_each_site_permits_what_the_owner_allows(acme: Acme, folder: Path) -> None:
    policy = "{minimum_persons: 5, minimum_cell: 2, targets: [torch.]}"
    acme.write("sites/south.yaml", f"# @package sites.south\nroot: x\npolicy: {policy}\n")
    study = study_of("experiment=acme", config_dir=acme.conf)
    policies = {name: Policy.read(name, site.policy) for name, site in study.sites.items()}
    assert policies["north"] == Policy(1, 1, (*STUDY_TARGETS, "acme."))
    assert policies["south"] == Policy(5, 2, ("torch.", "acme."))
    assert "allow_targets" not in study.manifest


def test_a_hospitals_own_file_is_not_widened(acme: Acme, folder: Path) -> None:
    (folder / "hospital.yaml").write_text(HOSPITAL)
    site = study_of("experiment=acme", "site_file=hospital.yaml", config_dir=acme.conf).sites["hospital"]
    assert site.policy == {"minimum_persons": 50, "minimum_cell": 5}


def test_a_checkpoint_to_go_on_from_does_not_travel(acme: Acme, folder: Path, tmp_path: Path) -> None:
    first = study_of("experiment=acme", "resume_from=last.ckpt", config_dir=acme.conf)
    assert first.resume_from == folder / "last.ckpt"
    assert "last.ckpt" not in first.manifest_text
    assert study_of(ALLOWED, config_dir=write(first, tmp_path / "run"), config_name="run") == first


def test_the_word_for_a_simulated_secret_is_no_path(acme: Acme, folder: Path) -> None:
    sites = study_of("experiment=acme", "sites.north.secret=simulated", config_dir=acme.conf).sites
    assert sites["north"].secret == "simulated"


SITE_FILES = {
    "hospital.yaml": ("secret: simulated\n", "secret (hospital.yaml): 'simulated' protects nothing"),
    "the hospital.yaml": ("", "sites.the hospital (the hospital.yaml): a site's name is made of letters"),
    "pooled.yaml": ("", "sites.pooled (pooled.yaml): is the name of the sites together"),
}


@pytest.mark.parametrize("name", SITE_FILES)
def test_a_hospitals_file_that_cannot_stand_is_refused_by_name(name: str, acme: Acme, folder: Path) -> None:
    text, said = SITE_FILES[name]
    (folder / name).write_text(HOSPITAL + text)
    with pytest.raises(UserError, match=re.escape(said)):
        study_of("experiment=acme", f"site_file='{name}'", config_dir=acme.conf)
