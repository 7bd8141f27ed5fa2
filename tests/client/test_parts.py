import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.trial.unittest import SynchronousTestCase

from tests.support.peers import pair, reactor
from txmux.client.io_runtime import IORuntime
from txmux.client.parts import Part, Parts
from txmux.client.session import record_multipath
from txmux.client.socket_options import NO_KEEPALIVE, socket_options
from txmux.net.sockets.plainsocket import IPPROTO_MPTCP
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.rules.feature import Feature
from txmux.rules.model import Keepalive, Listener
from txmux.rules.reading.parser import parse
from txmux.telemetry.record import ConnectionRecord

_RULES = """\
[txmux]
acme = letsencrypt
acme_terms = yes
[listen a]
endpoint = :1
[route b]
match = tls sni=a.example
terminate_tls = acme
backend = close
"""


class PartsTests(SynchronousTestCase):
    def test_made(self) -> None:
        """A feature may have no part in a process; rules that need one make it once."""
        rules = parse(_RULES, "x.ini")
        make: Callable[[Feature], Part | None]
        for make, names in ((lambda _: None, []), (lambda _: Part(), ["acme"])):
            parts = Parts(make)
            for end in (parts.abandon, lambda: None):
                parts.prepare(rules)
                self.assertEqual([*parts], [], "before the commit, what rules need may be refused")
                end()
            parts.commit(rules)
            made = [*parts.items()]
            parts.prepare(rules)
            parts.commit(rules)
            self.assertEqual(([*parts], [*parts.items()]), (names, made))

    def test_process(self) -> None:
        """It prepares its own for whole rules, too, and has the reactor watch its sockets where the rules say so."""
        for runtime, kind in (
            (IORuntime(reactor, "portable"), ReactorPoller), (IORuntime(reactor), Poller),
        ):  # fmt: skip
            rules = parse(_RULES, "x.ini")
            runtime.prepare(rules)
            runtime.commit(rules)
            self.assertEqual([*runtime.parts], ["acme"])
            self.assertIs(type(runtime.poller), kind)

    def test_options_of_a_transport_of_twisteds(self) -> None:
        """Its socket has none from a port."""
        options = socket_options(Listener("x", keepalive=Keepalive(60, 5, 3)))
        connected = pair(self, is_tcp=True)[0]
        transport: Any = Connection(connected, Protocol(), reactor)
        IORuntime.set_options(transport, options)
        for level, name, value in (*options, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
            self.assertEqual(connected.getsockopt(level, name), value)
        self.assertEqual(socket_options(Listener("x", keepalive=None)), NO_KEEPALIVE)
        own = pair(self, is_tcp=True)[0]
        transport = IORuntime(reactor).transport(own)
        IORuntime.set_options(transport, options)
        self.assertEqual(own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)

    def test_connection_by_mptcp(self) -> None:
        for protocol, facts in ((0, {}), (IPPROTO_MPTCP, {"mptcp": "yes"})):
            connected = self.enterContext(
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            )
            record = ConnectionRecord(1000.0, "5f-1", "x", "192.0.2.1:1")
            record_multipath(record, SimpleNamespace(getHandle=lambda its=connected: its))
            self.assertEqual(record.facts, facts)
