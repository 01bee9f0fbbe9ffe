"""Ditto (Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021)."""

from dataclasses import dataclass

from flip.strategies.fedavg import FedAvg
from flip.strategies.fedprox import FedProx


@dataclass
class Ditto(FedAvg):
    """Federated averaging beside which each site keeps a whole model of its own, on which it is scored.

    The shared weights are FedAvg's, to the bit. In each round a site also trains its own model for as many steps on the
    same batches, and each gradient gains mu * (v - w): v its own weights, w those it was sent (algorithm 1 of the
    paper). Its own model never travels. A site that has not trained, or is only tested on, is scored on the shared one.
    An optimizer's state is not kept between the rounds of the own model.

    Args:
        mu: strength of the pull towards the sent weights, 0 or more; at 0 each site's own model never hears of the
            others. The paper's lambda.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.own  # FedProx raises for a pull below 0

    @property
    def own(self) -> FedAvg | None:
        """The site's half of the fit of its own model."""
        return FedProx(self.rounds, mu=self.mu)
