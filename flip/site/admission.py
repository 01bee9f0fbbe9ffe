"""Whether a study may run at this site: its policy, its code, its cohort."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flip.messages import Fault, Payload
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg


class Refusal(Exception):
    """The site does not take part, for a reason of the closed list."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass
class Loaded:
    """What a site keeps between the tasks of one study."""

    manifest: Mapping[str, Any]
    module: Any
    datamodule: Any
    strategy: FedAvg
    mechanisms: list[Mechanism]
    outcomes: Any
    persons: int
    agreed: Payload


def loader(data: Any, split: str) -> Any:
    """The loader of a split ("train", "validate" or "test"), or None where the data have no such split."""
    named = {"train": data.train_dataloader, "validate": data.val_dataloader, "test": data.test_dataloader}
    return named[split]() or None


def split_size(data: Any, split: str) -> int:
    """Number of examples in a split ("train", "validate" or "test")."""
    if hasattr(data, "sizes"):
        return int(data.sizes()[split])
    found = loader(data, split)
    return len(found.dataset) if found is not None else 0
