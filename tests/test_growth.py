"""How the steps of a check, a start, a reload and a decision grow with the rules."""

import ipaddress
import itertools
import socket
from base64 import b64encode
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import cache, partial
from typing import Any, TypeVar

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.detection import hello
from tests.support.growth import AT_ALL, AT_NONE, MANY, RULES, finished, growth
from tests.support.limits import allow_descriptors
from txmux.access.admission import Admission
from txmux.access.bans import Ban, Banned, Bans
from txmux.access.per_source import Handshakes, PerSource, SourceLimits
from txmux.backends.health.checks import key_of
from txmux.backends.pool.hold import HeldClient
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.pool import Availability, Unavailable
from txmux.backends.pool.queue import ClientQueue
from txmux.backends.pool.server_health import ServerOverride
from txmux.control.worker_answers import WorkerAnswers
from txmux.detection.ranked import finish
from txmux.interfaces import Peeked
from txmux.net.sockets.timers import Timers
from txmux.processes.worker.received_rules import read_replacement
from txmux.rules.changes import changes
from txmux.rules.difference import difference, digest
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Listener, Rules
from txmux.rules.packing import pack, pack_difference, unpack
from txmux.rules.reading.parser import parse
from txmux.serving.serving import Serving
from txmux.testing import calls_in
from txmux.udp.live_flows import FlowTable, TimeoutQueue
from txmux.wire.proxyprotocol.header import Address

T = TypeVar("T")
_MORE = "[route last]\nunder = *\nmatch = ssh\nbackend = 127.0.0.1:22\n"


def _rules(what: str, count: int, more: str = "") -> Rules:
    return parse(RULES[what](count) + more, "x.ini")


def _admission(listener: Listener) -> Admission:
    return Admission(listener, lambda: 0.0)


def _serving(rules: Rules) -> Serving:
    serving = Serving(rules, None, reactor, accepting=False)
    for listener in rules.listeners:
        serving.add(listener, _admission(listener))
    return serving


def _used(rules: Rules) -> Serving:
    serving = _serving(unpack(pack(rules)))
    for listener in serving.listeners:
        for byte in (0x16, ord("S"), ord("G")):  # as clients that are served
            listener.configuration.top.detector.plan(byte)
    return serving


def _check(what: str, count: int) -> Callable[[], object]:
    text = RULES[what](count)
    return lambda: lint(parse(text, "x.ini"))


def _start(what: str, count: int) -> Callable[[], object]:
    rules = _rules(what, count)
    return lambda: _serving(unpack(pack(rules)))


class _Sockets(dict[str, socket.socket]):
    """Stand-ins for the sockets of new addresses, since no port is opened here."""

    def __missing__(self, key: str) -> socket.socket:
        self[key] = made = socket.socket()
        return made

    def close(self) -> None:
        for opened in self.values():
            opened.close()


def _reload(what: str, count: int) -> Callable[[], object]:
    serving = _serving(unpack(pack(old := _rules(what, count))))
    text = RULES[what](count) + _MORE

    def run() -> None:
        new, sockets = parse(text, "x.ini"), _Sockets()
        changes(old, new)
        serving.commit(serving.prepare(unpack(pack(new)), sockets, _admission), listening=False)
        sockets.close()

    return run


def _reload_part(what: str, count: int) -> Callable[[], object]:
    """A reload as a worker does it: it gets what one line has changed, among routes that are in use."""
    old = _rules(what, count)
    serving = _used(old)
    new = parse(RULES[what](count).replace("127.0.0.1:10007", "127.0.0.1:9") + _MORE, "x.ini")
    packed = b64encode(pack_difference(difference(old, new), new)).decode()

    def run() -> None:
        sockets = _Sockets()
        replacement = finish(read_replacement(packed, serving.rules, serving.table))
        assert digest(replacement.rules) == digest(new)
        prepared = finish(serving.prepare_in_steps(replacement, sockets, _admission))
        serving.commit(prepared, listening=False)
        sockets.close()

    return run


@cache
def _worker(what: str, count: int) -> Serving:
    return _serving(_rules(what, count))


# What a worker is asked every few seconds.
_Ask = Callable[[Serving], Coroutine[Any, Any, object]]
_LOOKS: dict[str, _Ask] = {
    "missing": Serving.missing,
    "count": lambda serving: WorkerAnswers(serving).count(gauges=True),
    "status": Serving.status,
}


def _check_result(what: str, count: int) -> Callable[[], object]:
    upstreams = _worker(what, count).upstreams
    *_, last = upstreams.all()
    key = key_of(last.pool.members[0])

    def run() -> None:
        assert upstreams.find(last.backend.name) is last
        upstreams.apply_check(last.backend.name, key, ok=False, why="silent")

    return run


def _server_down(count: int, *, is_last: bool = False) -> Callable[[], object]:
    """One of many servers goes down and comes up again; with `is_last`, all others are down."""
    serving = _serving(_rules("servers", count, "check = tcp\n"))
    [upstream] = serving.upstreams.all()
    last, *others = upstream.pool.members

    def change(member: Member, *, ok: bool) -> None:
        serving.upstreams.apply_check("pool", key_of(member), ok=ok, why="silent")

    for member in others:
        change(member, ok=False)
        change(member, ok=not is_last)

    def run() -> None:
        change(last, ok=False)
        assert upstream.pool.availability is (Availability.NONE if is_last else Availability.SOME)
        change(last, ok=True)
        assert upstream.pool.availability is (Availability.SOME if is_last else Availability.ALL)

    return run


