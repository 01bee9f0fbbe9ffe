"""A site's half of a strategy without a site: a small module, plain SGD, and a store in memory."""

from dataclasses import dataclass, field

import numpy as np
import torch

from flip.messages.weights import load_arrays, to_arrays

RATE = 0.1


@dataclass
class MemoryLocal:
    """What a site lends to the strategy, kept in memory."""

    steps: int = 1
    learning_rate: float = RATE
    kept: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def load(self, name):
        return self.kept.get(name)

    def save(self, name, arrays):
        self.kept[name] = dict(arrays)


def linear() -> torch.nn.Linear:
    """The same small module each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)


def data(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight examples; another seed is another site."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator) + seed


def fit(strategy, module, asked, local, *, site: int = 1):
    """One fit as a site does it: full batches, the correction as a hook before each step. Returns weights and state."""
    load_arrays(module, asked.weights)
    strategy.before_fit(local, asked)
    optimizer = torch.optim.SGD(module.parameters(), lr=local.learning_rate)
    parameters = dict(module.named_parameters())
    optimizer.register_step_pre_hook(lambda *_: strategy.correct(parameters))
    inputs, targets = data(site)
    for _ in range(local.steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module(inputs), targets).backward()
        optimizer.step()
    after = to_arrays(module)
    return after, strategy.after_fit(local, asked.weights, after)
