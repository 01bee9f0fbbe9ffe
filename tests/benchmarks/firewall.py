"""What each backend can do from behind a hospital's firewall, shown in network namespaces (root and iproute2).

    python tests/benchmarks/firewall.py flower        # or nvflare; about four minutes

Nothing leads into a site's network, and one address and port out of it: that of the server, 443, for the sites
`cleveland` and `switzerland`; an HTTP proxy for `va`. All three make their own keys; `switzerland` is let in once the
federation runs, and `va` is put out of it.
"""

import asyncio
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import yaml

from flip.__main__ import main
from flip.federation.flower.certificates import certificates
from flip.federation.kit import SECRET
from flip.federation.requests import KEYS, SUFFIX
from tests.cohorts.heart import write_tiny_heart
from tests.federation.live import Deployment, until

SERVER, INSIDE, PORT = "10.67.0.1", "10.67.5.1", 443  # the server as sites know it, and in its own network
PROXY, CONNECT, INSPECT = "10.67.7.1", 3128, 3129
FIRST, LATER = ["cleveland", "va"], "switzerland"
LINKS = {"server": f"{INSIDE}/24", "cleveland": "10.67.0.10/24", LATER: "10.67.0.11/24", "va": "10.67.7.10/24"}


class Firewall(Deployment):
    """A server, sites whose only way out is a relay to its port (`switch`), and one that has a proxy (`proxy`)."""

    def address(self, party: str = "server") -> str:
        """The server's address, as all know it."""
        return SERVER

    def _network(self) -> None:
        def ip(*words: str) -> None:
            subprocess.run(["ip", *words], check=True, capture_output=True)

        def link(one: str, name: str, two: str, other: str, address: str) -> None:
            ends = [self._namespace(one), self._namespace(two)]
            ip("-n", ends[0], "link", "add", name, "type", "veth", "peer", "name", other, "netns", ends[1])
            ip("-n", ends[1], "addr", "add", address, "dev", other)
            ip("-n", ends[1], "link", "set", other, "up")
            ip("-n", ends[0], "link", "set", name, "up")

        for party in ("switch", *self.parties):
            ip("netns", "add", self._namespace(party))
            ip("-n", self._namespace(party), "link", "set", "lo", "up")
        switch = self._namespace("switch")
        for bridge, address in (("outer", "10.67.5.2/24"), ("inner", f"{SERVER}/24")):
            ip("-n", switch, "link", "add", bridge, "type", "bridge")
            ip("-n", switch, "addr", "add", address, "dev", bridge)
            ip("-n", switch, "link", "set", bridge, "up")
        ends = [("server", "outer", LINKS["server"]), ("proxy", "outer", "10.67.5.3/24")]
        ends += [(site, "inner", LINKS[site]) for site in ("cleveland", LATER)]
        for number, (party, bridge, address) in enumerate(ends):
            link("switch", f"p{number}", party, "eth0", address)
            ip("-n", switch, "link", "set", f"p{number}", "master", bridge)
        link("proxy", "eth1", "va", "eth0", LINKS["va"])
        ip("-n", self._namespace("proxy"), "addr", "add", f"{PROXY}/24", "dev", "eth1")
        ip("-n", self._namespace("proxy"), "route", "add", SERVER, "via", INSIDE)
        ip("-n", self._namespace("server"), "addr", "add", f"{SERVER}/32", "dev", "lo")

    def serve(self, party: str, role: str, folder: Path) -> None:
        """Run the relay or a proxy in a namespace."""
        command = self.inside(party, [sys.executable, __file__, role, str(folder)])
        with (self.work / f"{role}.txt").open("ab") as output:
            self.running[role] = subprocess.Popen(command, env=self.environment(), stdout=output, stderr=output)

    def sockets(self, party: str) -> tuple[set[str], set[str]]:
        """Where a party's connections lead that leave the machine, and where it listens for others."""
        said = subprocess.run(self.inside(party, ["ss", "-tanH"]), capture_output=True, text=True, check=True).stdout
        lines = [line.split() for line in said.splitlines()]
        outside = [line for line in lines if not line[3].startswith(("127.", "[::1]", "[::ffff:127."))]
        listening = {line[3] for line in outside if line[0] == "LISTEN"}
        return {line[4] for line in outside if line[0] != "LISTEN"}, listening


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on all bytes, and the end."""
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()


async def joined(near: tuple[asyncio.StreamReader, asyncio.StreamWriter], host: str, port: int) -> None:
    """Join a connection with a new one."""
    try:
        far = await asyncio.open_connection(host, port)
    except OSError:  # the server is not there
        near[1].close()
        return
    await asyncio.gather(copied(near[0], far[1]), copied(far[0], near[1]))


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The firewall's hole: bytes to the server's port."""
    await joined((reader, writer), INSIDE, PORT)


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inspector: ssl.SSLContext | None) -> None:
    """HTTP CONNECT to the server's port alone; an inspecting one ends TLS itself, by a certificate of its own."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()[0]
    print(request, flush=True)
    if not request.startswith(f"CONNECT {SERVER}:{PORT} "):
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()
        return
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await writer.drain()
    if inspector:
        try:
            await writer.start_tls(inspector)
            await reader.readexactly(1)
            print("inspected", flush=True)
        except (ssl.SSLError, OSError, asyncio.IncompleteReadError) as error:
            print(f"the client refuses the certificate: {error}", flush=True)
        writer.close()
        return
    await joined((reader, writer), SERVER, PORT)


async def network(role: str, folder: Path) -> None:
    """Serve in one role until the process is ended."""
    if role == "relay":
        server = await asyncio.start_server(relay, SERVER, PORT)
    else:
        inspector = None
        if role == "inspect":
            _, certificate, key = certificates(SERVER)
            (folder / "inspector.pem").write_bytes(certificate + key)
            inspector = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            inspector.load_cert_chain(folder / "inspector.pem")
            inspector.set_alpn_protocols(["h2", "http/1.1"])
        server = await asyncio.start_server(
            lambda reader, writer: proxy(reader, writer, inspector), PROXY, INSPECT if inspector else CONNECT
        )
    await server.serve_forever()


def fill(kit: Path, own: Path, site: str, backend: str, data: Path) -> None:
    """What a site does with its kit: puts its key and secret there, and fills in its file."""
    for place in (kit / KEYS[backend], kit / SECRET):
        place.write_bytes((own / place.name).read_bytes())
        place.chmod(0o600)
    policy = {"minimum_persons": 2, "minimum_cell": 1, "persons_per_parameter": 0, "approval": "none"}
    values = {"root": str(data / "uci_heart" / f"processed.{site}.data"), "person": "row", "policy": policy}
    values["secret"] = SECRET
    (kit / "site.yaml").write_text(yaml.safe_dump(values))


def environment(port: int) -> dict[str, str]:
    """How a site is told of its proxy."""
    return {"https_proxy": f"http://{PROXY}:{port}", "no_proxy": "localhost,127.0.0.1"}


def measured(backend: str, home: Path) -> None:
    """Run all of it, and print a line for each finding."""
    data, kits = write_tiny_heart(home / "data"), home / "kits"
    (home / "requests").mkdir()
    (home / "runs").mkdir()
    for site in (*FIRST, LATER):
        assert main(["site", "request", backend, site, str(home / f"own-{site}")]) == 0
        (home / "requests" / f"{site}{SUFFIX}").write_bytes((home / f"own-{site}" / f"{site}{SUFFIX}").read_bytes())
    provision = import_module(f"flip.federation.{backend}.provision")
    more = {"runs": home / "runs"} if backend == "flower" else {}
    provision.prepare(FIRST, kits, host=SERVER, port=PORT, requests=home / "requests", **more)
    if backend == "flower":
        text = (kits / "server" / "kit.yaml").read_text()
        (kits / "server" / "kit.yaml").write_text(text.replace(f"bind: {SERVER}", "bind: 0.0.0.0"))
    for site in FIRST:
        fill(kits / site, home / f"own-{site}", site, backend, data)
    with Firewall(home / "said", ["server", *FIRST, LATER, "proxy"]) as place:
        for party, role in (("switch", "relay"), ("proxy", "connect"), ("proxy", "inspect")):
            place.serve(party, role, home)
        place.start("server", kits / "server")
        place.start("cleveland", kits / "cleveland")
        place.start("va", kits / "va", **environment(CONNECT))
        lived(backend, home, place, data)


def lived(backend: str, home: Path, place: Firewall, data: Path) -> None:
    """The studies, the site that comes and the one that goes."""
    kits, seen, over = home / "kits", {site: (set[str](), set[str]()) for site in (*FIRST, LATER)}, threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for site, (to, at) in seen.items():
                found = place.sockets(site)
                to |= found[0]
                at |= found[1]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    study(backend, home, place, ["cleveland", "va"], "direct and proxy")
    print("proxy was asked:", sorted(set((place.work / "connect.txt").read_text().splitlines())))

    for kit in sorted(kits.iterdir()):
        print(f"{kit.name:<12}{sum(path.is_file() for path in kit.rglob('*'))} files")
    command = ["deploy", "add", f"{kits}/authority", f"{home}/requests/{LATER}{SUFFIX}", f"out={home}/added"]
    assert main(command) == 0
    roster = home / "added" / "server" / "sites" / f"{LATER}.pub"
    (kits / "server" / "sites" / f"{LATER}.pub").write_bytes(roster.read_bytes())
    (kits / "server" / "sites" / "va.pub").unlink()
    fill(home / "added" / LATER, home / f"own-{LATER}", LATER, backend, data)
    if backend == "flower":
        place.stop("server")
        place.start("server", kits / "server")
    place.start(LATER, home / "added" / LATER)
    study(backend, home, place, ["cleveland", LATER], "after one came and one went")
    said = place.said("va") + place.said("server")
    words = ("does not accept this site's key", "is not let in")
    turned = [line for line in said.splitlines() if any(each in line for each in words)]
    print("va is turned away:", turned[-1][-150:] if turned else f"NOT SEEN: {said[-1500:]}")
    place.stop("va")
    (kits / "server" / "sites" / "va.pub").write_bytes((kits / "authority" / "sites" / "va.pub").read_bytes())
    place.start("va", kits / "va", **environment(INSPECT))
    refusals = place.work / "inspect.txt"
    until(lambda: "refuses the certificate" in refusals.read_text(), 60, f"not inspected: {place.said('va')[-2000:]}")
    time.sleep(2)
    print("inspecting proxy:", sorted(set(refusals.read_text().splitlines()))[-3:])
    print("va says:", [line for line in place.said("va").splitlines() if "certificate" in line.lower()][-1:])
    over.set()
    watcher.join()
    for site, (to, at) in seen.items():
        print(f"{site:<12} connects to {sorted(to)}, listens beside loopback at {sorted(at)}")


def study(backend: str, home: Path, place: Firewall, sites: list[str], name: str) -> None:
    """One study over the live federation."""
    federation = {"flower": "flower_superlink", "nvflare": "nvflare_provisioned"}[backend]
    words = ["experiment=heart_disease", f"sites=[{','.join(sites)}]", f"federation={federation}", "strategy.rounds=3"]
    words += ["trainer.steps=5", f"federation.kit={home / 'kits' / 'admin'}", "strategy.min_sites=2"]
    began = time.monotonic()
    ran = place.flip(home, *words)
    if ran.status:
        print(ran.out[-1500:], ran.err[-1500:], *(place.said(party)[-1500:] for party in ("server", *sites)), sep="\n")
    rounds = re.findall(r"round \d+/\d+ .* ([\d.]+) s", ran.out)
    print(f"{name}: {'+'.join(sites)} exit {ran.status}, {time.monotonic() - began:.0f} s, rounds of {rounds} s")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(network(sys.argv[1], Path(sys.argv[2])))
    else:
        with tempfile.TemporaryDirectory(prefix="flip-firewall-") as folder:
            measured(sys.argv[1], Path(folder))
