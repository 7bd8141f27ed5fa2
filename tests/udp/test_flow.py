import contextlib
import socket
from pathlib import Path
from typing import Any
from unittest import skipUnless
from unittest.mock import patch

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE
from tests.support.calls import Calls, calls_of, within
from tests.support.datagrams import udp_listener
from tests.support.mux import ListLog
from tests.udp.test_migration import FIRST
from txmux.detection.detector import Detector
from txmux.net.sockets.poller import Poller, is_available
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counter_groups import ROUTE

_RULES = """
[listen u]
endpoint = udp:127.0.0.1:0
%s
[route site]
match = quic sni=www.example.com
backend = lasting
[route calls]
match = stun
    dtls
backend = lasting
[route names]
match = dns
%s
backend = once
[route shut]
match = payload text=shut
backend = udp:127.0.0.1:9
[backend once]
server = udp:127.0.0.1:%s
answers = 1
[backend lasting]
server = udp:127.0.0.1:%s
"""
_ENDS = {"server_local", "client", "local", "id", "time"}  # of a record that no other has
_QUESTION = b"\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"
_BINDING = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
_DATAGRAMS = [
    *(bytes([first, 7]) + _QUESTION for first in (0, 0x16, 0x70, 0xC3)), _BINDING, FIRST, b"shut",
    b"", b"\r\n", b"unknown", b"x" * 20_000,
]  # fmt: skip
_LISTEN = ["", "max_flows_per_source = 1", "max_flows = 2", "deny = 127.0.0.1", "log = errors"]
_NAMES = ["", "from = 127.0.0.1", "from = 192.0.2.1", "dry_run = yes", "log = no"]
_STEPS = st.one_of(
    st.tuples(st.integers(0, 2), st.sampled_from(_DATAGRAMS)), st.sampled_from(["answer", "wait"])
)


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind(("127.0.0.1", 0))
    return made


def _heard(sock: socket.socket) -> list[tuple[bytes, Any]]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recvfrom(65_535))
    return found


def _played(server: socket.socket, rules: tuple[str, str], steps: list[Any]) -> object:
    clock, log = MemoryReactorClock(), ListLog()
    clients, bound = [_bound() for _ in range(3 + len(_DATAGRAMS))], _bound()
    number = server.getsockname()[1]
    read = parse(_RULES % (*rules, number, number), Path("rules.ini"))
    listener = udp_listener(read.routes, read.listeners[0], clock, log)
    port = listener.listen(bound)
    heard: list[bytes] = []
    poller = Poller.for_reactor(clock)
    for step in [*steps, "wait", "wait"]:
        if step == "wait":
            clock.advance(200)
        elif step == "answer":
            for data, flow in _heard(server):
                heard.append(data)
                server.sendto(data[::-1] or b"empty", flow)
        else:
            clients[step[0]].sendto(step[1], bound.getsockname())
        for _ in range(4):
            poller.doRead()
    heard += [data for data, _ in _heard(server)]
    left = len(listener.connections)
    listener.abort("killed")
    port.stopListening()
    counts = [listener.configuration.counts, listener.configuration.counts.unrouted]
    counts += [route.counts for route in listener.configuration.top.detector.routes]
    cells = [one.cells.tolist() for one in counts]
    for of_route in cells[1:]:
        of_route[ROUTE.names.index("last match")] = 0
    records = [
        {name: value for name, value in attrs.asdict(one).items() if name not in _ENDS}
        for one in log.records
    ]
    answers = [[data for data, _ in _heard(client)] for client in clients]
    for sock in (bound, *clients):
        sock.close()
    return left, heard, answers, records, cells, clock.getDelayedCalls()


class CallsTest(SynchronousTestCase):
    def test_bound_of_a_question(self) -> None:
        """What a flow of one question costs, from its datagram to its line in the access log: the first one of a listener, which plans how to serve the others, and they."""
        clock, log, bound = MemoryReactorClock(), ListLog(), Calls(99, 73, 10)
        with _bound() as server, _bound() as client:
            number = server.getsockname()[1]
            read = parse(_RULES % ("", "", number, number), Path("rules.ini"))
            poller = Poller.for_reactor(clock)
            for _ in range(2):  # imports, and what matchers look up once
                opened = _bound()
                where = opened.getsockname()
                port = udp_listener(read.routes, read.listeners[0], clock, log).listen(opened)

                async def one(where: Any = where) -> None:
                    client.sendto(b"\0\7" + _QUESTION, where)
                    poller.serve_ready(PATIENCE)
                    for data, flow in _heard(server):
                        server.sendto(data, flow)
                    poller.serve_ready(PATIENCE)

                first = self.successResultOf(Deferred.fromCoroutine(calls_of(one)))
                counted = self.successResultOf(Deferred.fromCoroutine(within(bound, one)))
                port.stopListening()
                opened.close()
            self.assertLessEqual(first.python, 295)
            self.assertTrue(all(map(int.__le__, counted, bound)), (counted, bound))
        self.assertEqual({record.reason for record in log.records}, {"done"})


@skipUnless(is_available(), "UDP needs epoll")
class WaysTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        st.tuples(st.sampled_from(_LISTEN), st.sampled_from(_NAMES)), st.lists(_STEPS, max_size=12)
    )
    def test_one_pass_is_as_the_whole_way(self, rules: tuple[str, str], steps: list[Any]) -> None:
        # The first datagrams of each kind have the plans made.
        every = [*((3 + n, data) for n, data in enumerate(_DATAGRAMS)), "answer", "wait", "wait"]
        script = [*every, *every, *steps]
        with _bound() as server:
            found = _played(server, rules, script)
            with patch.object(Detector, "decide_at_once", return_value=None):
                self.assertEqual(found, _played(server, rules, script))
