"""Ports for FLARE's processes that nothing else on the machine takes before they listen.

FLARE's simulator asks the system for a free port, closes it, and starts a process that imports torch before it listens
there: for three seconds any outgoing connection of the machine may be given that port, and then FLARE waits in vain for
as long as it is told to. Contract: nvflare 2.9.
"""

import random
import socket
from pathlib import Path

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")  # what the system gives to outgoing connections
LOWEST, HIGHEST = 10_000, 65_535  # below lie the ports of known services
TRIES = 1_000


def quiet_ports(number: int) -> list[int]:
    """Free ports of the loopback interface that the system gives to no outgoing connection, at random.

    Raises OSError where none is free.
    """
    first, last = (int(word) for word in OUTGOING.read_text().split())
    possible = [port for port in range(LOWEST, HIGHEST + 1) if not first <= port <= last]
    found: list[int] = []
    for port in random.SystemRandom().sample(possible, min(TRIES, len(possible))):
        if len(found) == number:
            break
        if is_free(port):
            found.append(port)
    if len(found) < number:
        raise OSError(f"no {number} free ports from {LOWEST} to {HIGHEST} beside {OUTGOING}")
    return found


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def use_quiet_ports() -> None:
    """Have FLARE's simulator choose such ports, in this process."""
    from nvflare.private.fed.app.deployer import simulator_deployer
    from nvflare.private.fed.app.simulator import simulator_runner

    simulator_deployer.get_open_ports = quiet_ports
    simulator_runner.get_open_ports = quiet_ports
