"""The wheel, in an environment of its own: the engine works from any folder, and runs no code that lies about there."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "from pathlib import Path\nPath({marker!r}).touch()\n"

pytestmark = pytest.mark.slow


def pip(*arguments: str | Path) -> None:
    """Run this environment's pip, without an index; what it says is shown when it fails."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel; the dependencies stay in this one, so it takes seconds."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A plain line makes that folder importable and runs none of its .pth files: this checkout stays out of reach.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (folder / "lib" / version / "site-packages" / "dependencies.pth").write_text("\n".join(sorted(dependencies)))
    return python


def flip(
    python: Path, folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m flip ...` from a folder."""
    return called([str(python), "-m", "flip", *arguments], folder, env or {})


def called(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command from a folder, without what this environment says to Python."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, cwd=folder, env={**outside, **env}, capture_output=True, text=True, timeout=300)


def hostile(folder: Path, marker: Path) -> None:
    """Somebody's own packages with our names, which leave a mark when they run."""
    for name in ("models", "datamodules"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(HOSTILE.format(marker=str(marker)))


def test_the_wheel_holds_configuration_templates_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    templates = {path.relative_to(ROOT) for package in ("flip", "models") for path in (ROOT / package).rglob("*.j2")}
    assert sources
    assert templates
    assert {f"flip/{path.as_posix()}" for path in sources} <= names
    assert {path.as_posix() for path in templates} | {"flip/py.typed"} <= names


def test_the_wheel_holds_the_packages_and_the_license_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"flip", "models", "datamodules", "flip_engine"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_help_lists_the_experiments_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    done = flip(python, tmp_path, "--help", "experiment")
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")} <= set(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_answers_help_without_torch(python: Path, tmp_path: Path) -> None:
    script = "import runpy, sys; sys.argv[1:] = ['--help']\n"
    script += "try: runpy.run_path({!r}, run_name='__main__')\nfinally: print('torch' in sys.modules)"
    done = called([str(python), "-c", script.format(str(python.parent / "flip"))], tmp_path, {})
    assert "flip report" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_a_study_is_composed_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    done = flip(python, tmp_path, "experiment=heart_disease", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: heart_disease" in done.stdout


@pytest.mark.parametrize("command", [["python", "-m", "flip"], ["flip"]], ids=" ".join)
def test_packages_in_the_working_folder_do_not_run(command: list[str], python: Path, tmp_path: Path) -> None:
    marker, folder = tmp_path / "ran", tmp_path / "work"
    folder.mkdir()
    hostile(folder, marker)
    installed = [str(python.parent / command[0]), *command[1:]]
    done = called([*installed, "experiment=heart_disease", f"paths.data_dir={tmp_path / 'nowhere'}"], folder, {})
    assert not marker.exists()
    assert done.returncode == 2  # the study was checked, with our packages: the data alone are missing
    assert "nowhere" in done.stderr


def test_packages_ahead_of_ours_are_refused_naming_both_places(python: Path, tmp_path: Path) -> None:
    marker, folder = tmp_path / "ran", tmp_path / "theirs"
    folder.mkdir()
    hostile(folder, marker)
    done = flip(python, tmp_path, "experiment=heart_disease", env={"PYTHONPATH": str(folder)})
    assert not marker.exists()
    assert done.returncode == 2
    assert str(folder / "models") in done.stderr
    assert str(python.parents[1]) in done.stderr
