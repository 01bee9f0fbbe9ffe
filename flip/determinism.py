"""What makes runs equal to the bit: seeds that are a stable hash, threads, and deterministic kernels."""

import hashlib
import os

from pytorch_lightning import seed_everything


def seed_fit(seed: int, site: str, round: int) -> None:
    """Seed every generator that batches and augmentation draw from, as a function of (seed, site, round)."""
    seed_everything(stable_seed(seed, site, round) % 2**32, verbose=False)


def configure_torch(threads: int) -> None:
    """Fix what makes results differ between processes: the number of threads, and nondeterministic kernels."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA's matrix products need to be deterministic
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def stable_seed(*parts: str | int) -> int:
    """Hash any parts into a seed of 63 bits, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
