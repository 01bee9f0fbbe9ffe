"""`numerics: portable`: the same bits on every x86-64 processor with AVX2.

The libraries that compute choose their code by the processor, and another order of additions gives other last bits.
With these variables they all take the code of one kind of processor. They are read when a library is loaded, or when it
first computes: so they are set before numpy and torch, and every process that is started afterwards inherits them.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

from flip.errors import UserError

FAST, PORTABLE = "fast", "portable"
VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # MKL's matrix products and LAPACK; with AVX2 they differ between Intel and AMD
    "MKL_VML_DEBUG_CPU_TYPE": "1",  # its sqrt, asin and atan: exact, where others begin with rsqrtps (MKL_CBWR ignored)
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions and recurrent networks
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's matrix products
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",  # numpy's own kernels, among them exp, log and sort; the name is of numpy 2.4
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",  # torch's own threads are `trainer.threads`
}
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # change no result of a study: torch has `trainer.threads`
OTHERS = (
    "NPY_DISABLE_CPU_FEATURES", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
COMPATIBLE, EXACT = 3, 1  # what MKL then says of itself
REMEDY = "A site or server of a live federation starts so with numerics: portable in its kit.yaml"
NEEDED = frozenset({"avx2", "fma"})  # flags of /proc/cpuinfo


def choose(numerics: object) -> None:
    """Have this process, and all that it starts, compute so. Raises UserError where it is too late, or cannot be.

    `numerics` is what the configuration says, `fast` or `portable`; anything else is for the check of the schema.
    """
    chosen = all(os.environ.get(name) == value for name, value in VARIABLES.items())
    if numerics == FAST and chosen:
        raise UserError(
            "numerics=fast: this process computes portably already, by its environment; start another one for it"
        )
    if numerics != PORTABLE or chosen:
        return
    if not able():
        raise UserError("numerics=portable: needs an x86-64 processor with AVX2 and FMA; numerics=fast runs on any")
    if loaded := sorted({"numpy", "torch"} & set(sys.modules)):
        settings = " ".join(f"{name}={value}" for name, value in VARIABLES.items())
        raise UserError(
            f"numerics=portable: {' and '.join(loaded)} already chose their code for this processor, and cannot choose "
            f"again. Use the command line, or start Python with {settings}"
        )
    os.environ.update(VARIABLES)


def chosen_outside() -> dict[str, str]:
    """The variables of this process's environment by which libraries choose other code, with their values."""
    names = [*(name for name in VARIABLES if name not in THREADS), *OTHERS]
    return {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


def able() -> bool:
    """Whether this processor can compute portably."""
    info = Path("/proc/cpuinfo")
    flags = (
        next((line for line in info.read_text().splitlines() if line.startswith("flags")), "") if info.exists() else ""
    )
    return platform.machine() == "x86_64" and set(flags.split()) >= NEEDED


def deviations() -> list[str]:
    """What in this process does not compute portably, as the libraries say themselves; nothing where it does."""
    import numpy as np
    import torch

    found = [f"{name} is not {value}" for name, value in VARIABLES.items() if os.environ.get(name) != value]
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    if extensions != [VARIABLES["NPY_ENABLE_CPU_FEATURES"]]:
        found.append(f"numpy computes with {', '.join(extensions) or 'no extension'}")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX2":
        found.append(f"torch computes with {capability}")
    if matrices() != (COMPATIBLE, EXACT):
        found.append("torch's MKL does not compute as it was told, or torch was built without it")
    return found


def matrices() -> tuple[int, int] | None:
    """The code that torch's MKL has chosen for matrices and for functions of vectors; None without MKL."""
    import torch

    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return int(library.mkl_serv_cbwr_get(1)), int(library.mkl_vml_serv_cpu_detect())
    except (OSError, AttributeError):
        return None


def refusal(numerics: str, accelerator: str) -> str:
    """Why a study cannot be computed in this process as it asks; empty where it can."""
    if numerics != PORTABLE:
        return ""
    if accelerator != "cpu":
        return f"numerics: portable needs accelerator: cpu, not {accelerator}"
    return "; ".join(deviations())
