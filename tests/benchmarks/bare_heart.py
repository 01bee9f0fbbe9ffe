"""The heart-disease study as a bare PyTorch loop, the same arithmetic with nothing around it: what to measure against.

    python tests/benchmarks/bare_heart.py ARRAYS

It reads the arrays that `heart_speed.py` writes with the study's own dataset: `SITE/train/x`, `SITE/train/y`,
`SITE/test/x` and `SITE/test/y`, standardized. It prints the seconds of the rounds and the pooled test accuracy.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

ROUNDS, STEPS, BATCH, RATE, SEED = 15, 100, 4, 1e-3, 42


def main(path: Path) -> None:
    """Train by federated averaging, and test."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = torch.nn.Linear(13, 1)
    arrays = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    sites = list(dict.fromkeys(name.split("/")[0] for name in arrays))
    loaders = [
        DataLoader(TensorDataset(arrays[f"{site}/train/x"], arrays[f"{site}/train/y"]), batch_size=BATCH, shuffle=True)
        for site in sites
    ]
    started = time.perf_counter()
    average(model, loaders)
    print(f"rounds {time.perf_counter() - started:.3f}")
    right = [(model(arrays[f"{site}/test/x"]).squeeze(1) > 0) == arrays[f"{site}/test/y"] for site in sites]
    print(f"accuracy {float(torch.cat(right).float().mean()):.3f}")


def average(model: torch.nn.Module, loaders: list[DataLoader]) -> None:
    """Rounds of federated averaging."""
    loss = torch.nn.BCEWithLogitsLoss()
    examples = sum(len(loader.dataset) for loader in loaders)
    for _ in range(ROUNDS):
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        for loader in loaders:
            model.load_state_dict(weights)
            fit(model, loader, loss)
            for name, tensor in model.state_dict().items():
                total[name] += len(loader.dataset) * tensor
        model.load_state_dict({name: tensor / examples for name, tensor in total.items()})


def fit(model: torch.nn.Module, loader: DataLoader, loss: torch.nn.Module) -> None:
    """A hospital's updates in one round."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    done = 0
    while done < STEPS:
        for features, label in loader:
            optimizer.zero_grad()
            loss(model(features).squeeze(1), label).backward()
            optimizer.step()
            done += 1
            if done == STEPS:
                return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
