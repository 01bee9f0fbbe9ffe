"""What starting costs: torch and Lightning are imported without garbage collection, and little besides them."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flip.cli import launch
from flip.errors import UserError
from flip.imports import importing

LIBRARIES = {"monai", "pandas", "sklearn", "hydra", "flwr", "ray", "nvflare", "opacus", "transformers", "peft"}
BY_OTHERS = {"transformers": "torchmetrics"}
"""Libraries that another one imports wherever they are installed: torchmetrics.functional.text.bert, at its import."""
LOADED = """
import gc, sys
collections, importers = [], {}

class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        frame = sys._getframe(1)
        while frame.f_globals["__name__"].startswith("importlib"):
            frame = frame.f_back
        importers.setdefault(name.partition(".")[0], frame.f_globals["__name__"].partition(".")[0])

sys.meta_path.insert(0, Watch)
gc.callbacks.append(lambda phase, info: collections.append(phase))
from flip.federation.answer import load_libraries
assert "torch" not in sys.modules
before = len(collections)
load_libraries()
print(len(collections) - before, gc.get_freeze_count(), gc.isenabled())
load_libraries()
print(*(f"{name}={importers.get(name)}" for name in sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """What a test froze is collected again."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def site() -> list[str]:
    """What a site's process says that has loaded its libraries: collections meanwhile, objects frozen; its modules,
    each with the package that first asked for it."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_site_imports_torch_and_lightning_without_a_collection(site: list[str]) -> None:
    collections, frozen, enabled = site[0].split()
    assert (collections, enabled) == ("0", "True")
    assert int(frozen) > 100_000


def test_a_site_loads_no_library_before_a_study_needs_it(site: list[str]) -> None:
    importer = dict(each.split("=") for each in site[1].split())
    assert {"torch", "pytorch_lightning"} <= {*importer}
    assert {name: importer[name] for name in LIBRARIES & {*importer}}.items() <= BY_OTHERS.items()


def test_the_command_line_checks_a_study_without_a_collection_and_collects_again_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def compose(*arguments: object, **named: object) -> None:
        seen.append(gc.isenabled())
        raise UserError("a mistake")

    monkeypatch.setattr(launch, "compose", compose)
    with pytest.raises(UserError):
        launch.launch(["experiment=heart_disease"])
    assert seen == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_block_within_another_leaves_collection_off() -> None:
    with importing():
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_command_line_loads_no_library_before_a_study_says_how_numbers_are_computed() -> None:
    code = "import sys, flip.cli.launch; print({'numpy', 'torch'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "set()"
