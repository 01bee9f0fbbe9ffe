"""`init`: training begins from weights that were trained elsewhere, and the seeded ones fill the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from flip.messages.match import match
from flip.messages.model_file import load_model
from flip.messages.weights import digest, to_arrays
from flip.messages.weights_file import read_weights
from tests.cohorts.trained import data, result_of, trained_on
from tests.studies import compose_study, tiny_heart_study

__all__ = ["data"]  # a fixture
STILL = ("model.optimizer.lr=1e-30", "strategy.rounds=1")  # rounds that change nothing


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run at all four hospitals."""
    return trained_on(data, tmp_path_factory.mktemp("trained") / "run")


def beginning(data: Path, *words: str) -> Study:
    study = tiny_heart_study(data, *words)
    check(study)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "median", "cyclic"])
def test_rounds_that_change_nothing_score_as_the_run_that_they_begin_from(data, trained, tmp_path, strategy):
    words = [f"strategy={strategy}", "federation=inprocess", f"init={trained}"]
    words += ["strategy.server_lr=1e-30"] if strategy == "fedadam" else []
    study = beginning(data, *words, *STILL)
    result = execute(study, tmp_path / "run")
    then = result_of(trained)["metrics"]
    same = {name: value for name, value in then.items() if name.startswith("test/")}
    assert {name: result["metrics"].get(name) for name in same} == same
    assert study.manifest["given"] == [result_of(trained)["digest"]]


@pytest.mark.slow
def test_baselines_begin_from_them_too(data, trained, tmp_path):
    words = ["federation=inprocess", f"init={trained}", *STILL, "trainer.centralized.optimizer=null"]
    study = beginning(data, *words, "baselines.alone=true", "baselines.centralized=true")
    found, then = execute(study, tmp_path / "run")["metrics"], result_of(trained)["metrics"]
    assert found["baseline/alone/cleveland/test/site/va/accuracy"] == then["test/site/va/accuracy"]
    pooled = then["test/rescaled/pooled/loss"]  # its rows are scaled so
    assert found["baseline/centralized/test/pooled/loss"] == pooled


def test_a_later_training_goes_on_without_federation(data, trained, tmp_path):
    words = ["federation=none", f"init={trained}", STILL[0], "trainer.centralized.optimizer=null"]
    assert execute(beginning(data, *words), tmp_path / "run")["digest"] == result_of(trained)["digest"]


@pytest.mark.slow
def test_it_runs_again_and_the_folder_says_what_was_taken(data, trained, tmp_path, capsys):
    first = execute(beginning(data, "federation=inprocess", f"init={trained}"), tmp_path / "run")
    assert "taken: 2: linear.bias, linear.weight" in (tmp_path / "run" / "init.txt").read_text()
    again = execute(compose_study(config_dir=tmp_path / "run", config_name="run"), tmp_path / "again")
    assert first["digest"] == again["digest"] != result_of(trained)["digest"]


def test_every_form_of_a_file_gives_the_same_arrays(trained, tmp_path):
    weights = load_model(trained).weights
    state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"width": 4}}, tmp_path / "lightning.ckpt")
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    (bundle / "configs" / "metadata.json").write_text("{}")
    torch.save(state, bundle / "models" / "model.pt")
    for path in (trained, trained / "weights" / "best.safetensors", *tmp_path.iterdir()):
        if path.name != "best.safetensors" or path.exists():
            found = read_weights(path)
            assert {*found} == {*weights}
    assert {digest(read_weights(path)) for path in tmp_path.iterdir()} == {digest(weights)}


class Loud:
    """What a pickle would call."""

    def __reduce__(self):
        return (print, ("opened",))


def test_what_cannot_be_used_is_refused_by_name_and_never_run(data, tmp_path, capsys):
    torch.save({"state_dict": Loud()}, tmp_path / "code.pt")
    torch.save({"a": "text"}, tmp_path / "none.pt")
    torch.save({"other.weight": torch.ones(3)}, tmp_path / "other.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"x" * 30)
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("{}")
    (tmp_path / "weights.h5").write_text("x")
    for name, words in (
        ("code.pt", "holds more than tensors"),
        ("none.pt", "holds no tensors by name"),
        ("other.pt", "it has other.weight [3], and the model linear.bias [1], linear.weight [1, 13]; name weights"),
        ("cut.safetensors", "is no safetensors file"),
        ("bundle", "is a bundle without models/model.pt"),
        ("weights.h5", "is of no kind that weights are read from"),
        ("nowhere", "is no file"),
    ):
        with pytest.raises(UserError) as refused:
            beginning(data, f"init={tmp_path / name}", "federation=inprocess")
        assert "init" in str(refused.value) and words in str(refused.value)
    assert "opened" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["job=check"], "job=check trains nothing; set init=null"),
        (["resume_from=last.ckpt", "federation=none"], "begins from no other; set one to null"),
    ],
)
def test_a_start_without_a_use_is_refused(data, trained, words, mistake):
    with pytest.raises(UserError, match=mistake):
        beginning(data, f"init={trained}", *words)


def test_arrays_are_matched_by_name_and_shape_with_one_prefix_exchanged(data):
    own = {"network.a.weight": np.zeros((2, 3)), "network.a.bias": np.zeros(2), "head.weight": np.zeros((4, 2))}
    file = {"module.a.weight": np.ones((2, 3)), "module.a.bias": np.ones(2), "fc.weight": np.ones((9, 2))}
    found = match(own, file)
    assert sorted(found.taken) == ["network.a.bias", "network.a.weight"]
    assert (found.left_out, found.missing, found.prefixes) == (["fc.weight"], ["head.weight"], ("module.", "network."))
    other = match(own, {**own, "head.weight": np.ones((9, 2))})
    assert other.differing == {"head.weight": ((9, 2), (4, 2))}
    assert [line for line in other.lines() if "shape" in line] == [
        "of another shape, so seeded: 1: head.weight ([9, 2] in the file, [4, 2])"
    ]


def test_an_encoder_with_adapters_takes_the_file_of_the_one_without():
    inside = "encoders.image.encoder.network."
    adapted = {"qkv.base_layer.weight": np.zeros((6, 2)), "qkv.lora_A.default.weight": np.zeros((1, 2))}
    own = {f"{inside}{name}": array for name, array in {**adapted, "norm.weight": np.zeros(2)}.items()}
    found = match({**own, "head.weight": np.zeros(2)}, {"qkv.weight": np.ones((6, 2)), "norm.weight": np.ones(2)})
    assert sorted(found.taken) == [f"{inside}norm.weight", f"{inside}qkv.base_layer.weight"]
    assert found.missing == [f"{inside}qkv.lora_A.default.weight", "head.weight"]
    assert found.prefixes == ("", inside)
    assert len(match(own, own).taken) == 3  # a run of the same study is taken as it is


def test_the_seeded_weights_fill_the_rest(data, tmp_path):
    torch.save({"linear.bias": torch.full((1,), 5.0)}, tmp_path / "bias.pt")
    study = beginning(data, f"init={tmp_path / 'bias.pt'}", "federation=inprocess", *STILL)
    execute(study, tmp_path / "run")
    found, seeded = load_model(tmp_path / "run").weights, to_arrays(initial_module(study.manifest))
    assert found["linear.bias"].tolist() == [5.0]
    assert np.allclose(found["linear.weight"], seeded["linear.weight"])
