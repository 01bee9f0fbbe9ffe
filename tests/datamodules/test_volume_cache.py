"""The cache of decoded images: shared, bounded, safe against a killed writer, and never read for other data."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import phantom
from datamodules.ct.grid import Grid
from datamodules.ct_slices import CTSlices
from datamodules.volume_cache import VolumeCache, code
from tests.cohorts.studies import TINY
from tests.commands import ROOT, flip
from tests.disks import can_mount, tmpfs
from tests.studies import in_rounds

SMALL = {"grid": Grid(8.0, 56, 192), "slices_per_person": 3, "augment": 0.0}
OPENED: list[str] = []
sys.addaudithook(lambda event, found: OPENED.append(str(found[0])) if event == "open" else None)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "east"  # JPEG lossless: its decoding costs most
    phantom.generate(root, profile=phantom.PROFILES["east"], patients=3)
    return root


@pytest.fixture
def files(tmp_path) -> list[Path]:
    path = tmp_path / "study.dcm"
    path.write_bytes(b"pixels")
    return [path]


def dicom_opened(root: Path, cache: Path, **settings) -> tuple[int, CTSlices]:
    """How many files of the cohort a load opened, besides its table."""
    before = len(OPENED)
    data = CTSlices(str(root), **{**SMALL, **settings}, cache={"folder": str(cache), "gigabytes": 0.1})
    data.setup()
    return sum(each.endswith(".dcm") and str(root) in each for each in OPENED[before:]), data


def batches(data: CTSlices) -> list[np.ndarray]:
    loaders = (data.test_dataloader(), data.val_dataloader())
    return [value.numpy() for loader in loaders for batch in loader for value in batch.values()]


@pytest.mark.slow
def test_the_second_load_opens_no_dicom_and_gives_the_same(cohort, tmp_path):
    first, decoded = dicom_opened(cohort, tmp_path / "cache")
    second, kept = dicom_opened(cohort, tmp_path / "cache")
    assert first > 0
    assert second == 0
    plain = CTSlices(str(cohort), **SMALL)
    plain.setup()
    for one, other, third in zip(batches(decoded), batches(kept), batches(plain), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_a_setting_that_does_not_make_the_entry_opens_no_dicom(cohort, tmp_path):
    dicom_opened(cohort, tmp_path / "cache")
    other = Grid(8.0, 56, 192, window=(-100, 300))
    assert dicom_opened(cohort, tmp_path / "cache", batch_size=1, augment=1.0, grid=other)[0] == 0


@pytest.mark.slow
def test_a_second_process_opens_no_dicom(cohort, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.datamodules.test_volume_cache import dicom_opened\n"
        "print(dicom_opened(*map(Path, sys.argv[1:]))[0])\n"
    )
    assert dicom_opened(cohort, tmp_path / "cache")[0] > 0
    command = [sys.executable, "-c", script, str(cohort), str(tmp_path / "cache")]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert other.stdout == "0\n", other.stderr


@pytest.mark.long
def test_a_sweep_after_a_run_opens_no_dicom(tmp_path):
    """The real command line; each of its processes writes down what it opens."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"file = open({str(tmp_path / 'opened')!r}, 'ab', buffering=0)\n"  # once: a study writes nothing there
        "def note(event, found):\n"
        "    if event == 'open' and str(found[0]).endswith('.dcm') and found[1] in ('rb', 'r'):\n"
        "        file.write(os.fsencode(str(found[0])) + b'\\n')\n"
        "sys.addaudithook(note)\n"
    )
    tiny = in_rounds(TINY["sarcopenia"](tmp_path / "demo"))
    small = ["experiment=sarcopenia", "federation=inprocess", "debug=fast", *tiny]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    first = flip(tmp_path, *small, "seed=1", PYTHONPATH=path)
    assert first.status == 0, first.err
    assert (tmp_path / "opened").read_text().count(".dcm") > 0
    (tmp_path / "opened").write_text("")
    swept = flip(tmp_path, "-m", *small, "seed=2,3", PYTHONPATH=path)
    assert [result["status"] for result in swept.results] == ["ok", "ok", "ok"], swept.err
    assert (tmp_path / "opened").read_text() == ""


@pytest.mark.slow
def test_a_changed_file_or_setting_is_decoded_anew(cohort, tmp_path):
    root = shutil.copytree(cohort, tmp_path / "east")
    all_files, _ = dicom_opened(root, tmp_path / "cache")
    assert dicom_opened(root, tmp_path / "cache", slices_per_person=1)[0] > 0
    changed = next((root / "dicom").rglob("*.dcm"))
    times = changed.stat()
    changed.write_bytes(changed.read_bytes())
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a tool does that keeps the times
    assert 0 < dicom_opened(root, tmp_path / "cache")[0] < all_files / 2


def test_a_cohort_that_was_copied_is_not_decoded_anew(files, tmp_path):
    cache, copy = VolumeCache(tmp_path / "cache", 0.1), tmp_path / "copy"
    copy.mkdir()
    shutil.copyfile(files[0], copy / files[0].name)
    first = cache.arrays(files, {}, lambda: {"image": np.ones(3)})
    again = cache.arrays([copy / files[0].name], {}, lambda: pytest.fail("decoded"))
    np.testing.assert_array_equal(first["image"], again["image"])
    before = len(OPENED)
    cache.arrays([copy / files[0].name], {}, lambda: pytest.fail("decoded"))
    assert str(copy / files[0].name) not in OPENED[before:]


def test_an_entry_is_for_its_owner_alone(files, tmp_path):
    VolumeCache(tmp_path / "cache", 1).arrays(files, {}, lambda: {"a": np.zeros(4)})
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").glob("*.safetensors")} == {0}


