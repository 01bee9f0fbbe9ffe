"""Which radiograph a step was made of: gradient inversion on PneumoniaMNIST, from the step and the label alone.

    FLIP_DATA_DIR=data python -m tests.benchmarks.attack_image 8

The attacker looks for images whose gradient points as the step does (cosine distance and total variation: Geiping et
al., NeurIPS 2020), by L-BFGS from the mean of other radiographs, and knows the labels. Networks: the study's own
(ReLU, pooling, a mean over places), and a smooth one without pooling, on which the attack is known to work (Zhu et al.,
NeurIPS 2019). A step of plain SGD is the gradient, and the mechanisms are their arithmetic on it: what is clipped,
summed and noised, at the epsilon of one round.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flip.config.build import initial_module
from flip.privacy.accounting import DISCRETE, noise_for
from tests.studies import compose_study

Gradients = list[Tensor]
Network = Callable[[Tensor], Tensor]  # logits [n] of images [n, 1, h, w]
SITES, CLIP, DELTA = 4, 1.0, 1e-5
VARIATION = 1e-6  # weight of the total variation beside the cosine distance
MEAN, DEVIATION = 0.5, 0.25  # of a pixel from 0 to 1, as the study prepares it


def smooth(side: int = 28) -> nn.Module:
    """Three convolutions and a linear layer, each smooth, none pooled."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 12, 5, 2, 2), nn.Tanh(), nn.Conv2d(12, 12, 5, 2, 2), nn.Tanh()]
    layers += [nn.Conv2d(12, 12, 5, 1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12 * (side // 4) ** 2, 1), nn.Flatten(0)]
    return nn.Sequential(*layers)


def gradients(network: nn.Module, logits: Network, images: Tensor, labels: Tensor, graph: bool = False) -> Gradients:
    """Of the mean cross-entropy, by parameter."""
    loss = nn.functional.binary_cross_entropy_with_logits(logits(images), labels)
    return list(torch.autograd.grad(loss, [*network.parameters()], create_graph=graph))


def invert(
    network: nn.Module, logits: Network, step: Gradients, labels: Tensor, *, start: Tensor, iterations: int = 100
) -> NDArray[np.float64]:
    """The images [n, h, w], from 0 to 1, whose gradient points as the step does; all begin at `start` [1, h, w]."""
    torch.manual_seed(0)
    images = start.repeat(len(labels), 1, 1, 1)
    images = (images + 0.3 * torch.randn(images.shape) * (len(labels) > 1)).requires_grad_(True)
    length = torch.stack([each.norm() for each in step]).norm()
    finder = torch.optim.LBFGS([images], max_iter=iterations, history_size=50, line_search_fn="strong_wolfe",
                               tolerance_grad=1e-12, tolerance_change=1e-14)  # fmt: skip

    def distance() -> Tensor:
        found = gradients(network, logits, images, labels, graph=True)
        product = torch.stack([(a * b).sum() for a, b in zip(found, step, strict=True)]).sum()
        cosine = product / (length * torch.stack([each.norm() for each in found]).norm())
        across, down = images.diff(dim=-1), images.diff(dim=-2)
        value = 1 - cosine + VARIATION * (across.square().mean() + down.square().mean())
        (images.grad,) = torch.autograd.grad(value, images)
        return value.detach()

    finder.step(distance)
    return shown(images.detach()[:, 0])


def shown(prepared: Tensor) -> NDArray[np.float64]:
    """Pixels from 0 to 1 of what a network sees."""
    return (prepared.double().numpy() * DEVIATION + MEAN).clip(0, 1)


def quality(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio in decibels, of two images from 0 to 1."""
    return float(-10 * np.log10(max(np.square(found - true).mean(), 1e-12)))


@dataclass(frozen=True)
class Mechanism:
    """What of a round the attacker sees: of one image at one site, or of one at each of four."""

    sites: int = 1
    images: int = 1  # in the batch of a site
    noise: float = 0.0  # deviation in what is sent
    clip: float | None = None

    def step(self, each: list[Gradients]) -> Gradients:
        """The mean of the gradients of all images, each clipped, under the noise."""
        clipped = [self._clipped(one) for one in each]
        mean = [torch.stack(parts).mean(0) for parts in zip(*clipped, strict=True)]
        return [part + self.noise * torch.randn(part.shape) for part in mean]

    def _clipped(self, one: Gradients) -> Gradients:
        length = float(torch.stack([part.norm() for part in one]).norm())
        return one if self.clip is None else [part * min(1.0, self.clip / length) for part in one]


def mechanisms(epsilon: float = 8.0) -> dict[str, Mechanism]:
    """Each with the noise that one round needs; all of a step's rows are taken (rate 1)."""
    person = noise_for(epsilon, DELTA, 1.0, 1, mechanism="dp_sgd") * CLIP
    site = noise_for(epsilon, DELTA, 1.0, 1, mechanism="local_dp", law=DISCRETE) * 2 * CLIP
    return {
        "none, 1 image": Mechanism(),
        "none, 4 images in a batch": Mechanism(images=4),
        "secure_aggregation, 1 image at each of 4 sites": Mechanism(sites=SITES),
        f"dp_sgd {epsilon:g}, 1 image": Mechanism(noise=person, clip=CLIP),
        f"local_dp {epsilon:g}, 1 image": Mechanism(noise=site, clip=CLIP),
        f"distributed_dp {epsilon:g}, 1 image at each of 4": Mechanism(sites=SITES, noise=site / SITES, clip=CLIP),
    }


def main(seeds: int) -> None:
    """Print the quality for each network and mechanism: the best image of each attack, beside the mean radiograph's."""
    data = Path(os.environ["FLIP_DATA_DIR"])
    archive = np.load(data / "pneumoniamnist" / "pneumoniamnist_reconstructed.npz")
    pixels, labels = archive["train_images"] / 255, torch.from_numpy(archive["train_labels"][:, 0]).float()
    prepared = ((torch.from_numpy(pixels) - MEAN) / DEVIATION).float()[:, None]
    start = prepared[1000:].mean(0)  # those that are attacked are among the others
    study = compose_study("experiment=chest_xray", "federation=inprocess", f"paths.data_dir={data}")
    own, known = initial_module(study.manifest).eval(), smooth()
    networks = {"smooth": (known, known), "the study's own": (own, lambda images: own({"image": images}).reshape(-1))}
    for network, (module, logits) in networks.items():
        for name, seen in mechanisms().items():
            best, plain = [], []
            for seed in range(seeds):
                torch.manual_seed(seed)
                chosen = np.random.default_rng(seed).choice(1000, seen.sites * seen.images, replace=False)
                each = [gradients(module, logits, prepared[[one]], labels[[one]]) for one in chosen]
                found = invert(module, logits, seen.step(each), labels[chosen], start=start)
                pairs = [(quality(image, pixels[one]), one) for image in found for one in chosen]
                best.append(max(pairs)[0])
                plain.append(quality(shown(start[0]), pixels[max(pairs)[1]]))
            told = [f"{np.median(part):.1f} ({min(part):.1f} to {max(part):.1f}) dB" for part in (best, plain)]
            print(f"{network} | {name} | {told[0]} | the mean radiograph {told[1]}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
