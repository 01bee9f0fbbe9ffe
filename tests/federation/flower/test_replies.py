"""One site's reply at Flower's SuperLink, whatever the site does with it, costs no other site's."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.servicer.fleet import fleet_handlers

from flip.federation.flower import announced, replies
from flip.federation.flower.announced import is_chain, refuse_others
from flip.federation.flower.messages import RECORD, exchange
from flip.federation.flower.replies import Replies
from flip.messages import Fault, Task
from tests.federation.flower.in_memory import SuperLink
from tests.federation.live import until

TASK = Task("run", "study", 0, "fit", {}, {}, {}, "{}")
SITES = ("first", "odd", "last")
MOST = 100_000


@pytest.fixture(autouse=True)
def contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SuperLink of ours; the run is said to be under way, and one look waits for a twentieth of a second."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, None, raising=False)
    monkeypatch.setattr(fleet_handlers, "check_abort", lambda *_: None)
    monkeypatch.setattr(fleet_handlers, "push_messages", fleet_handlers.push_messages)
    refuse_others()
    monkeypatch.setattr(replies, "MOMENT", 0.05)


@pytest.fixture
def link() -> SuperLink:
    return SuperLink(SITES)


def ask(link: SuperLink, act: Callable[[], None], seconds: float = 4) -> dict[str, Any]:
    """What the loop hears of a task while the sites `act`, once all are asked."""

    def acts() -> None:
        while len(link.asked) < len(link.names):
            time.sleep(0.01)
        act()

    link.asked.clear()
    threading.Thread(target=acts, daemon=True).start()
    return dict(exchange(Replies(link.grid, MOST), TASK, link.nodes, seconds))


def honest(link: SuperLink, *sites: str) -> None:
    for site in sites:
        assert link.send(link.announce(site, site.encode())) == [True, True, True]


def held(link: SuperLink) -> int:
    """How many parts of messages to the server its SuperLink keeps."""
    mine = set(link.asked.values())
    tree = {part for number in mine for part in parts(link.state.object_store, number)}
    return len(set(link.state.object_store.store) - tree)


def parts(store: Any, number: str) -> Iterator[str]:
    if number in store:
        yield number
        for child in store.store[number].child_object_ids:
            yield from parts(store, child)


def test_replies_come_whole(link):
    assert ask(link, lambda: honest(link, *SITES)) == {site: site.encode() for site in SITES}
    assert held(link) == 0


def test_a_site_that_announces_its_reply_and_sends_no_more_is_late_and_nobody_else_is(link):
    def act() -> None:
        link.announce("odd", b"odd")
        time.sleep(0.3)
        honest(link, "first", "last")

    assert ask(link, act) == {"first": b"first", "odd": Fault.TIMEOUT, "last": b"last"}


def test_a_reply_whose_parts_come_over_several_looks_is_put_together(link):
    def act() -> None:
        honest(link, "first", "last")
        said = link.announce("odd", b"odd")
        time.sleep(0.3)
        link.send(said)

    assert ask(link, act)["odd"] == b"odd"


@pytest.mark.parametrize("ttl", [None, 0.05], ids=["of its task's time", "that says it is soon over"])
def test_of_a_reply_whose_parts_come_after_the_time_is_over_the_server_keeps_nothing(link, ttl, monkeypatch):
    """Also where it is announced too late to be seen, or no longer when it is looked at."""
    monkeypatch.setattr(announced, "GRACE", 0.0)
    said, began = [], time.monotonic()

    def act() -> None:
        honest(link, "first", "last")
        until(lambda: time.monotonic() > began + 2.2, 20)
        said.append(link.announce("odd", b"odd" * 1000, **({} if ttl is None else {"ttl": ttl})))

    assert ask(link, act, seconds=2.5)["odd"] in (Fault.TIMEOUT, Fault.LOST)
    until(lambda: said and time.monotonic() > began + 2.6, 20, "nothing was announced")
    assert ask(link, lambda: honest(link, *SITES))["odd"] == b"odd"  # the next task
    assert True not in link.send(said[0])
    assert not set(get_all_nested_objects(said[0].message)) & set(link.state.object_store.store)


def test_parts_below_a_part_that_the_server_has_with_others_are_not_taken(link):
    """They would belong to nothing, and stay when all else is dropped."""
    refused = []

    def act() -> None:
        task = link.state.object_store.get_object_tree(link.asked["odd"]).children[0]
        message = f"{1:064x}"
        below = ObjectTree(object_id=task.object_id, children=[ObjectTree(object_id=f"{2:064x}")])
        whole = ObjectTree(object_id=message, children=[below])
        with pytest.raises(FlowerError):
            link.announce("odd", b"", tree=whole, message_id=message)
        refused.append(True)
        honest(link, *SITES)

    assert ask(link, act) == {site: site.encode() for site in SITES}
    assert refused == [True]


def test_a_reply_larger_than_any_can_be_is_given_up(link):
    def act() -> None:
        link.send(link.announce("odd", b"x" * (MOST + 1)))
        honest(link, "first", "last")

    assert ask(link, act) == {"first": b"first", "odd": Fault.LOST, "last": b"last"}


def test_a_part_that_the_server_gave_up_loses_its_site_alone(link):
    def act() -> None:
        said = link.announce("odd", b"odd")
        link.state.object_store.delete(said.message.object_id)
        honest(link, "first", "last")

    assert ask(link, act) == {"first": b"first", "odd": Fault.LOST, "last": b"last"}


@pytest.mark.parametrize(
    "otherwise",
    [
        {"src_node_id": SUPERLINK_NODE_ID, "reply_to_message_id": ""},
        {"reply_to_message_id": ""},
        {"dst_node_id": 7},
        {"tree": ObjectTree(object_id="0" * 64)},
    ],
    ids=["a task of the server's own", "a reply to nothing", "to another site", "a tree of another message"],
)
def test_no_site_announces_anything_but_its_own_reply(link, otherwise):
    told = []

    def act() -> None:
        try:
            link.announce("odd", b"in the name of all", **otherwise)
        except FlowerError as error:
            told.append(error.code)
        honest(link, "first", "last")

    assert ask(link, act) == {"first": b"first", "odd": Fault.TIMEOUT, "last": b"last"}
    assert len(told) == 1


def test_no_site_announces_a_reply_in_the_name_of_another(link):
    def act() -> None:
        with pytest.raises(FlowerError):
            link.announce("odd", b"forged", src_node_id=link.nodes["first"], reply_to_message_id=link.asked["first"])
        honest(link, *SITES)

    assert ask(link, act) == {site: site.encode() for site in SITES}


def test_a_message_that_replies_to_nothing_is_nobodys_reply(link, monkeypatch):
    """Also at a SuperLink that takes everything, as Flower's does: the loop looks at what is replied to."""
    monkeypatch.setattr("flip.federation.flower.announced.own_reply", lambda request: True)

    def act() -> None:
        for _ in range(3):
            forged = link.announce("odd", b"forged", src_node_id=SUPERLINK_NODE_ID, reply_to_message_id="")
            link.send(forged)
        honest(link, "last", "first")

    heard = ask(link, act)
    assert heard == {"first": b"first", "odd": Fault.TIMEOUT, "last": b"last"}


