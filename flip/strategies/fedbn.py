"""FedBN (Li et al., "Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flip.errors import UserError
from flip.strategies.fedavg import FedAvg, trained_among

if TYPE_CHECKING:
    import torch


@dataclass
class FedBN(FedAvg):
    """Federated averaging in which normalization layers stay at each site.

    What stays is every parameter and buffer of a batch-norm or instance-norm layer, found by the layer's type and not
    by its
    name: both hold one scale and shift by channel, which is where scanners and protocols differ. The paper has batch
    norm; MONAI's networks use instance norm (which has parameters only with `affine: true`). Layer and group norm
    travel; to keep them too, name the rest in `share`. A site that does not train keeps the initial layers.
    """

    def shared(self, module: "torch.nn.Module") -> list[str]:
        """Names that travel. Raises UserError for a model with nothing to keep, in which FedBN would be FedAvg."""
        from torch.nn.modules.batchnorm import _NormBase  # the base of every batch-norm and instance-norm layer

        from flip.messages.weights import plain_name

        layers = [plain_name(f"{name}.") for name, layer in module.named_modules() if isinstance(layer, _NormBase)]
        everything = super().shared(module)
        travels = [name for name in everything if not name.startswith(tuple(layers))]
        if len(travels) == len(everything):
            raise UserError(
                "strategy=fedbn: the model has no batch-norm or affine instance-norm layer to keep; use strategy=fedavg"
            )
        return trained_among(module, travels)
