"""`devices: N` of a site's file: processes that share each batch, and train what one device would."""

import json
import multiprocessing
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from flip.cli.execute import execute
from flip.config import build
from flip.config.checks.devices import device_problems, unfit_devices
from flip.config.checks.study import check
from flip.config.schema import Site
from flip.determinism import seed_fit
from flip.errors import UserError
from flip.messages.safetensors import load_file, pack
from flip.messages.weights import LAST_WEIGHTS
from flip.site.admission import protected
from flip.site.audit import Forbidden, under
from flip.site.audit_events import Guard
from flip.site.devices import Part, fit_on, received, run, seed_device
from flip.site.refusal import Refusal
from flip.site.share import Share, SharedBatches, join
from flip.site.trainer import Device, RoundCallback
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

SITE = {"root": "", "policy": {}}
ROUND = ["federation=inprocess", "strategy.rounds=1"]


@pytest.mark.slow
def test_two_devices_train_what_one_does_and_the_page_says_so(tmp_path: Path) -> None:
    data = write_tiny_heart(tmp_path / "data")
    one = execute(tiny_heart_study(data, *ROUND), tmp_path / "one")
    two = execute(tiny_heart_study(data, *ROUND, "sites.va.devices=2"), tmp_path / "two")
    assert (one["status"], two["status"]) == ("ok", "ok"), two
    weights, others = (load_file(tmp_path / run / LAST_WEIGHTS)[0] for run in ("one", "two"))
    assert max(np.abs(weights[name] - others[name]).max() for name in weights) < 1e-6
    fits = [[*map(json.loads, (tmp_path / run / "rounds.jsonl").read_text().splitlines())] for run in ("one", "two")]
    losses = [{f"{x['site']}": x["metrics"]["loss"] for x in each if x["phase"] == "fit"} for each in fits]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert "va trains on 2 devices" in (tmp_path / "two" / "report.html").read_text()
    assert "devices" not in json.loads((tmp_path / "one" / "provenance.json").read_text())["hardware"]


def test_every_row_of_a_batch_is_one_device_s_and_weighs_as_much_as_among_all() -> None:
    shares = [Share(number, 3) for number in range(3)]
    rows = [each.rows([*range(7)]) for each in shares]
    assert sorted(row for each in rows for row in each) == [*range(7)]
    assert [each.weights.popleft() for each in shares] == [3 / 7, 2 / 7, 2 / 7]


def test_a_device_without_rows_of_a_batch_steps_along_and_weighs_nothing() -> None:
    share = Share(2, 3)
    assert (share.rows([4, 5]), share.weights.popleft()) == ([4], 0)


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    with join(str(tmp_path / "meeting"), share := Share(0, 1), None):
        yield share


def test_what_has_no_gradient_keeps_none_and_the_loss_counts_by_its_rows(alone: Share) -> None:
    module = torch.nn.Linear(2, 1)
    module.training_step = lambda batch, batch_idx: {"loss": module.weight.sum() * batch}
    alone.weigh(module)
    alone.weights.append(0.25)
    module.training_step(2.0, 0)["loss"].backward()
    alone.sum_gradients([*module.parameters()])
    assert (module.weight.grad.tolist(), module.bias.grad) == ([[0.5, 0.5]], None)


def test_a_batch_is_dealt_out_as_the_first_process_draws_it(alone: Share) -> None:
    assert [*SharedBatches([[3, 1], [2]], alone)] == [[3, 1], [2]]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"devices": 0}, "devices: 0 must be 1 or more"),
        ({"devices": 2, "accelerator": "mps"}, "devices: 2 of accelerator: mps; write gpu, or devices: 1"),
        ({"devices": 99, "accelerator": "gpu"}, "devices: 99, and torch finds "),
        ({"devices": 2, "precision": "16-mixed"}, "write bf16-mixed"),
    ],
)
def test_devices_that_a_site_cannot_have_are_named(site: dict[str, object], words: str) -> None:
    (problem,) = device_problems(Site(**SITE, **site), here=True)
    assert words in problem


def test_an_optimizer_that_hangs_on_the_loss_of_one_device_is_refused(tmp_path: Path) -> None:
    manifest = tiny_heart_study(write_tiny_heart(tmp_path), "model.optimizer._target_=torch.optim.LBFGS").manifest
    one, two = (Site(**SITE, devices=number) for number in (1, 2))
    module = build.initial_module(manifest)
    assert "LBFGS" in unfit_devices(two, manifest, module, [], {})
    assert not unfit_devices(one, manifest, module, [], {})


