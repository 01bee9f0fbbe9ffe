"""Flower, live: the gate before the SuperLink, whom the server believes, and a federation of separate processes."""

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from flip.cli.execute import execute
from flip.config.site_template import SITE_TEMPLATE
from flip.coordinator.serve import Submission
from flip.errors import StudyFailed, UserError
from flip.federation.answer import answer_parts
from flip.federation.flower import gate
from flip.federation.flower import provision as deploy
from flip.federation.flower.fleet import Unreachable
from flip.federation.flower.gate import Gate
from flip.federation.flower.messages import MARKER, exchange, pause
from flip.federation.flower.server import Sites, public_keys, shared_folder
from flip.federation.flower.superlink import FlowerSuperLink
from flip.federation.flower.supernode import answer, work
from flip.federation.kit import Kit
from flip.messages import Fault, Reply, Task
from flip.messages.safetensors import pack
from flip.messages.wire import pack_task, unpack_reply
from flip.processes import command
from tests.cohorts.heart import HOSPITALS, write_tiny_heart
from tests.commands import Finished, flip
from tests.federation.live import Deployment, free_port, until
from tests.studies import SMALL_HEART, tiny_heart_study

SITES = sorted(HOSPITALS)
JOB = Submission("run", "{}", {"kings": True}, alone=False, timeout=5.0)

# The gate.


@pytest.mark.parametrize(
    ("path", "client", "token", "in_"),
    [
        ("/v1/fleet/pull-messages", "10.0.0.9", "", False),  # a site's key does: see below
        ("/v1/fleet/pull-messages", "127.0.0.1", "right", False),
        ("/v1/control/start-run", "10.0.0.9", "", False),
        ("/v1/control/start-run", "127.0.0.1", "", False),
        ("/v1/control/start-run", "10.0.0.9", "wrong", False),
        ("/v1/control/start-run", "10.0.0.9", "right", True),
        ("/v1/control/register-node", "10.0.0.9", "", False),
        ("/v1/runtime/acquire-task", "10.0.0.9", "right", False),
        ("/v1/runtime/acquire-task", "10.0.0.1", "", True),  # the server's own address
        ("/v1/runtime/acquire-task", "127.0.0.1", "", True),
        ("/docs", "10.0.0.9", "", False),
        ("/v1/fleet/../control/start-run", "10.0.0.9", "", False),
        ("//v1/control/start-run", "10.0.0.9", "", False),
    ],
)
def test_sites_reach_the_fleet_alone_and_the_token_opens_the_control(path, client, token, in_):
    scope = {"path": path, "client": (client, 5), "server": ("10.0.0.1", 8000),
             "headers": [(b"authorization", f"Bearer {token}".encode())] if token else []}  # fmt: skip
    assert Gate(None, "right", {}).lets_in(scope) is in_


def request(key: Any, public: Any = None, *, age: float = 0.0) -> dict[str, Any]:
    """A site's request, signed as Flower's own client signs it, so many seconds ago."""
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

    time = (now() - timedelta(seconds=age)).isoformat().encode()
    shown = {
        b"flwr-public-key": b64encode(public_key_to_bytes(public or key.public_key())),
        b"flwr-timestamp": time,
        b"flwr-signature": b64encode(sign_message(key, time)),
    }
    return {"type": "http", "path": "/v1/fleet/push-object", "headers": [*shown.items()], "client": ("10.0.0.9", 5)}


def test_only_who_holds_a_key_of_the_roster_gets_past_the_gate():
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    known, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    gate = Gate(None, "right", {public_key_to_bytes(known.public_key()): "kings"})
    assert gate.lets_in(request(known))
    assert not gate.lets_in(request(other))
    assert not gate.lets_in(request(other, known.public_key()))
    assert not gate.lets_in(request(known, age=400))
    assert not gate.lets_in(request(known, age=-60))


