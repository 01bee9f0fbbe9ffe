"""Peak memory of a federation with a big model: the loop, and each backend against the same messages moved by hand.

    python tests/benchmarks/big_model.py [APP ...] [--parameters N] [--sites N]

Apps: loop, loop_late (half of the replies come before the first site's, and wait on disk), loop_scaffold, loop_fedadam,
flower, flower_by_hand, nvflare, nvflare_by_hand; by default all. Have 8 GB of memory free for the defaults, 100 million
float32 at 8 sites.

Printed, in models: `coordinator`, the most that its process held (VmHWM, which Linux keeps; mapped files included)
beyond what it held once all was imported; `server`, the most that the processes which are no site's held, and `all`,
the most that all processes held, by proportional set size (a page that processes share counts once), looked at from
outside some ten times a second, less the same for a model of 25 numbers. Page cache is nobody's and does not count.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

APPS = [
    "loop", "loop_late", "loop_scaffold", "loop_fedadam", "flower", "flower_by_hand", "nvflare", "nvflare_by_hand"
]  # fmt: skip
SMALL = 25  # numbers of a model that takes no memory
BYTES = 4  # of a float32
OF_A_SITE = ("ray::", "simulator_worker")  # words in the command lines of Ray's workers and of FLARE's clients


def pss(process: int) -> int:
    """Proportional set size in bytes; zero once the process has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return 0


def watch(app: str, parameters: int, sites: int) -> dict[str, float]:
    """Run a program, look at it until it has ended, and return its peaks in bytes. Exits if it fails."""
    here = Path(__file__).resolve().parent
    command = [sys.executable, str(here / "big_model_apps.py"), app, str(parameters), str(sites)]
    paths = os.pathsep.join([str(here.parents[1]), str(here), *filter(None, sys.path)])  # this checkout first
    peaks = {"server": 0.0, "all": 0.0}
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        with subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        ) as first:
            whole = psutil.Process(first.pid)
            while first.poll() is None:
                now = {"server": 0, "all": 0}
                with suppress(psutil.NoSuchProcess):
                    for process in [whole, *whole.children(recursive=True)]:
                        size, words = pss(process.pid), " ".join(process.cmdline())
                        now["all"] += size
                        now["server"] += 0 if any(word in words for word in OF_A_SITE) else size
                peaks = {name: max(peak, now[name]) for name, peak in peaks.items()}
                time.sleep(0.05)
        seconds = time.perf_counter() - started
        log.seek(0)
        said = log.read()
    if first.returncode:
        sys.exit(f"{app} failed with {first.returncode}:\n{said[-3000:]}")
    return {**peaks, **json.loads(said.splitlines()[-1]), "seconds": seconds}


def in_models(app: str, parameters: int, sites: int) -> dict[str, float]:
    """What a program takes above its own size, in models."""
    big, model = watch(app, parameters, sites), parameters * BYTES
    if app.startswith("loop"):
        return {"coordinator": big["coordinator"] / model, "seconds": big["seconds"]}
    own = watch(app, SMALL, sites)
    above = {name: (big[name] - own[name]) / model for name in ("server", "all")}
    return {**above, "all in GB": big["all"] / 1e9, "own size in GB": own["all"] / 1e9, "seconds": big["seconds"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("apps", nargs="*", metavar="APP", help=f"any of {', '.join(APPS)}")
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--sites", type=int, default=8)
    chosen = parser.parse_args()
    for app in chosen.apps or APPS:
        found = in_models(app, chosen.parameters, chosen.sites)
        print(f"{app:16}", "  ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