def test_another_process_takes_what_one_decoded(files, tmp_path):
    VolumeCache(tmp_path / "cache", 1).arrays(files, {"size": 2}, lambda: {"a": np.arange(4.0)})
    code = (
        "import sys, pathlib; from datamodules.volume_cache import VolumeCache\n"
        "cache = VolumeCache(sys.argv[1], 1)\n"
        "print(cache.arrays([pathlib.Path(sys.argv[2])], {'size': 2}, lambda: sys.exit('made again'))['a'].sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache"), str(files[0])], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("6.0", "")


def test_what_a_killed_writer_leaves_is_not_read_and_is_removed(files, tmp_path):
    code = (
        "import os, sys, signal; import numpy as np; from datamodules import volume_cache\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "volume_cache.os.fsync = killed  # the moment before the file gets its name\n"
        "volume_cache.VolumeCache(sys.argv[1], 1).write('key', {'a': np.zeros(1000)})\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cache")], cwd=ROOT)
    assert died.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cache").glob("*.part"))) == 1
    cache = VolumeCache(tmp_path / "cache", 1)
    assert cache.read("key") is None
    cache.write("other", {"a": np.zeros(4)})
    assert not list((tmp_path / "cache").glob("*.part"))
    assert cache.read("other") is not None


def test_a_damaged_entry_is_made_again(files, tmp_path):
    cache = VolumeCache(tmp_path / "cache", 1)
    cache.arrays(files, {}, lambda: {"a": np.zeros(4)})
    (entry,) = (tmp_path / "cache").glob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-8])
    assert cache.arrays(files, {}, lambda: {"a": np.ones(4)})["a"].sum() == 4
    assert cache.arrays(files, {}, lambda: {"a": np.zeros(4)})["a"].sum() == 4


def test_the_bound_holds_and_what_was_used_last_stays(tmp_path):
    folder = tmp_path / "cache"
    cache = VolumeCache(folder, 55e3 / 1e9)
    for name in "abcd":  # 10 kB each
        cache.write(name, {"x": np.zeros(1250)})
    for number, name in enumerate("bcda"):  # in this order last used
        assert cache.read(name) is not None
        os.utime(folder / f"{name}.safetensors", ns=(number, number))
    cache.write("e", {"x": np.zeros(2500)})
    assert sorted(path.stem for path in folder.glob("*.safetensors")) == ["a", "c", "d", "e"]
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 55e3
    cache.write("f", {"x": np.zeros(10_000)})
    assert cache.read("f") is None  # alone beyond the bound


def test_a_failed_decoding_is_not_kept(files, tmp_path):
    cache = VolumeCache(tmp_path / "cache", 1)

    def fails():
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.arrays(files, {}, fails)


def test_what_was_made_while_its_files_changed_is_not_kept(files, tmp_path):
    cache = VolumeCache(tmp_path / "cache", 1)

    def changes():
        files[0].write_bytes(b"other pixels")
        return {"a": np.ones(4)}

    assert cache.arrays(files, {}, changes)["a"].sum() == 4
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_another_version_of_a_decoder_is_another_key(monkeypatch):
    before = code()
    monkeypatch.setattr("datamodules.volume_cache.version", lambda name: "0.1")
    assert code.__wrapped__() != before


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(ValueError, match=r"cache\.folder.*chmod 700"):
        VolumeCache(tmp_path / "cache", 1)


def test_a_file_in_the_place_of_the_folder_is_named(files):
    with pytest.raises(ValueError, match=r"cache\.folder.*name another"):
        VolumeCache(files[0], 1)


def test_the_folder_may_be_removed_while_it_is_used(files, tmp_path):
    cache = VolumeCache(tmp_path / "cache", 1)
    cache.arrays(files, {}, lambda: {"a": np.zeros(4)})
    shutil.rmtree(tmp_path / "cache")
    for _ in range(2):
        assert cache.arrays(files, {}, lambda: {"a": np.ones(4)})["a"].sum() == 4
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not can_mount(), reason="mounts a small disk, as root")
def test_a_full_disk_costs_the_entry_and_not_the_study(files, tmp_path):
    folder = tmp_path / "cache"
    cache = VolumeCache(folder, 1)
    with tmpfs(folder, megabytes=1):
        folder.chmod(0o700)
        with pytest.warns(UserWarning, match="disk is full"):
            assert cache.arrays(files, {}, lambda: {"a": np.ones(2**18)})["a"].sum() == 2**18
        assert not [path for path in folder.iterdir() if path.suffix in (".part", ".safetensors")]
        assert cache.arrays(files, {}, lambda: {"a": np.ones(4)})["a"].sum() == 4


def test_writers_that_meet_keep_the_bound_and_whole_entries(tmp_path):
    script = (
        "import sys; import numpy as np; from datamodules.volume_cache import VolumeCache\n"
        "cache = VolumeCache(sys.argv[1], 55e3 / 1e9)\n"
        "for number in range(30): cache.write(f'{sys.argv[2]}{number % 7}', {'x': np.full(1250, number % 7)})\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cache"), name], cwd=ROOT) for name in "ab"
    ]
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0]
    entries = list((tmp_path / "cache").glob("*.safetensors"))
    assert 0 < sum(path.stat().st_size for path in entries) <= 55e3
    cache = VolumeCache(tmp_path / "cache", 1)
    for entry in entries:
        found = cache.read(entry.stem)
        assert found is not None
        assert set(found["x"]) == {int(entry.stem[1:])}
    assert not list((tmp_path / "cache").glob("*.part"))
