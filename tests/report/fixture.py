"""Run folders as the engine writes them, made from arrays: material of the tests of reports, display and tracking.

`Page` reads a report back.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

SITES = {"cleveland": (303, 199, 104), "hungarian": (261, 172, 89), "switzerland": (46, 30, 16), "va": (130, 85, 45)}
CONFIG = """\
# python -m flip --config-dir runs/heart_disease/2026-11-24_07-25-01.123456 --config-name run
defaults:
  - federation: {backend}
  - sites: [cleveland, hungarian, switzerland, va]
  - _self_
hydra:
  run:
    dir: /srv/coordinator/runs
name: heart_disease
seed: {seed}
dataset:
  _target_: datamodules.tabular.Tabular
  batch_size: 4
  scaling: site
model:
  _target_: models.tabular.LogisticRegression
  features: 13
  optimizer: {{_target_: torch.optim.SGD, _partial_: true, lr: 1e-3}}
outcomes: null
resume_from: /srv/coordinator/last.ckpt
model_from: /srv/coordinator/run
strategy:
  _target_: flip.strategies.{strategy}
  rounds: {rounds}
  fraction: 1.0
privacy: {privacy}
paths:
  data_dir: /srv/coordinator/data
  runs: runs
"""


def write_run(
    folder: Path,
    *,
    sites: Mapping[str, tuple[int, int, int]] = SITES,
    rounds: int = 15,
    seed: int = 42,
    backend: str = "inprocess",
    strategy: str = "fedavg.FedAvg",
    validation: bool = True,
    baselines: bool = True,
    faults: Mapping[tuple[str, int], str] | None = None,
    refused: Mapping[str, str] | None = None,
    unasked: Sequence[tuple[str, int]] = (),
    epsilon: float | None = None,
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write a complete run folder; `faults` by (site, round), `refused` by site, `result` overrides result.json."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    refused = dict(refused or {})
    privacy = "{dp_sgd: {_target_: flip.privacy.dp_sgd.DPSGD, target_epsilon: 4.0}}" if epsilon else "{}"
    config = CONFIG.format(backend=backend, seed=seed, strategy=strategy, rounds=rounds, privacy=privacy)
    (folder / "run.yaml").write_text(config)
    records = statistics_lines(sites, refused)
    for number in range(rounds):
        records += round_lines(
            draw,
            sites,
            number,
            validation=validation,
            epsilon=epsilon,
            faults=faults or {},
            skip={*unasked, *((s, number) for s in refused)},
        )
    (folder / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "cohort.json", {name: cohort(name, sizes, refused.get(name)) for name, sizes in sites.items()})
    write_json(folder / "provenance.json", provenance(folder, backend))
    spent = {name: {"epsilon": epsilon, "delta": 1e-5} for name in sites if name not in refused} if epsilon else {}
    final = {
        "status": "ok",
        "reason": "",
        "digest": f"{seed:02x}7ac3f09b11e2d45a" * 4,
        "rounds": rounds,
        "seconds": 4.82,
        "privacy": {"unit": "person", "epsilon": epsilon, "delta": 1e-5, "by_site": spent} if epsilon else None,
        "metrics": metrics(draw, [name for name in sites if name not in refused], baselines=baselines),
    }
    write_json(folder / "result.json", {**final, **(result or {})})
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def cohort(name: str, sizes: tuple[int, int, int], refused: str | None) -> dict[str, Any]:
    persons, train, test = sizes
    lost = {"a declared feature is missing": 7, "the label is missing": 2} if name in ("hungarian", "va") else {}
    return {
        "persons": persons,
        "train": train,
        "validate": 0,
        "test": test,
        "trains": True,
        "skipped": lost,
        "fault": refused,
    }


def provenance(folder: Path, backend: str) -> dict[str, Any]:
    return {
        "manifest_sha256": "ab12" * 16,
        "code_sha256": "cd34" * 16,
        "git": {"commit": "0f3a9c1d2b4e5f60718293a4b5c6d7e8f9012345", "dirty": True},
        "versions": {
            "flip": "0.1.0",
            "torch": "2.13.0",
            "pytorch-lightning": "2.6.6",
            "monai": "1.6.1",
            "numpy": "2.4.6",
        },
        "hardware": {"processor": "x86_64", "cores": 2, "threads": 1, "memory_gb": 15.6, "accelerator": "cpu"},
        "command": "python -m flip experiment=heart_disease federation=inprocess",
        "rerun": f"python -m flip --config-dir runs/heart_disease/{folder.name} --config-name run",
        "started": "2026-11-24T07:25:01.123456+00:00",
        "backend": backend,
        "simulated": True,
    }


def line(round_: int, site: str, phase: str, **fields: Any) -> dict[str, Any]:
    blank = {
        "examples": 0,
        "metrics": {},
        "bytes_down": 0,
        "bytes_up": 0,
        "seconds": 0.0,
        "fault": None,
        "privacy": None,
    }
    return {"round": round_, "site": site, "phase": phase, **blank, **fields}


def statistics_lines(sites: Mapping[str, tuple[int, int, int]], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        line(0, name, "statistics", examples=sizes[1], seconds=0.02, fault=refused.get(name))
        for name, sizes in sites.items()
    ]


def round_lines(
    draw: np.random.Generator,
    sites: Mapping[str, tuple[int, int, int]],
    number: int,
    *,
    validation: bool,
    epsilon: float | None,
    faults: Mapping[tuple[str, int], str],
    skip: set[tuple[str, int]],
) -> list[dict[str, Any]]:
    """One round: a fit by each site that was asked, then validation by site and pooled."""
    fits, scores = [], []
    for index, (name, (_, train, test)) in enumerate(sites.items()):
        if (name, number) in skip:
            continue
        fault = faults.get((name, number))
        loss = 0.38 + 0.05 * index + 0.4 * math.exp(-number / 5) + float(draw.normal(0, 0.012))
        spent = (
            {"epsilon": epsilon * math.sqrt((number + 1) / 15), "delta": 1e-5, "unit": "person"} if epsilon else None
        )
        done = (
            {}
            if fault
            else {"examples": train, "metrics": {"loss": loss}, "bytes_up": 1410 + 9 * index, "privacy": spent}
        )
        fits.append(line(number, name, "fit", bytes_down=2210, seconds=0.05 + 0.01 * index, fault=fault, **done))
        if validation and not fault:
            score = 0.8 - 0.03 * index - 0.25 * math.exp(-number / 4) + float(draw.normal(0, 0.008))
            scores.append(
                line(
                    number,
                    name,
                    "validate",
                    examples=test,
                    metrics={"accuracy": score, "loss": loss + 0.03},
                    seconds=0.01,
                )
            )
    if scores:
        mean = {key: float(np.mean([record["metrics"][key] for record in scores])) for key in ("accuracy", "loss")}
        scores.append(line(number, "pooled", "validate", examples=sum(r["examples"] for r in scores), metrics=mean))
    return fits + scores


def metrics(draw: np.random.Generator, sites: Sequence[str], *, baselines: bool) -> dict[str, float]:
    values = {"test/pooled/accuracy": 0.779, "test/pooled/auroc": 0.851, "test/pooled/loss": 0.482}
    for index, name in enumerate(sites):
        values |= {
            f"test/site/{name}/accuracy": 0.78 - 0.035 * index,
            f"test/site/{name}/auroc": 0.86 - 0.03 * index,
            f"test/site/{name}/loss": 0.45 + 0.04 * index,
        }
    if not baselines:
        return values
    values["baseline/centralized/test/pooled/accuracy"] = 0.795
    for index, name in enumerate(sites):
        values[f"baseline/centralized/test/site/{name}/accuracy"] = 0.79 - 0.03 * index
        values[f"baseline/alone/{name}/test/pooled/accuracy"] = 0.70 - 0.03 * index
        for other in sites:
            values[f"baseline/alone/{name}/test/site/{other}/accuracy"] = (
                (0.75 if name == other else 0.62) - 0.02 * index + float(draw.normal(0, 0.02))
            )
    return values


class Page(HTMLParser):
    """Text, elements and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