def tree(depth: int) -> ObjectTree:
    """A tree of which each part stands twice below the one above: 2^depth of them when it is written out."""
    found = ObjectTree(object_id=f"{0:064x}")
    for level in range(1, depth + 1):
        found = ObjectTree(object_id=f"{level:064x}", children=[found, ObjectTree(object_id=found.object_id)])
    return found


def chain(*numbers: int) -> ObjectTree:
    found = ObjectTree(object_id=f"{numbers[-1]:064x}")
    for number in reversed(numbers[:-1]):
        found = ObjectTree(object_id=f"{number:064x}", children=[found])
    return found


@pytest.mark.parametrize(
    ("parts", "taken"),
    [(chain(1), True), (chain(1, 2, 3), True), (chain(1, 2, 3, 4), False), (chain(1, 2, 1), False), (tree(2), False)],
    ids=["one", "three", "four", "a part twice", "branches"],
)
def test_a_reply_is_a_chain_of_three_parts_at_most(parts, taken):
    assert is_chain(parts) is taken


def test_nobody_can_tell_the_names_of_the_parts_of_a_task_beforehand(link):
    """Who could might announce them first, with parts below them that never come, for which all sites would wait."""
    named: list[set[str]] = []

    class Seen:
        def push_messages(self, messages: Any) -> list[str]:
            named.append({each.content[RECORD].object_id for each in messages})
            return [*SITES]

        def pull_messages(self, numbers: Any) -> list[Any]:
            return []

    grid: Any = Seen()
    for _ in range(2):
        list(exchange(grid, TASK, {site: number for number, site in enumerate(SITES, 1)}, 0.01))
    assert [len(each) for each in named] == [1, 1]  # sent once for all sites
    assert not named[0] & named[1]


def test_a_run_that_was_stopped_ends_the_study(link):
    def stopped(request: Any) -> None:
        raise RunNotRunningException

    link.grid._runtime_client.PullObject = stopped
    with pytest.raises(RunNotRunningException):
        ask(link, lambda: honest(link, *SITES))


def test_a_site_cannot_have_its_task_sent_again_by_the_words_of_its_error(link):
    from flwr.app.error import Error

    class Pushes:
        sent = 0

        def push_messages(self, messages: Any) -> list[str]:
            self.sent += 1
            return ["number"]

        def pull_messages(self, numbers: Any) -> list[Any]:
            from flwr.app import Message, RecordDict

            asked = Message(RecordDict(), dst_node_id=1, message_type="train")
            return [Message(Error(code=0, reason="The actor is restarting"), reply_to=asked)]

    grid: Any = Pushes()
    assert dict(exchange(grid, TASK, {"odd": 1}, 1)) == {"odd": Fault.LOST}
    assert grid.sent == 1