@pytest.mark.parametrize("name", [b"flwr-public-key", b"flwr-signature", b"flwr-timestamp"])
@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"2026-01-01", b"AAAA", b"9" * 5000])
def test_headers_that_are_no_keys_signatures_or_times_do_not_get_past_the_gate(name, value):
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    known = ec.generate_private_key(ec.SECP384R1())
    asked = request(known)
    asked["headers"] = [(each, value if each == name else shown) for each, shown in asked["headers"]]
    roster = {public_key_to_bytes(known.public_key()): "kings", b"": "", b"\x00\x00\x00": ""}
    assert not Gate(None, "right", roster).lets_in(asked)


def test_the_body_of_who_is_not_let_in_is_not_read():
    sent = []

    async def never():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(None, "right", {})(request(ec.generate_private_key(ec.SECP384R1())), never, send))
    assert sent[0]["status"] == 403


@pytest.mark.parametrize(
    ("path", "largest", "requests", "read"),
    [("pull-messages", 1 << 31, 1, [1]), ("push-object", 1 << 31, 1, [2]), ("push-object", 130_000, 2, [2, 1])],
    ids=["a short one", "a part", "a second part at the same time"],
)
def test_of_a_sites_requests_no_more_is_read_than_they_can_need(path, largest, requests, read, monkeypatch):
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    assert gate.KEY.decode() == FLEET_HTTP_PUBLIC_KEY_HEADER
    monkeypatch.setattr(gate, "LARGEST", largest)
    known, seen = ec.generate_private_key(ec.SECP384R1()), []

    async def receive():
        return {"type": "http.request", "body": b"x" * 40_000, "more_body": True}

    async def app(scope, receive, send):
        mine = []
        seen.append(mine)
        for _ in range(2):
            mine.append((await receive())["type"])
            await asyncio.sleep(0)
        if len(seen) < requests:
            await door(asked, receive_of, None)

    receive_of = receive
    asked = request(known) | {"path": f"/v1/fleet/{path}"}
    door = Gate(app, "right", {public_key_to_bytes(known.public_key()): "kings"})
    asyncio.run(door(asked, receive, None))
    assert [each.count("http.request") for each in seen] == read
    assert set(door.reading.values()) == {0}


# Replies that Flower cannot read.


class Hostile:
    """A grid on which the reply of one node cannot be pulled."""

    def push_messages(self, messages: Any) -> list[str]:
        return ["hostile", "honest"]

    def pull_messages(self, ids: Any) -> list[Any]:
        from flwr.app import Message, RecordDict

        from flip.federation.flower.messages import record

        if "hostile" in ids:
            raise KeyError("No object tree found for the message: confirmed before it was pulled")
        return [Message(record(b"blob"), reply_to=Message(RecordDict(), dst_node_id=1, message_type="train"))]


