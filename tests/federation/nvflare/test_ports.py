"""FLARE's simulator listens only where no outgoing connection of the machine can be in its way."""

import socket
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from flip.federation.nvflare import ports, simulator
from flip.federation.nvflare.ports import OUTGOING, quiet_ports

FIRST, LAST = (int(word) for word in OUTGOING.read_text().split())


def test_no_outgoing_connection_is_given_such_a_port():
    found = quiet_ports(50)
    assert len(set(found)) == 50
    assert not [port for port in found if FIRST <= port <= LAST or port < 1024]


def test_a_port_on_which_something_listens_is_not_chosen(tmp_path, monkeypatch):
    taken, free = quiet_ports(2)
    monkeypatch.setattr(ports, "LOWEST", min(taken, free))
    monkeypatch.setattr(ports, "HIGHEST", max(taken, free))
    lowest, highest = sorted([taken, free])
    (tmp_path / "range").write_text(f"{lowest + 1}\t{highest - 1}\n")
    monkeypatch.setattr(ports, "OUTGOING", Path(tmp_path / "range"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        assert quiet_ports(1) == [free]
        with pytest.raises(OSError, match="no 2 free ports"):
            quiet_ports(2)


def test_flare_starts_a_site_s_process_on_such_a_port(tmp_path, monkeypatch):
    from nvflare.private.fed.app.deployer import simulator_deployer
    from nvflare.private.fed.app.simulator import simulator_runner

    for module in (simulator_deployer, simulator_runner):
        monkeypatch.setattr(module, "get_open_ports", module.get_open_ports)
    monkeypatch.setattr(simulator, "Connection", lambda number: None)
    monkeypatch.setattr(simulator, "BRIDGES", [])
    monkeypatch.setattr(simulator_runner, "SimulatorRunner", Mock(side_effect=InterruptedError))
    monkeypatch.setattr("sys.argv", ["serve", str(tmp_path), "0", "site-1"])
    with pytest.raises(InterruptedError):
        simulator.serve()
    assert simulator_deployer.get_open_ports is quiet_ports
    for part in ("startup", "local"):
        (tmp_path / "site-1" / part).mkdir(parents=True)
    started: list[list[str]] = []

    def start(words: list[str], **_: object) -> None:
        started.append(words)
        raise InterruptedError

    monkeypatch.setattr(subprocess, "Popen", start)
    cell = SimpleNamespace(get_root_url_for_child=str, get_internal_listener_url=str)
    client = SimpleNamespace(client_name="site-1", token="t", cell=cell)
    folder = str(tmp_path)
    runner = SimpleNamespace(
        args=SimpleNamespace(workspace=folder, log_config="x"),
        simulator_root=folder,
        server_custom_folder=folder + "/no",
    )
    with pytest.raises(InterruptedError):
        simulator_runner.SimulatorClientRunner.do_one_task(runner, client, 1, None, threading.Lock())
    port = int(started[0][started[0].index("--port") + 1])
    assert not FIRST <= port <= LAST
