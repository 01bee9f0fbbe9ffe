"""What would train nothing, travel nowhere or be dropped without a word is refused before the run, by its key."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flip.__main__ import main
from flip.config.checks.effects import ignored, unused_here, without_effect
from flip.config.checks.optimization import scheduled
from flip.config.checks.parameters import parameter_problems
from flip.config.checks.signatures import fits
from flip.errors import UserError
from flip.messages.weights import TYPES, fit_to_travel
from flip.strategies.fedavg import FedAvg
from flip.strategies.scaffold import Scaffold
from tests.conftest import Acme, Flip
from tests.mistakes import callback

HERE = "federation=inprocess"
ADAM = "model.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: 0.1}"

# (overrides of the study `acme`, what the message says)
REFUSED = {
    "share that matches nothing": (
        [HERE, "strategy.share=[encoder.*]"],
        ["strategy.share (the command line): 'encoder.*' matches no parameter of the model", "linear.weight"],
    ),
    "one of two patterns matches nothing": (
        [HERE, "strategy.share=[linear.*, haed.*]"],
        ["strategy.share (the command line): 'haed.*' matches no parameter"],
    ),
    "share of nothing": (
        [HERE, "strategy.share=[]"],
        ["strategy.share (the command line): no parameter that is trained"],
    ),
    "share as one text": (
        [HERE, "strategy.share=linear.*"],
        ["strategy.share (the command line): 'linear.*'", "a list"],
    ),
    "rounds of sites of weight 0": (
        [HERE, "strategy.fraction=0.5", "strategy.site_weights={north: 0.0, south: 1.0}"],
        ["strategy.fraction (the command line): a round asks 1 of 2", "weight 0", "(north)"],
    ),
    "callbacks in rounds": (
        [HERE, callback("EarlyStopping", ", monitor: val/loss")],
        ["trainer.callbacks.it (the command line): the rounds of federation=inprocess have no callbacks"],
    ),
    "passes beside steps of the same place": (
        [HERE, "trainer.steps=3", "trainer.epochs=2"],
        ["trainer.epochs (the command line): 2 would have no effect beside trainer.steps=3 (the command line)"],
    ),
    "a sweep that is one study": (["hydra.mode=MULTIRUN"], ["hydra.mode: MULTIRUN asks for a sweep", "-m"]),
    "a learning rate below 0": ([HERE, "model.optimizer.lr=-1"], ["model.optimizer (", "Invalid learning rate: -1"]),
    "a learning rate below 0 without rounds": (
        ["model.optimizer.lr=-1"],
        ["model.optimizer (", "Invalid learning rate"],
    ),
    "another optimizer below 0": (
        ["trainer.centralized.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: -2.0}"],
        ["trainer.centralized.optimizer (the command line)", "Invalid learning rate: -2.0"],
    ),
    "decay that an optimizer refuses": (
        [HERE, "++model.optimizer.weight_decay=-1"],
        ["Invalid weight_decay value: -1"],
    ),
    "a learning rate of 0": ([HERE, "model.optimizer.lr=0"], ["model.optimizer (", "the learning rate is 0"]),
    "a metric that is not there": (
        [callback("EarlyStopping", ", monitor: val/los")],
        ["trainer.callbacks (the command line): EarlyStopping watches val/los", "did you mean 'val/loss'"],
    ),
    "a checkpoint by a metric that is not there": (
        [callback("ModelCheckpoint", ", monitor: accuracy")],
        ["ModelCheckpoint watches accuracy, which the model does not log"],
    ),
    "stop without validation data": (
        [HERE, "strategy.stop={monitor: loss, patience: 2}"],
        ["strategy.stop (the command line): watches validation data, and no site has any", "strategy.stop=null"],
    ),
    "a callback without validation data": (
        [callback("EarlyStopping", ", monitor: val/loss")],
        ["trainer.callbacks.it (the command line): watches validation data, and no site has any"],
    ),
    "SCAFFOLD with Adam": ([HERE, "strategy=scaffold", ADAM], ["strategy=scaffold takes plain SGD", "not Adam"]),
    "SCAFFOLD with momentum": (
        [HERE, "strategy=scaffold", "++model.optimizer.momentum=0.9"],
        ["model.optimizer (", "not SGD with momentum"],
    ),
    "None for null in a target": (
        [HERE, "strategy.site_weights=None"],
        ["strategy.site_weights (the command line): 'None' is a text; write null"],
    ),
    "None for null in the schema": (["notice=None"], ["notice (the command line): 'None' is a text; write null"]),
    "None for a number": (["trainer.epochs=None"], ["trainer.epochs (the command line): 'None' is a text; write null"]),
    "a strategy without federation": (
        ["federation=none", "strategy=scaffold", "strategy.rounds=50"],
        [
            "for 2 reasons",
            "strategy=scaffold (the command line): would have no effect: federation=none has no rounds",
            "strategy.rounds=50 (the command line)",
        ],
    ),
    "steps of a round without rounds": (["trainer.steps=3"], ["trainer.steps=3 (the command line): would have no"]),
    "what is kept between rounds that there are not": (
        ["trainer.optimizer_state=keep"],
        ["trainer.optimizer_state=keep (the command line): would have no effect"],
    ),
    "weights of sites in no mean": (
        ["strategy.site_weights={north: 1.0, south: 2.0}"],
        ["strategy.site_weights={north: 1.0, south: 2.0} (the command line): would have no effect"],
    ),
    "a backend's settings without one": (["federation.workers=4"], ["federation.workers=4", "federation=none has no"]),
    "passes beside rounds": (
        [HERE, "trainer.centralized.max_epochs=3"],
        ["trainer.centralized.max_epochs=3 (the command line)", "every model of this run is trained in rounds"],
    ),
    "validation in rounds": (
        [HERE, "trainer.lightning.check_val_every_n_epoch=2"],
        ["trainer.lightning.check_val_every_n_epoch=2", "is trained in rounds"],
    ),
    "a baseline of nothing": (
        ["baselines.centralized=true", "baselines.alone=false"],
        ["Nothing was run. baselines.centralized=true (the command line): would have no effect", "to compare with"],
    ),
    "a name that leaves the runs": (["name=../x"], ["name (the command line): '../x' is the name of a folder too"]),
    "a name of two folders": (["name=a/b"], ["name (the command line): 'a/b'"]),
    "a hidden name": (["name=.x"], ["name (the command line): '.x'"]),
    "a name of no end": ([f"name={'x' * 101}"], ["at most 99 characters"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_its_key(name: str, acme: Acme, folder: Path, capsys: Any) -> None:
    overrides, parts = REFUSED[name]
    assert main(acme.arguments(*overrides)) == 2
    text = capsys.readouterr().err
    assert [part for part in parts if part not in text] == [], text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["a file", "nothing below proc"])
def test_a_folder_of_runs_that_cannot_be_made_is_named(place: str, acme: Acme, folder: Path, capsys: Any) -> None:
    runs = folder / "file" if place == "a file" else Path("/proc/runs")
    if place == "a file":
        runs.touch()
    assert main(acme.arguments(f"paths.runs={runs}", "trainer.centralized.max_epochs=1")) == 2
    text = capsys.readouterr().err
    assert "the folder cannot be made (" in text
    assert "paths.runs=" in text


def test_steps_that_were_typed_take_the_place_of_a_files_passes(acme: Acme, folder: Path) -> None:
    import flip

    study = flip.compose(["experiment=acme", HERE, "trainer.steps=3"], config_dir=acme.conf)
    assert (study.manifest["trainer"]["steps"], study.manifest["trainer"]["epochs"]) == (3, None)


def test_callbacks_are_taken_where_a_baseline_has_use_for_them(acme: Acme, folder: Path) -> None:
    import flip

    own = [HERE, callback("EarlyStopping", ", monitor: loss"), "baselines.alone=true"]
    assert flip.compose(["experiment=acme", *own], config_dir=acme.conf).manifest["trainer"]["callbacks"]


@pytest.mark.parametrize(
    "words",
    [
        [HERE, "strategy.rounds=2", "trainer.epochs=2"],
        [HERE, "trainer.centralized.max_epochs=3", "baselines.alone=true"],
        ["trainer.centralized.max_epochs=3", "baselines.alone=false"],
        ["job=check", "strategy.rounds=2", "baselines.alone=true"],
    ],
)
def test_what_has_an_effect_is_taken(words: list[str], acme: Acme, folder: Path) -> None:
    import flip

    assert flip.compose(["experiment=acme", *words], config_dir=acme.conf).given[0][0] == "experiment"


def test_a_site_of_a_roster_has_no_effect_beside_a_hospitals_own_file(acme: Acme, folder: Path, capsys: Any) -> None:
    policy = "{minimum_persons: 2, minimum_cell: 1}"
    (folder / "own.yaml").write_text(f"root: {acme.cohort('north')}\npolicy: {policy}\n")
    assert main(acme.arguments("site_file=own.yaml", "sites.north.trains=false")) == 2
    assert "sites.north.trains=false (the command line): would have no effect: site_file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_sweep_ignores_what_another_needs_and_says_so(acme: Acme, folder: Path, flip: Flip) -> None:
    done = flip("-m", *acme.arguments("federation=none,inprocess", "strategy.rounds=1", "seed=3"))
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "no effect in this run" in line]
    assert said == ["strategy.rounds=1 has no effect in this run: federation=none has no rounds"]
    assert done.stderr == ""


@pytest.mark.slow
def test_a_sweep_in_which_no_run_has_use_for_a_key_runs_none(acme: Acme, folder: Path, flip: Flip) -> None:
    done = flip("-m", *acme.arguments("federation=none", "strategy.rounds=1,2"))
    assert done.returncode == 1
    assert done.stderr.count("would have no effect") == 2
    assert "not run: [1] strategy.rounds=2 (the command line): would have no effect" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("varied", "needed"), [("baselines.alone", True), ("federation", True), ("seed", False)])
def test_a_key_is_needed_in_a_sweep_that_varies_what_decides_on_it(
    varied: str, needed: bool, acme: Acme, folder: Path
) -> None:
    import flip

    study = flip.compose(["experiment=acme", HERE], config_dir=acme.conf)
    sweep = replace(study, given=(("trainer.centralized.max_epochs", "3"),), varied=frozenset({varied}))
    assert [each.needed for each in ignored(sweep)] == [needed]
    assert [bool(without_effect(sweep)), bool(unused_here(sweep))] == [not needed, needed]


@pytest.mark.parametrize(
    ("key", "told"),
    [("sites.north.root", 1), ("sites.north.policy.minimum_cell", 1), ("sites.north.trains", 0), ("sites", 0)],
)
def test_in_a_live_federation_a_study_says_which_sites_train_and_nothing_else_of_them(
    key: str, told: int, acme: Acme, folder: Path
) -> None:
    import flip

    study = replace(flip.compose(["experiment=acme", HERE], config_dir=acme.conf), given=((key, "x"),))
    assert without_effect(study) == []
    assert len(without_effect(replace(study, live=True))) == told


def linear(change: Callable[[torch.nn.Linear], object]) -> torch.nn.Module:
    layer = torch.nn.Linear(2, 1)
    change(layer)
    return layer


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (torch.nn.LazyLinear(1), "weight of LazyLinear has no shape before the first batch"),
        (torch.nn.ReLU(), "ReLU has nothing to train: no parameter"),
        (linear(lambda layer: layer.requires_grad_(False)), "nothing to train: all 2 parameters are frozen"),
        (torch.nn.Embedding(3, 2, sparse=True), "Embedding makes sparse gradients"),
        (
            torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.EmbeddingBag(3, 2, sparse=True)),
            "1 makes sparse gradients",
        ),
        (
            torch.nn.Linear(2, 1, dtype=torch.complex64),
            "weight is complex64, which cannot travel; valid: bool, float16",
        ),
        (torch.nn.Linear(2, 1, dtype=torch.complex128), "weight is complex128"),
        (torch.nn.Linear(2, 1, device="meta"), "weight is float32 without values"),
        (linear(lambda layer: layer.register_buffer("held", torch.eye(2).to_sparse())), "held is sparse float32"),
    ],
)
def test_parameters_that_cannot_be_trained_or_sent_are_named(module: torch.nn.Module, said: str) -> None:
    assert any(said in problem for problem in parameter_problems(module)), [*parameter_problems(module)]


def test_a_model_in_part_frozen_is_taken() -> None:
    assert [
        *parameter_problems(
            torch.nn.Sequential(linear(lambda layer: layer.requires_grad_(False)), torch.nn.Linear(1, 1))
        )
    ] == []


@pytest.mark.parametrize("dtype", sorted(TYPES | {"bfloat16"}))
def test_every_type_that_may_travel_comes_back_the_same(dtype: str) -> None:
    from flip.messages.safetensors import pack, unpack
    from flip.messages.weights import load_arrays, to_arrays

    module, again = torch.nn.Module(), torch.nn.Module()
    module.register_buffer("held", torch.ones(3, dtype=getattr(torch, dtype)))
    again.register_buffer("held", torch.zeros(3, dtype=getattr(torch, dtype)))
    assert fit_to_travel(module) == []
    load_arrays(again, unpack(pack(to_arrays(module), {}))[0])
    assert torch.equal(again.held, module.held)


def test_what_only_a_frozen_part_would_share_is_refused() -> None:
    module = torch.nn.Sequential(linear(lambda layer: layer.requires_grad_(False)), torch.nn.BatchNorm1d(1))
    for pattern in ("0.*", "1.running_*"):
        with pytest.raises(UserError, match="no parameter that is trained travels"):
            FedAvg(rounds=1, share=[pattern]).shared(module)


@pytest.mark.parametrize(
    ("make", "changes", "said"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), False, "SGD with momentum"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), False, "SGD with maximize"),
        (lambda p: torch.optim.AdamW(p), False, "AdamW"),
        (lambda p: torch.optim.SGD(p, lr=0.1), True, "a learning rate that changes"),
        (
            lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 1.0}], lr=0.1),
            False,
            "several learning",
        ),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), False, None),
    ],
)
def test_scaffold_takes_plain_sgd_alone(make: Any, changes: bool, said: str | None) -> None:
    optimizer = make([*torch.nn.Linear(2, 1).parameters()])
    if said is None:
        Scaffold(rounds=1).suits(optimizer, scheduled=changes)
    else:
        with pytest.raises(UserError, match=f"not {said}"):
            Scaffold(rounds=1).suits(optimizer, scheduled=changes)


def test_a_schedule_is_seen_in_every_form() -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert scheduled({"optimizer": optimizer, "lr_scheduler": schedule})
    assert scheduled(([optimizer], [schedule]))
    assert not scheduled(optimizer)
    assert not scheduled([optimizer])
    assert not scheduled(([optimizer], []))


@pytest.mark.parametrize(
    ("value", "wanted", "fitting"),
    [
        ("abc", list[str], False),
        (["a"], list[str], True),
        ([1], list[str], False),
        ({"a": 1.0}, dict[str, float], True),
        ({"a": "b"}, dict[str, float], False),
        (["a"], dict[str, float], False),
        ([1, 2], tuple[int, int], True),
        ("ab", tuple[str, str], False),
        ({"a": {"_target_": "x"}}, dict[str, float], True),
        ("abc", str | list[str], True),
    ],
)
def test_a_text_is_no_list_and_a_list_no_mapping(value: object, wanted: object, fitting: bool) -> None:
    assert fits(value, wanted) == fitting