def _held_client(count: int) -> Callable[[], object]:
    """A client begins to wait, and leaves, while all servers are down."""
    rules = _rules("servers", count, "check = tcp\nhold = 1m\n")
    clock = Clock()
    serving = Serving(rules, None, clock, accepting=False)
    [upstream] = serving.upstreams.all()
    pool = upstream.pool
    for member in pool.members:
        serving.upstreams.apply_check("pool", key_of(member), ok=False, why="silent")

    def run() -> None:
        assert pool.pick() is Unavailable.NO_SERVER
        client = HeldClient(0.0, 60.0, lambda: False, print)
        assert upstream.hold(client, "no-server") is None
        assert pool.pick() is Unavailable.NO_SERVER
        clock.advance(1)
        pool.waiting.remove(client)

    run()
    return run


def _drained(count: int) -> Callable[[], object]:
    """An operator drains all servers of a backend, and takes that back."""
    upstreams = _serving(_rules("servers", count)).upstreams
    servers = [member.server.text for member in upstreams.find("pool").pool.members]

    def run() -> None:
        upstreams.apply_overrides({("pool", server): ServerOverride("drain") for server in servers})
        assert upstreams.find("pool").pool.availability is Availability.NONE
        upstreams.apply_overrides({})

    return run


def _name_found(count: int) -> Callable[[], object]:
    """One of many names gets another address, and loses it."""
    names = "".join(f"    n{number}.example:80\n" for number in range(count))
    upstreams = _serving(parse(RULES["servers"](0) + names + "check = tcp\n", "x.ini")).upstreams
    [upstream] = upstreams.all()
    first, *others = upstream.backend.servers
    pool = upstream.pool
    for server in others:
        pool.set_addresses(server, [ResolvedAddress("192.0.2.1", 80)])

    def run() -> None:
        for address in ("192.0.2.1", "192.0.2.2"):
            pool.set_addresses(first, [ResolvedAddress(address, 80)])

    return run


def _longest_step(*texts: str) -> int:
    """Return how many calls the longest step of a reload in a worker has."""
    old, new = (parse(text, "x.ini") for text in texts)
    serving = _used(old)
    found, sockets = difference(old, new), _Sockets()
    packed = b64encode(pack_difference(found, new) if found.is_small else pack(new)).decode()
    calls: list[int] = []

    def taken(steps: Generator[None, None, T]) -> T:
        made: list[T] = []

        def step() -> None:
            try:
                next(steps)
            except StopIteration as end:
                made.append(end.value)

        while not made:
            calls.append(calls_in(step))
        return made[0]

    replacement = taken(read_replacement(packed, serving.rules, serving.table))
    prepared = taken(serving.prepare_in_steps(replacement, sockets, _admission))
    serving.commit(prepared, listening=False)
    sockets.close()
    return max(calls)


def _decide(what: str, count: int) -> Callable[[], object]:
    [factory] = _serving(_rules(what, count)).listeners
    detector = factory.configuration.top.detector
    client = ipaddress.ip_address("10.1.0.1")
    data = hello(f"h{len(detector.routes) - 1}.example.com")

    def run() -> None:
        decision = detector.decide_at_once(Peeked(data))
        decision = decision or detector.start_detection(client).feed(data)
        assert decision is not None
        assert decision.route is not None

    run()  # the first client of a kind makes the plan
    return run


def _admit(count: int, *, banned: bool) -> Callable[[], object]:
    head, _, networks = RULES["networks"](count).partition("from =\n")
    [listener] = parse(head.replace("[route", f"deny =\n{networks}[route"), "x.ini").listeners
    admission = _admission(listener)
    addresses = (ipaddress.ip_address(0x0A000000 + number) for number in range(count))
    admission.banned = Banned(lambda: 0.0)
    admission.banned.change((4, 0, int(address), None) for address in addresses if banned)
    return lambda: admission.enter(Address(ipaddress.ip_address("192.0.2.1"), 1))


class _Item:
    queue: TimeoutQueue | None = None
    entered_at = last_received_at = 0.0

    def make_room(self) -> None: ...

    def has_turn(self) -> None: ...


def _flows(count: int) -> Callable[[], object]:
    table, timeout = FlowTable[_Item](), (30.0, True, False)
    flows = [_Item() for _ in range(count)]
    for number, flow in enumerate(flows):
        table.enter(flow, timeout, float(number))

    def run() -> None:
        table.touch(flows[-1], float(count))
        table.leave(flows[0])
        table.enter(flows[0], timeout, float(count))
        assert table.spare() is not None
        assert [*table.over(0.0)] == []
        table.next_at()

    return run


def _timers(count: int) -> Callable[[], object]:
    timers = Timers(Clock())
    for number in range(count):
        timers.callLater(number % 5 + 1, int)
    return lambda: timers.callLater(3, int).cancel()


