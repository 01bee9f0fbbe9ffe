"""The small study of images with pfl-research, where it is installed: python tests/benchmarks/pfl_cnn.py FOLDER"""

import sys
import time
from pathlib import Path

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from small_cnn import BATCH, RATE, ROUNDS, SEED, Network, read


class Model(Network):
    """The network with the two methods that pfl asks for."""

    def loss(self, images: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return torch.nn.functional.cross_entropy(self(images), label)

    def metrics(self, images: torch.Tensor, label: torch.Tensor) -> dict:
        """Nothing while it trains."""
        return {}


def main(folder: Path) -> None:
    """Train by federated averaging, and test."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    sites = [read(path) for path in sorted(folder.glob("*.npz"))]
    network = Model()
    model = PyTorchModel(
        network,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
    )
    data = FederatedDataset(
        lambda site: PyTorchTensorDataset(tensors=list(sites[site][0])),
        get_user_sampler("minimize_reuse", list(range(len(sites)))),
    )
    started = time.perf_counter()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=ROUNDS, evaluation_frequency=ROUNDS, train_cohort_size=len(sites), val_cohort_size=1
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH),
    )
    print(f"rounds {time.perf_counter() - started:.3f}")
    with torch.inference_mode():
        right = torch.cat([network(images).argmax(1) == label for _, (images, label) in sites])
    print(f"accuracy {float(right.float().mean()):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
