"""What produced a run: code, versions, hardware and the command line."""

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flip import numerics
from flip.config.study import Study
from flip.files import relative
from flip.runs.given import allowing

PACKAGES = (
    "flip-engine", "torch", "pytorch-lightning", "monai", "torchmetrics", "opacus", "numpy", "pydicom", "hydra-core",
    "flwr", "nvflare",
)  # fmt: skip


def provenance(study: Study, folder: Path, run: str) -> dict[str, Any]:
    """Where a run's results come from: study, code, commit, versions, hardware, environment; nothing of a site."""
    typed = study.typed
    rerun = (
        f"python -m flip --config-dir {shlex.quote(relative(folder))} --config-name run{allowing(study.allow_targets)}"
    )
    return {
        "run": run,
        "manifest_sha256": study.manifest_sha256,
        "code_sha256": study.manifest["code"],
        "git": git(Path(__file__).resolve().parents[2]),
        "versions": {"python": platform.python_version(), **installed()},
        "hardware": hardware(study.manifest["trainer"]["threads"]) | devices(study),
        "environment": numerics.chosen_outside(),
        "command": None if typed is None else shlex.join(["python", "-m", "flip", *public_arguments(typed)]),
        "rerun": rerun,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": study.backend,
        "simulated": study.site_file is None and not study.live,
    }


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line without folders, of the sites or of this machine, and without a site's columns."""
    hidden = [
        f"{a.partition('=')[0]}=<not shown>" if a.lstrip("+").startswith(("sites.", "site_file", "paths.")) else a
        for a in arguments
    ]
    return hidden


def git(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout that the engine runs from, and whether it has changes; None outside a checkout."""
    if not (root / ".git").exists():
        return None

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = ask("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain"))} if commit else None


def installed() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def devices(study: Study) -> dict[str, dict[str, int]]:
    """By simulated site that trains on several devices how many these are; a hospital does not say it."""
    found = {name: site.devices for name, site in study.sites.items() if site.devices > 1}
    return {"devices": found} if found and not study.live else {}


def hardware(threads: int) -> dict[str, Any]:
    """Processor, cores, threads per site, and memory in GB."""
    models = [line.split(":", 1)[1].strip() for line in read_lines("/proc/cpuinfo") if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processor = models[0] if models else platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads, "memory_gb": round(pages / 1e9, 1)}


def read_lines(path: str) -> list[str]:
    """Lines of a file of the operating system; none where it has no such file."""
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