def _queued(count: int) -> Callable[[], object]:
    queue = ClientQueue(count + 1, 5.0, Timers(Clock()).callLater)
    for _ in range(count):
        queue.add_client(lambda: False, lambda: None)

    def run() -> None:
        queue.serve()  # there is no room
        waiter = queue.add_client(lambda: False, lambda: None)
        assert waiter is not None
        queue.remove_client(waiter)

    return run


def _handshakes(count: int) -> Callable[[], object]:
    handshakes, one = Handshakes(lambda: 0.0), _Item()
    for number in range(count):
        handshakes.enter(("x", number), _Item(), 5)

    def run() -> None:
        handshakes.enter(("x", 1), one, 5)
        handshakes.end_oldest(("x", 1))
        handshakes.leave(("x", 1), one)

    return run


def _sources(count: int) -> Callable[[], object]:
    per_source = PerSource(SourceLimits(connections=5), lambda: 0.0)
    for number in range(count):
        per_source.enter(number + 1)

    def run() -> None:
        permit = per_source.enter(1)
        assert permit is not None
        permit.release()

    return run


def _bans(count: int) -> Callable[[], object]:
    networks = [ipaddress.ip_network(0x0A000000 + number) for number in range(count + 1)]
    bans = Bans(Ban(network, 0.0, 9.0 + number) for number, network in enumerate(networks[1:]))

    def run() -> None:
        assert not bans.expire(1.0)
        bans.change([(networks[0], Ban(networks[0], 0.0, 9.0))])
        bans.change([(networks[0], None)])

    return run


def _adopted(count: int) -> Callable[[], object]:
    """A connection that another process hands over."""
    upstreams = _worker("servers", count).upstreams

    def run() -> None:
        found = upstreams.adopt("pool", f"127.0.0.1:{10_000 + count - 1}")
        assert found is not None
        found[0].pool.released(found[1])

    run()  # the first one finds the servers
    return run


def _moved(count: int) -> Callable[[], object]:
    """A flow whose client comes from another address: its route is looked up."""
    [factory] = _worker("routes", count).listeners
    detector = factory.configuration.top.detector
    assert detector.route_called("r0")  # the first one finds all
    return lambda: detector.route_called(f"r{count - 1}")


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def _assert_growth(
        self, most: float, works: Iterable[tuple[str, Callable[[int], Callable[[], object]]]]
    ) -> None:
        found = {name: growth(work) for name, work in works}
        self.assertEqual({name: grown for name, grown in found.items() if grown > most}, {})

    def test_what_looks_at_all(self) -> None:
        allow_descriptors(self, 3 * MANY)  # a reload duplicates the sockets of new listeners
        most = "routes", "backends", "servers", "listeners", "networks"
        self._assert_growth(AT_ALL, [("drain", _drained)])
        of = [*itertools.product((_check,), RULES), *itertools.product((_start, _reload), most)]
        works = ((f"{do.__name__} {what}", partial(do, what)) for do, what in of)
        self._assert_growth(AT_ALL, works)

    def test_a_worker_that_gets_one_line(self) -> None:
        of = ("routes", "routes under a listener", "routes never reached", "backends", "networks")
        self._assert_growth(AT_NONE, ((what, partial(_reload_part, what)) for what in of))

    def test_looks_at_a_worker(self) -> None:
        self.addCleanup(_worker.cache_clear)
        of = itertools.product(_LOOKS.items(), ("routes", "backends", "servers"))

        def look(ask: _Ask, what: str, count: int) -> Callable[[], object]:
            serving = _worker(what, count)
            return lambda: finished(ask(serving))

        works = ((f"{name}: {what}", partial(look, ask, what)) for (name, ask), what in of)
        self._assert_growth(AT_NONE, works)
        for what in ("routes", "backends"):
            self._assert_growth(AT_NONE, [(f"check: {what}", partial(_check_result, what))])
        downs = [(f"is last: {one}", partial(_server_down, is_last=one)) for one in (False, True)]
        self._assert_growth(AT_NONE, [*downs, ("name", _name_found), ("held", _held_client)])
        # What the page on performance says of collections on the path of a client, a request or a timer.
        every = _flows, _timers, _queued, _handshakes, _sources, _bans, _adopted, _moved
        self._assert_growth(AT_NONE, ((work.__name__, work) for work in every))

    def test_step_of_a_reload_that_changes_all(self) -> None:
        """Clients of a worker wait for no step that does much with all routes, whatever has changed in them."""
        count, most = 1500, 8
        text = RULES["routes"](count)
        head, *routes = text.split("[route ")
        other_order = "[route ".join((head, *reversed(routes)))
        for new in (other_order, text.replace("127.0.0.1:", "127.0.0.2:")):
            self.assertLess(_longest_step(text, new), most * count, new[:200])

    def test_a_client(self) -> None:
        works = [(what, partial(_decide, what)) for what in ("routes", "servers", "networks")]
        works += [(f"networks, bans: {one}", partial(_admit, banned=one)) for one in (False, True)]
        self._assert_growth(AT_NONE, works)
