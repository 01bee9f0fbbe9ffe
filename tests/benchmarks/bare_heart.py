"""The heart-disease study as a bare PyTorch loop, the same arithmetic with nothing around it: what to measure against.

python tests/benchmarks/bare_heart.py DATA_DIR
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
NUMERIC, PAIN, ECG, LABEL = (0, 1, 3, 4, 5, 7, 8, 9), 2, 6, 13
ROUNDS, STEPS, BATCH, RATE, SEED = 15, 100, 4, 1e-3, 42


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 13] and label [n] of the complete rows."""
    with path.open() as file:
        rows = np.array([[float("nan") if cell == "?" else float(cell) for cell in row] for row in csv.reader(file)])
    rows = rows[~np.isnan(rows[:, [*NUMERIC, PAIN, ECG, LABEL]]).any(axis=1)]
    columns = [rows[:, index] for index in NUMERIC]
    columns += [rows[:, PAIN] == level for level in (2, 3, 4)] + [rows[:, ECG] == level for level in (1, 2)]
    return np.stack(columns, axis=1).astype(float), (rows[:, LABEL] > 0).astype(np.float32)


def tensors(features: np.ndarray, label: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> TensorDataset:
    """Standardized rows."""
    scaled = ((features - mean) / (deviation + 1e-9)).astype(np.float32)
    return TensorDataset(torch.from_numpy(scaled), torch.from_numpy(label))


def main(folder: Path) -> float:
    """Train by federated averaging, and return the pooled test accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = torch.nn.Linear(13, 1)
    train, test = [], []
    for hospital in HOSPITALS:
        features, label = read(folder / "uci_heart" / f"processed.{hospital}.data")
        stratify = label if min(np.unique(label, return_counts=True)[1]) > 2 else None
        first, second = train_test_split(
            np.arange(len(label)), train_size=0.66, test_size=0.34, random_state=43, stratify=stratify
        )
        train.append((features[first], label[first]))
        test.append((features[second], label[second]))
    loaders = [
        DataLoader(tensors(x, y, x.mean(axis=0), x.std(axis=0, ddof=1)), batch_size=BATCH, shuffle=True)
        for x, y in train
    ]
    loss = torch.nn.BCEWithLogitsLoss()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(ROUNDS):
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        for loader in loaders:
            model.load_state_dict(weights)
            fit(model, loader, loss)
            for name, tensor in model.state_dict().items():
                total[name] += len(loader.dataset) * tensor
        weights = {name: tensor / sum(len(loader.dataset) for loader in loaders) for name, tensor in total.items()}
    model.load_state_dict(weights)
    pooled = np.concatenate([x for x, _ in train])
    right = count = 0
    for x, y in test:
        rows = tensors(x, y, pooled.mean(axis=0), pooled.std(axis=0, ddof=1))
        right += int(((model(rows.tensors[0]).squeeze(1) > 0) == rows.tensors[1]).sum())
        count += len(rows)
    return right / count


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
    print(f"pooled test accuracy {main(Path(sys.argv[1])):.3f}")