def test_a_reply_that_was_confirmed_early_loses_its_site_and_nobody_else(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    grid: Any = Hostile()
    found = dict(exchange(grid, TASK, {"a": 1, "b": 2}, 5))
    assert found == {"a": Fault.LOST, "b": b"blob"}


# Whom the server believes.


class Grid:
    """Nodes that are present, each with the key that it has proven to hold; whatever is asked has no answer."""

    def __init__(self, **nodes: bytes) -> None:
        self.nodes = [SimpleNamespace(node_id=number, public_key=key) for number, key in enumerate(nodes.values())]

    def get_nodes(self) -> list[SimpleNamespace]:
        return self.nodes

    def push_messages(self, messages: Any) -> list[str]:
        return [f"message {number}" for number, _ in enumerate(messages)]

    def pull_messages(self, ids: Any) -> list[Any]:
        return []


TASK = Task("run", "study", 0, "fit", {}, {}, {}, "{}")


def test_a_node_is_the_site_whose_key_it_holds_and_any_other_node_is_nobody():
    sites = Sites(Grid(a=b"key of kings", b=b"unknown key"), {b"key of kings": "kings", b"key of guys": "guys"}, 5)
    assert sites.present() == {"kings": 0}


def test_a_site_that_is_not_there_is_lost_this_time():
    replies = list(Sites(Grid(), {b"key": "kings"}, timeout=5).ask(TASK, ["kings"]))
    assert [(reply.site, reply.fault) for reply in replies] == [("kings", Fault.LOST)]


def test_a_site_that_joins_late_is_asked_the_next_time():
    grid = Grid()
    sites = Sites(grid, {b"key": "kings"}, timeout=5)
    sites.wait(["kings"], 0)
    assert sites.present() == {}
    grid.nodes = Grid(a=b"key").nodes
    sites.wait(["kings"], 60)
    assert sites.present() == {"kings": 0}


def test_the_roster_is_the_public_keys_in_the_servers_kit(tmp_path):
    deploy.prepare(["guys", "kings"], tmp_path / "kits")
    assert sorted(public_keys(Kit.read(tmp_path / "kits" / "server")).values()) == ["guys", "kings"]
    (tmp_path / "kits" / "server" / "sites" / "guys.pub").unlink()
    assert list(public_keys(Kit.read(tmp_path / "kits" / "server")).values()) == ["kings"]


def here(silo: Any) -> Any:
    """A silo in this process, in place of one of its own."""
    return SimpleNamespace(name=silo.name, answer=partial(answer_parts, silo))


def test_a_message_that_holds_no_task_does_not_reach_the_site(capsys):
    silo = here(SimpleNamespace(name="kings", answer=None))
    assert answer(silo, b"no task") == b""
    assert "ignored" in capsys.readouterr().out


def test_a_task_without_parameters_does_not_end_the_sites_process(capsys):
    silo = here(SimpleNamespace(name="kings", answer=None))
    head = {"run": "r", "stage": "study", "round": 0, "step": "fit", "params": None, "manifest": "{}"}
    assert answer(silo, pack({}, head)) == b""
    assert "ignored" in capsys.readouterr().out


class Server:
    """A server whose messages cannot be read, until it is gone."""

    left = 3

    def receive(self) -> None:
        self.left -= 1
        raise KeyError("no such object") if self.left else Unreachable("gone")


def test_a_message_that_cannot_be_read_does_not_end_the_sites_process(monkeypatch, capsys):
    monkeypatch.setattr("flip.federation.flower.supernode.RECONNECT", 0)
    silo: Any = SimpleNamespace(name="kings")
    link: Any = Server()
    with pytest.raises(Unreachable):
        work(link, silo)
    assert capsys.readouterr().out.count("ignored") == 2


def test_a_reply_that_cannot_be_packed_is_an_error_of_the_sites(tmp_path):
    reply = Reply("kings", TASK.digest, weights={"w": np.zeros(1, np.complex128)})
    silo = here(SimpleNamespace(name="kings", home=tmp_path, answer=lambda task: reply))
    assert unpack_reply(answer(silo, pack_task(TASK))).fault is Fault.RAISED
    assert "cannot be packed" in (tmp_path / "site.log").read_text()


def test_a_long_wait_is_looked_into_less_often():
    assert [pause(0), pause(1), pause(4), pause(3600)] == [0.02, 0.2, 0.8, 1.0]


# The folder that both ends share.


def test_the_run_folder_is_the_marked_one(tmp_path):
    (tmp_path / "heart" / "1").mkdir(parents=True)
    (tmp_path / "heart" / "1" / MARKER).write_text("mark")
    assert shared_folder(tmp_path, "heart/1", "mark") == tmp_path / "heart" / "1"


@pytest.mark.parametrize(("relative", "marker"), [("heart/1", "another"), ("heart/2", "mark")])
def test_a_folder_without_our_mark_is_not_the_same_folder(relative, marker, tmp_path):
    (tmp_path / "heart" / "1").mkdir(parents=True)
    (tmp_path / "heart" / "1" / MARKER).write_text("mark")
    with pytest.raises(StudyFailed, match="set runs in the server's kit"):
        shared_folder(tmp_path, relative, marker)


def test_a_run_folder_outside_the_folder_of_runs_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(StudyFailed, match="does not lie within"):
        shared_folder(tmp_path / "runs", "../other", "mark")


# The settings.


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    """Kits of a server that is not running."""
    deploy.prepare(["kings"], tmp_path / "kits", port=free_port(), runs=tmp_path / "runs")
    return tmp_path / "kits"


@pytest.mark.parametrize(("setting", "value"), [("timeout", 0.0), ("join", -1.0)])
def test_a_setting_out_of_range_is_named(setting, value, kits):
    with pytest.raises(UserError, match=f"federation.{setting}={value}"):
        FlowerSuperLink(str(kits / "admin"), "runs", **{setting: value})


def test_a_kit_of_another_party_is_refused(kits):
    with pytest.raises(UserError, match="name Flower's kit admin"):
        FlowerSuperLink(str(kits / "kings"), "runs")


def test_a_run_folder_that_the_server_does_not_share_is_refused(kits, tmp_path):
    with pytest.raises(StudyFailed, match="lies outside"):
        FlowerSuperLink(str(kits / "admin"), str(tmp_path / "runs")).submit(JOB, tmp_path / "elsewhere")


def test_a_server_that_is_not_there_is_named_with_the_remedy(kits, tmp_path):
    with pytest.raises(StudyFailed, match=r"cannot be reached: .*python -m flip start"):
        FlowerSuperLink(str(kits / "admin"), str(tmp_path / "runs")).submit(JOB, tmp_path / "runs" / "1")
    assert list((tmp_path / "runs" / "1").iterdir()) == []


# A federation of separate processes.

MARKS = {site: f"MARKED{site.upper()}" for site in SITES}  # in each site's paths, file and data


@dataclass
class Federation:
    """Kits of the four hospitals, each with data of its own, and what runs of them."""

    place: Deployment
    home: Path
    kits: Path
    sites: list[str] = field(default_factory=lambda: SITES)

    def own(self, site: str) -> Path:
        """The folder that holds a site's kit and data."""
        return self.home / MARKS[site]

    def start(self, *parties: str) -> None:
        """Start parties, and wait until they are there."""
        for party in parties:
            kit = self.kits / "server" if party == "server" else self.own(party) / "kit"
            self.place.start(party, kit, TMPDIR=str(self.home / "tmp"))
        for party in parties:
            word = "server: ready" if party == "server" else f"{party}: connected"
            until(lambda party=party, word=word: word in self.place.said(party), 120, f"{party} did not start")

    def run(self, *arguments: str) -> Finished:
        """The tiny study, from the command line in the server's place."""
        return self.place.flip(self.home, *self.study(), *arguments, TMPDIR=str(self.home / "tmp"))

    def study(self) -> list[str]:
        """What is on each command line."""
        kit = f"federation.kit={self.kits / 'admin'}"
        return ["experiment=heart_disease", "federation=flower_superlink", kit, "strategy.min_sites=1", *SMALL_HEART]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def federation(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A server and four hospitals that run, each in a place of its own."""
    home = tmp_path_factory.mktemp("live")
    with Deployment(home / "said", ["server", *SITES]) as place:
        made = Federation(place, home, home / "kits")
        deploy.prepare(SITES, made.kits, host=place.address(), port=free_port(), runs=home / "runs")
        for site in SITES:
            settle(made, site, data)
        for party in place.parties:
            place.hide(party, *(made.own(site) for site in SITES if site != party))
            if party != "server":
                place.hide(party, made.kits / "server", made.kits / "admin", home / "runs")
        for name in ("runs", "tmp"):
            (home / name).mkdir()
        made.start("server", *SITES)
        yield made


def settle(federation: Federation, site: str, data: Path) -> None:
    """Hand a site its kit: it fills in its file, and puts its data where nobody else looks. All of it is marked."""
    own = federation.own(site)
    (own / "data").mkdir(parents=True)
    (federation.kits / site).rename(own / "kit")
    table = (data / "uci_heart" / f"processed.{site}.data").read_text()
    (own / "data" / f"{MARKS[site]}.csv").write_text(table)
    filled = SITE_TEMPLATE.replace("root: ???", f"root: {own}/data/{MARKS[site]}.csv")
    # A tiny hospital, which permits a small model and long studies.
    values = yaml.safe_load(
        filled.replace("person: ???", "person: row").replace("approval: ???", "approval: none").replace("???", "2")
    )
    values["policy"] |= {"minimum_cell": 1, "persons_per_parameter": 0, "maximum_rounds": 10**6}
    (own / "kit" / "site.yaml").write_text(f"# {MARKS[site]}\n{yaml.safe_dump(values)}")


@pytest.fixture(scope="module")
def first(federation: Federation) -> Finished:
    """The tiny study, run once."""
    return federation.run("sites=heart")


@pytest.mark.slow
def test_the_weights_are_those_of_the_reference(first, data, tmp_path):
    assert first.status == 0, first.out + first.err
    study = tiny_heart_study(data, "federation=inprocess")
    assert first.result["digest"] == execute(study, tmp_path / "run")["digest"]


@pytest.mark.long
def test_the_statistics_of_the_sites_are_those_of_the_reference(federation, data, tmp_path):
    told = federation.run("sites=heart", "job=statistics")
    reference = flip(tmp_path, "experiment=heart_disease", *SMALL_HEART, f"paths.data_dir={data}", "job=statistics")
    assert told.description == reference.description


@pytest.mark.slow
def test_a_round_costs_less_than_what_a_process_per_message_did(federation):
    """Ten rounds of nearly no training; a process that imports torch took 10 s a round and more."""
    ran = federation.run("sites=heart", "strategy.rounds=10")
    lines = re.findall(r"round (\d+)/10 .* ([\d.]+) s", ran.out)
    rounds = [float(seconds) for number, seconds in lines if number != "1"]
    assert len(rounds) == 9, ran.out + ran.err
    assert sorted(rounds)[4] <= 5  # the median


@pytest.mark.slow
def test_nothing_of_a_site_reaches_anybody_else(federation, first):
    assert first.status == 0
    for site in SITES:
        mark = MARKS[site].encode()
        assert mark in (federation.own(site) / "kit" / "site.yaml").read_bytes()
        others = [path for path in federation.home.rglob("*") if path.is_file() and not ours(path, federation, site)]
        assert len(others) > 50
        assert [str(path) for path in others if mark in path.read_bytes()] == []
        assert MARKS[site] not in first.out + first.err


def ours(path: Path, federation: Federation, site: str) -> bool:
    """Whether a file is a site's own: in its folder, or what its own process printed."""
    return path.is_relative_to(federation.own(site)) or path == federation.place.work / f"{site}.txt"


@pytest.mark.slow
def test_a_row_of_a_sites_data_is_nowhere_else(federation, first):
    assert first.status == 0
    for site in SITES:
        row = (federation.own(site) / "data" / f"{MARKS[site]}.csv").read_bytes().splitlines()[1]
        others = [path for path in federation.home.rglob("*") if path.is_file() and not ours(path, federation, site)]
        assert [str(path) for path in others if row in path.read_bytes()] == []


@pytest.mark.slow
def test_what_a_site_and_the_server_write_is_their_owners_alone(federation, first):
    assert first.status == 0
    kits = [federation.own(site) / "kit" for site in SITES] + [federation.kits / "server"]
    assert [str(path) for kit in kits for path in kit.rglob("*") if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_a_site_sees_neither_the_data_nor_the_kits_of_others(federation):
    if not federation.place.separate:
        pytest.skip("no namespaces here: the folders are separate, and nothing else is")
    site, other = SITES[:2]
    pid = federation.place.running[site].pid
    seen = Path(f"/proc/{pid}/root")
    assert list((seen / federation.own(site).relative_to("/") / "data").iterdir())
    assert list((seen / federation.own(other).relative_to("/")).iterdir()) == []
    assert list((seen / (federation.kits / "server").relative_to("/")).iterdir()) == []


ASK = """
import ssl, sys, urllib.error, urllib.request
trusted = ssl.create_default_context(cafile=sys.argv[1])
for url in sys.argv[2:]:
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=30, context=trusted)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"""


@pytest.mark.slow
def test_a_site_can_neither_submit_nor_register_nor_take_the_servers_work(federation):
    kit = federation.own("va") / "kit"
    server = f"https://{Kit.read(kit).setting('address')}/v1"
    routes = ["control/start-run", "control/register-node"]
    if federation.place.separate:  # on loopback every process is the server's own
        routes.append("runtime/acquire-task")
    asked = [sys.executable, "-c", ASK, str(kit / "ca.crt"), *(f"{server}/{route}" for route in routes)]
    said = subprocess.run(federation.place.inside("va", asked), capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.splitlines() == ["403 not for you"] * len(routes)


FORGE = """
import sys
from pathlib import Path
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from httpx import HTTPStatusError
from flip.federation.flower.fleet import connection
from flip.federation.kit import Kit
kit = Kit.read(Path(sys.argv[1]))
with connection(kit, str(kit.setting("address"))) as link:
    told = Metadata(src_node_id=1, dst_node_id=1, message_id="1" * 64)  # from the server to itself
    announced = PushMessagesRequest(
        node=link.node, messages_list=[Message(metadata=told)], message_object_trees=[ObjectTree(object_id="1" * 64)]
    )
    try:
        link.client.PushMessages(announced)
    except HTTPStatusError as error:
        print(error.response.text)
"""


@pytest.mark.slow
def test_the_server_takes_no_message_that_a_site_announces_in_the_name_of_another(federation):
    """What else it may not announce: `test_replies.py`."""
    kit = federation.own("va") / "kit"
    federation.place.stop("va")
    try:
        asked = [sys.executable, "-c", FORGE, str(kit)]
        said = subprocess.run(federation.place.inside("va", asked), capture_output=True, text=True, timeout=60)
        assert "Invalid protobuf payload" in said.stdout, said.stdout + said.stderr
    finally:
        federation.start("va")


@pytest.mark.slow
def test_a_wrong_token_is_refused_with_the_remedy(federation):
    bad = federation.home / "bad"
    shutil.copytree(federation.kits / "admin", bad)
    (bad / "token").write_text("wrong")
    refused = federation.run("sites=heart", f"federation.kit={bad}")
    assert refused.status == 1
    assert "refused the study (HTTP 403)" in refused.result["reason"]


@pytest.mark.slow
def test_an_unregistered_key_is_not_let_in(federation):
    """The site `va` comes back with a key that the server has never seen; then with its own."""
    kit = federation.own("va") / "kit"
    own = {name: (kit / name).read_bytes() for name in ("supernode", "supernode.pub")}
    federation.place.stop("va")
    for name, key in zip(own, deploy.key_pair(), strict=True):
        (kit / name).write_bytes(key)
    before = len(federation.place.said("va"))
    federation.place.start("va", kit, TMPDIR=str(federation.home / "tmp"))
    try:
        until(lambda: "does not accept this site's key" in federation.place.said("va")[before:], 240)
        assert "connected" not in federation.place.said("va")[before:]
    finally:
        federation.place.stop("va")
        for name, key in own.items():
            (kit / name).write_bytes(key)
    federation.start("va")


@pytest.mark.long  # a whole study: test_live_faults.py
def test_an_interrupt_stops_the_run_at_the_server(federation):
    process = federation.place.begin(federation.home, *federation.study(), "sites=heart", "strategy.rounds=5000")
    runs = federation.home / "runs"
    known = set(runs.glob("*/*/rounds.jsonl"))
    until(lambda: any('"round": 2' in path.read_text() for path in set(runs.glob("*/*/rounds.jsonl")) - known), 150)
    process.send_signal(signal.SIGINT)
    ended = federation.place.finish(process, federation.home, 120)
    assert (ended.status, ended.result["status"]) == (130, "interrupted")
    place = federation.place
    until(lambda: not any("serverapp" in command(pid) for pid in place.processes()), 60, "the ServerApp is still there")


@pytest.mark.slow
def test_when_all_have_been_told_to_end_nothing_is_left(federation):
    """The last of this file: it ends the federation."""
    place = federation.place
    for party in list(place.running):
        assert place.stop(party) == 0, place.said(party)
    assert place.processes() == []
    left = [path.name for path in (federation.home / "tmp").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == []  # torch's cache, one for each user
    host, _, port = str(Kit.read(federation.kits / "admin").setting("address")).rpartition(":")
    if not place.separate:  # otherwise it is gone with the namespace
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
