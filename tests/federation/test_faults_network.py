"""The network is gone for ten seconds in the midst of a round, and comes back.

The study runs in a network namespace of its own, whose only interface, the loopback, the test takes down and up again.
"""

import subprocess
from pathlib import Path

import pytest

from tests.disks import can_mount
from tests.federation.backends import FLARE, FLOWER, ONE, Backend, each
from tests.federation.faulty_site import Faulty

IN_A_NAMESPACE = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
DROP = 'ip link set lo down; touch "$0"; sleep 10; ip link set lo up'


def digest(folder: Path, backend: Backend, temporary: Path, *, drop: bool) -> str:
    """The digest of a small study's weights."""
    study = Faulty(folder, temporary, {"a": {1: "hang"}, "b": {}, "c": {}})
    settings = [*backend.overrides, "federation.timeout=60", "strategy.rounds=4"]  # longer than the network is gone
    with study.running(*settings, before=IN_A_NAMESPACE) as running:
        running.hanging("a")
        if drop:
            enter = ["nsenter", "-t", str(running.process.pid), "-n", "sh", "-c", DROP]
            # The site ends its fit, and would answer, while the network is down.
            subprocess.run([*enter, str(study.home("a") / "released")], check=True)
        running.release("a")
        assert running.end() == 0, running.text("out") + running.err
        assert running.family.left() == []
    assert {line["fault"] for line in running.lines()} == {None}
    assert study.temporary_files() == []
    return str(running.result["digest"])


@pytest.mark.skipif(not can_mount(), reason="a network namespace can be made by root alone")
@pytest.mark.parametrize("backend", each(FLOWER, FLARE, long=[FLOWER, FLARE]))
def test_a_network_that_is_gone_for_ten_seconds_costs_no_site(backend: Backend, tmp_path: Path, short: Path) -> None:
    undisturbed = digest(tmp_path / "before", ONE, short / "w", drop=False)
    assert digest(tmp_path / "with", backend, short / f"w-{backend.id}", drop=True) == undisturbed
