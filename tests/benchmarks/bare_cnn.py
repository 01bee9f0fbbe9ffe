"""The small study of images as a bare PyTorch loop: python tests/benchmarks/bare_cnn.py FOLDER"""

import sys
import time
from pathlib import Path

import torch
from small_cnn import BATCH, RATE, ROUNDS, SEED, Network, read
from torch.utils.data import DataLoader, TensorDataset


def main(folder: Path) -> None:
    """Train by federated averaging, and test."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, loss = Network(), torch.nn.CrossEntropyLoss()
    sites = [read(path) for path in sorted(folder.glob("*.npz"))]
    loaders = [DataLoader(TensorDataset(*train), batch_size=BATCH, shuffle=True) for train, _ in sites]
    started = time.perf_counter()
    for _ in range(ROUNDS):
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        for loader in loaders:
            model.load_state_dict(weights)
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
            for images, label in loader:
                optimizer.zero_grad()
                loss(model(images), label).backward()
                optimizer.step()
            for name, tensor in model.state_dict().items():
                total[name] += tensor
        model.load_state_dict({name: tensor / len(loaders) for name, tensor in total.items()})
    print(f"rounds {time.perf_counter() - started:.3f}")
    with torch.inference_mode():
        right = torch.cat([model(images).argmax(1) == label for _, (images, label) in sites])
    print(f"accuracy {float(right.float().mean()):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