@pytest.mark.parametrize("more", [["federation=none"], ["federation=inprocess", "privacy=dp_sgd"]])
def test_a_study_that_one_device_alone_can_train_is_refused_before_the_run(tmp_path: Path, more: list[str]) -> None:
    with pytest.raises(UserError, match=r"sites\.va\.devices.*set devices: 1"):
        check(tiny_heart_study(write_tiny_heart(tmp_path), *more, "sites.va.devices=2"))


def test_a_site_refuses_it_by_itself(tmp_path: Path) -> None:
    study = tiny_heart_study(write_tiny_heart(tmp_path), "privacy=dp_sgd")
    site = replace(study.sites["va"], devices=2)
    manifest = study.manifest
    module, mechanisms = build.initial_module(manifest), build.mechanisms(manifest)
    with pytest.raises(Refusal, match="devices: 2 in the site's file: its privacy mechanism"):
        protected(module, manifest, site, mechanisms)


def test_noise_is_drawn_otherwise_at_each_further_device_and_the_first_draws_the_fit_s_own() -> None:
    seed_fit(1, "va", 1)
    seeds = torch.get_rng_state(), np.random.get_state(), random.getstate(), torch.initial_seed()

    def drawn() -> list[float]:
        return [torch.rand(1).item(), np.random.rand(), random.random()]

    def drawn_by(number: int) -> list[float]:
        seed_device(Part(number, 3, "", 1, None, seeds))
        return drawn()

    fit, (first, second, third) = drawn(), map(drawn_by, range(3))
    assert first == fit
    assert len({*first, *second, *third}) == 9
    assert drawn_by(2) == third


def test_what_a_device_tries_beyond_the_site_s_guard_is_told_and_not_done(tmp_path: Path, monkeypatch) -> None:
    for name in ("end_with_parent", "configure_torch", "signal.signal"):
        monkeypatch.setattr(f"flip.site.devices.{name}", lambda *_: None)
    monkeypatch.setattr("flip.site.devices.trained", lambda *_: (tmp_path / "elsewhere").write_text(""))
    here, there = multiprocessing.Pipe(duplex=False)
    part = Part(0, 2, "", 1, Guard((str(tmp_path / "own"),)), ())
    run(there, part, torch.nn.Linear(1, 1), [], 1, Device("cpu", None, {}, 2), RoundCallback())
    with pytest.raises(UserError, match="Forbidden"):
        received(here, 2)
    assert not (tmp_path / "elsewhere").exists()


def rows() -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)


def test_devices_that_end_with_other_weights_are_no_training(monkeypatch) -> None:
    ends = [{"weights": {"weight": np.full((1, 1), number, np.float32)}} for number in range(2)]
    monkeypatch.setattr("flip.site.devices.started", lambda *_: ends)
    with pytest.raises(UserError, match="the devices did not step alike"):
        fit_on(torch.nn.Linear(1, 1), rows(), steps=1, device=Device("cpu", None, {}, 2), callback=RoundCallback())


def test_rows_that_come_one_after_the_other_are_not_dealt_out() -> None:
    class Rows(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(UserError, match="no batch can be dealt out; set devices: 1"):
        fit_on(
            torch.nn.Linear(1, 1),
            DataLoader(Rows()),
            steps=1,
            device=Device("cpu", None, {}, 2),
            callback=RoundCallback(),
        )


def test_what_a_module_counts_is_the_mean_over_devices(monkeypatch) -> None:
    module = torch.nn.BatchNorm1d(2)
    module.running_mean[:] = torch.tensor([1.0, 3.0])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda each: each.add_(3.0))  # the other one's
    Share(0, 2).mean_buffers(module)
    assert module.running_mean.tolist() == [2.0, 3.0]


def test_the_process_of_a_device_is_under_the_site_s_guard(tmp_path: Path) -> None:
    with under(Guard((str(tmp_path / "own"),))), pytest.raises(Forbidden):
        (tmp_path / "elsewhere").write_text("")


def test_what_a_device_raises_and_one_that_is_gone_are_told() -> None:
    here, there = multiprocessing.Pipe(duplex=False)
    for arrays in ({"text": np.frombuffer(b"ValueError: no", np.uint8)}, {}, {}, {}):
        there.send_bytes(pack(arrays, {}))
    with pytest.raises(UserError, match="devices: 2 in the site's file: ValueError: no"):
        received(here, 2)
    there.close()
    with pytest.raises(UserError, match="a process ended in the midst of its fit"):
        received(here, 2)
