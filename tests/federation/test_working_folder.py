"""No process of a run imports from the working folder, whatever lies there: a file of every name that the engine knows.

`python -m` puts the folder first before the engine can take it away; with `-P`, or as the command `flip`, it does not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.small_study import write_small_study
from tests.federation.backends import FLARE, FLOWER, FORKED, Backend, each

LOADED = """
import importlib, sys
sys.path = [path for path in sys.path if path]
for name in ("flip.cli.execute", "flip.site.fit", "flip.report.page", "flip.federation.flower.simulation",
             "flip.federation.nvflare.simulator", "flwr.simulation", "flwr.serverapp", "ray", "nvflare", "wandb",
             "monai", "pydicom", "datamodules.multimodal", "models.multimodal"):
    importlib.import_module(name)
print(" ".join({name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"dl"}))
"""
HOSTILE = "import os\nos.open({mark!r} + '/' + __name__, os.O_CREAT)\nraise SystemExit('the working folder ran')\n"


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Every top-level module that the engine, its backends and Python's own library have."""
    words = [sys.executable, "-c", LOADED]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout
    return [name for name in told.splitlines()[-1].split() if name.isidentifier() and name != "__main__"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", each(FORKED, FLOWER, FLARE, fast=[FORKED], long=[FLARE]))
def test_a_run_beside_a_file_of_every_name_runs_none(
    backend: Backend, names: list[str], tmp_path: Path, short: Path
) -> None:
    work, ran, temporary = tmp_path / "work", tmp_path / "ran", short / f"named-{backend.id}"
    for folder in (work, ran, temporary):
        folder.mkdir()
    assert {"statistics", "dl", "torch", "pathlib", "ray"} <= set(names)
    for name in names:
        (work / f"{name}.py").write_text(HOSTILE.format(mark=str(ran)))
    words = [*write_small_study(tmp_path), "hydra.run.dir=run", "strategy.rounds=1", *backend.overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    command = [sys.executable, "-P", "-m", "flip", *words, "federation.timeout=600"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
    assert [path.name for path in ran.iterdir()] == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((work / "run" / "result.json").read_text())["status"] == "ok"
