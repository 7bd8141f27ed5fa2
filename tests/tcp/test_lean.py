"""A usual connection and the fuller one that it may become: whatever happens, nobody can tell them apart."""

import errno
import os
import re
import socket
import struct
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from zlib import crc32

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.reactors import PrivateReactor
from tests.net.sockets.scarcity import make_scarce
from tests.support.examples import scaled
from tests.support.mux import ListLog, server_at
from txmux.control.connection_row import row_of
from txmux.net.sockets.plainsocket import LeanSocket
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Listener, Rate, Silence
from txmux.tcp import lean
from txmux.tcp.io_runtime import IORuntime
from txmux.tcp.lean import LeanConnection
from txmux.tcp.listener import MuxFactory
from txmux.telemetry.counting.counter_groups import ROUTE

_STREAMS = (
    b"SSH-2.0-client\r\n",
    b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    b"POST /other HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
    b"\x00nobody's",
)
_TURNS, _MANY_TURNS = 6, 20
_PACKETS = Path("/proc/net/softnet_stat")
_RESET = struct.pack("ii", 1, 0)


@attrs.frozen
class Features:
    """What the rules of a listener say."""

    proxy_protocol: Any = "off"
    refusing: int = 0  # servers before the one that listens
    tries: int = 2
    proxied_first: bool = False  # whether the default is a server, too
    settings: tuple[tuple[str, Any], ...] = ()
    limits: tuple[tuple[str, Any], ...] = ()


class _Peer:
    """One end of a connection, which does what it is told, as far as it can."""

    def __init__(self, connected: socket.socket, stream: bytes) -> None:
        connected.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self.socket = connected
        self.stream = stream
        self.received = bytearray()
        self.sent = 0
        self.end = ""

    def send(self, count: int) -> None:
        data = self.stream[self.sent : self.sent + count]
        data += bytes(i % 251 for i in range(count - len(data)))
        try:
            self.sent += self.socket.send(data)
        except OSError:
            self.sent += 0

    def read(self, most: int) -> None:
        try:
            while most > 0 and not self.end:
                data = self.socket.recv(min(most, 65536))
                self.received += data
                most -= len(data)
                self.end = "" if data else "finished"
        except BlockingIOError:
            pass
        except OSError as problem:
            self.end = errno.errorcode[problem.errno or 0]

    def finish(self, _: int) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.sent += 0

    def reset(self, _: int) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self, _: int = 0) -> None:
        self.socket.close()
        self.end = self.end or "closed"


class _World:
    """A multiplexer with one client; everything happens when it is told to."""

    def __init__(self, features: Features, stream: bytes, *, lean: bool) -> None:
        self.private = PrivateReactor("epoll")
        self.clock = Clock()
        self.log = ListLog()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)  # noqa: FBT003 - the socket module's signature
        closed = [socket.create_server(("127.0.0.1", 0)) for _ in range(features.refusing)]
        ports = [one.getsockname()[1] for one in (*closed, self.listening)]
        for one in closed:
            one.close()
        backend = Backend(
            "servers",
            tuple(map(server_at, ports)),
            proxy_protocol=features.proxy_protocol,
            retries=features.tries,
            **dict(features.limits),
        )
        self.numbers = {str(port): f"port{number}" for number, port in enumerate(ports)}
        routes = [
            route("ssh", backend, name="ssh"),
            route("http host=www.example.com", backend, name="site", log=False),
            route("http", "close", name="others"),
        ]
        options = dict(features.settings)
        if features.proxied_first:
            options["default"] = backend
        self.factory = MuxFactory(
            routes, Listener("shared", **options), access_log=self.log, runtime=IORuntime(self)
        )
        if not lean:
            self.factory.serve = lambda *_: False  # type: ignore[method-assign]
        with socket.create_server(("127.0.0.1", 0)) as opened:
            self.port: Any = self.factory.listen(opened)
            self.where = opened.getsockname()
        self.client = _Peer(socket.create_connection(self.where), stream)
        self.others: list[_Peer] = []
        self.servers: list[_Peer] = []
        self.rows: list[Any] = []
        self.kinds: set[type] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(
            self.clock if name in {"callLater", "seconds"} else self.private.reactor, name
        )

    def turn(self) -> None:
        for _ in range(_TURNS):
            self.private.turn()
            _deliver()
            try:
                self.servers.append(_Peer(self.listening.accept()[0], b"answer"))
            except BlockingIOError:
                continue

    def step(self, who: str, what: str, number: int) -> None:
        if who == "mux":
            self._ask(what, number)
        else:
            peers = [self.client] if who == "client" else self.servers[-1:]
            for peer in peers:
                if peer.socket.fileno() >= 0:
                    getattr(peer, what)(number)
        self.turn()

    def _ask(self, what: str, number: int) -> None:
        connections = sorted(self.factory.connections, key=lambda one: int(one.record.id[9:], 16))
        self.kinds.update(map(type, connections))
        if what == "advance":
            self.clock.advance(number / 2)
        elif what == "expand":
            for one in connections:
                one.expand()
        elif what == "end":
            self.factory.abort("killed")
        elif what == "another":
            self.others.append(_Peer(socket.create_connection(self.where), _STREAMS[number]))
            self.others[-1].send(100)
        else:
            for one in connections:
                one.count_bytes()
                row = row_of(one)
                # How far many bytes have come by now is the system's affair.
                counts = [min(row[name], 2**16) for name in ("bytes_in", "bytes_out")]
                self.rows.append((row["state"], row["idle_ms"], row["route"], counts))

    def finish(self) -> None:
        """Let the client leave, and then, when nothing more comes, the servers; what still waits for something has time enough."""
        for client in (self.client, *self.others):
            client.read(2**30)
            if client.socket.fileno() >= 0:
                client.close()
        for _ in range(_MANY_TURNS):
            self.turn()
            for server in self.servers:
                if server.socket.fileno() >= 0:
                    server.read(2**30)
                if server.end:
                    server.close()
        for _ in range(5):
            self.clock.advance(100)
            self.turn()
        for server in self.servers:
            if server.socket.fileno() >= 0:
                server.close()
        self.turn()

    def story(self) -> dict[str, Any]:
        records = []
        for record in self.log.records:
            fields = attrs.asdict(record)
            for name in ("time", "id", "client", "local", "server_local"):
                fields[name] = fields[name] is not None
            records.append(re.sub(r"\d{4,5}", self._number, repr(fields)))
        own = self.factory.runtime.counters._own.items()
        counted = {
            (re.sub(r"\d{4,5}", self._number, name), number): cell
            for name, cells in own
            for number, cell in enumerate(cells)
            if cell and not (name.startswith(ROUTE.kind) and number == ROUTE.at["last match"])
        }
        killed = any(record.reason == "killed" for record in self.log.records)
        peers = [
            # A reset discards what is on its way, as an operator's end does.
            (_told(bytes(one.received))[: 1 if killed or one.end == "ECONNRESET" else 3], one.end)
            for one in (self.client, *self.others, *self.servers)
        ]
        return {
            "records": sorted(records),
            "peers": peers,
            "counted": counted,
            "rows": self.rows,
            "left": len(self.factory.connections),
            "reserved": self.factory.runtime.descriptors.reserved,
            "calls": len(self.clock.getDelayedCalls()),
        }

    def _number(self, found: re.Match[str]) -> str:
        return self.numbers.get(found[0], found[0])

    def close(self) -> None:
        self.port.stopListening()
        self.turn()
        for one in (self.client, *self.others, *self.servers):
            one.socket.close()
        self.listening.close()
        self.private.close()


def _deliver() -> None:
    """Let the kernel deliver what is on its way, which it does later where other programs keep the CPU busy."""
    for _ in range(_MANY_TURNS):
        # The twelfth number of a CPU is how many packets wait there.
        waiting = [line.split()[11] for line in _PACKETS.read_text().splitlines()]
        if not any(int(count, 16) for count in waiting):
            return
        os.sched_yield()


def _told(received: bytes) -> tuple[bytes, int, int]:
    """Return the beginning, the length and a checksum of what came, without the ports of a PROXY header."""
    if received.startswith(b"\r\n\r\n\0\r\nQUIT\n"):  # version 2
        received = received[:24] + received[28:]
    received = re.sub(rb"^(PROXY TCP4 \S+ \S+) \d+ \d+\r", rb"\1\r", received)
    return received[:80], len(received), crc32(received)


_SIZES = st.sampled_from([1, 2, 4, 16, 100, 5000, 70_000, 3_000_000])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["client", "server"]), st.just("send"), _SIZES),
        st.tuples(st.sampled_from(["client", "server"]), st.just("read"), _SIZES),
        st.tuples(
            st.sampled_from(["client", "server"]),
            st.sampled_from(["finish", "reset", "close"]),
            st.just(0),
        ),
        st.tuples(st.just("mux"), st.just("advance"), st.sampled_from([1, 2, 3, 7, 20, 200])),
        st.tuples(st.just("mux"), st.sampled_from(["look", "expand", "end"]), st.just(0)),
        st.tuples(st.just("mux"), st.just("another"), st.sampled_from(range(len(_STREAMS)))),
    ),
    max_size=12,
)
_FEATURES = st.builds(
    Features,
    proxy_protocol=st.sampled_from(["off", "off", "v1", "v2"]),
    refusing=st.sampled_from([0, 0, 1, 2]),
    tries=st.integers(0, 2),
    proxied_first=st.booleans(),
    settings=st.lists(
        st.sampled_from(
            [
                ("detect_timeout", 3.0),
                ("detect_timeout", 1.0),
                ("peek_limit", 8),
                ("max_connections_per_source", 1),
                ("max_undecided_per_source", 1),
                ("max_connections", 1),
                ("connection_rate_per_source", Rate(0.1, 2)),
                ("log", "errors"),
                ("silent", (Silence(Backend("other", (server_at(9),)), after=1.0),)),
            ]
        ),
        max_size=2,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    limits=st.lists(
        st.sampled_from(
            [("idle_timeout", 10.0), ("half_close_timeout", 5.0), ("max_duration", 9.0)]
        ),
        max_size=2,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
)


class LeanTest(SynchronousTestCase):
    def told(self, features: Features, stream: bytes, steps: Any, *, lean: bool) -> dict[str, Any]:
        world = _World(features, stream, lean=lean)
        try:
            for step in steps:
                world.step(*step)
            world.finish()
            return world.story()
        finally:
            world.close()

    @example(
        Features(settings=(("detect_timeout", 0.5),)),
        _STREAMS[1],
        [("client", "send", 2), ("mux", "advance", 1), ("mux", "look", 0)],
    )
    @example(
        Features(settings=(("max_connections", 1), ("connection_rate_per_source", Rate(0.1, 2)))),
        _STREAMS[1],
        [("mux", "another", 0)],
    )
    @settings(deadline=None, max_examples=scaled(300))
    @given(features=_FEATURES, stream=st.sampled_from(_STREAMS), steps=_STEPS)
    def test_nobody_can_tell(self, features: Features, stream: bytes, steps: Any) -> None:
        """Both have the same bytes, ends, lines, counters and rows, and leave nothing behind."""
        usual = self.told(features, stream, steps, lean=True)
        self.assertEqual(usual, self.told(features, stream, steps, lean=False))
        self.assertEqual((usual["left"], usual["calls"]), (0, 0))

    def test_server_that_is_the_connection_itself_is_refused(self) -> None:
        """Nothing is sent there: the client would get its own bytes back."""
        world = _World(Features(refusing=1, tries=0), _STREAMS[0], lean=True)
        self.addCleanup(world.close)
        closed = next(int(port) for port, number in world.numbers.items() if number == "port0")

        def bound(family: int, kind: int) -> socket.socket:
            its = LeanSocket(family, kind)
            its.bind(("127.0.0.1", closed))
            return its

        self.patch(lean, "open_socket", bound)
        world.step("client", "send", 16)
        world.finish()
        (record,) = world.log.records
        self.assertEqual((record.reason, record.bytes_out), ("connect-refused", 0))
        self.assertEqual(world.client.received, b"")

    def test_shortage(self) -> None:
        """A connection that cannot become the fuller one ends, and nothing of it is left."""
        parts = "MuxProtocol", "SocketTransport", "ProxyClient", "MovedHere"
        for part, step in product(parts, (("server", "reset", 0), ("mux", "end", 0))):
            world = _World(Features(), _STREAMS[0], lean=True)
            self.addCleanup(world.close)
            world.step("client", "send", 16)
            (upstream,) = world.factory.upstreams.all()
            self.assertEqual(upstream.pool.connections, 1)
            patched = self.patch(lean, part, Mock(side_effect=MemoryError))
            world.step(*step)
            patched.restore()
            world.finish()
            story = world.story()
            self.assertEqual([record.reason for record in world.log.records], ["error"])
            self.assertEqual((story["left"], story["reserved"], story["calls"]), (0, 0, 0))
            self.assertEqual(upstream.pool.connections, 0)
            self.assertEqual(world.client.end, "ECONNRESET")

    def test_unwatched(self) -> None:
        """Without memory of the system for its sockets, a connection ends, and the port waits before it accepts another."""
        world = _World(Features(), _STREAMS[0], lean=True)
        self.addCleanup(world.close)
        poller: Any = world.factory.runtime.poller
        make_scarce(self, poller).room = 0
        world.client.send(16)
        world.turn()
        self.assertEqual([record.reason for record in world.log.records], ["error"])
        self.assertFalse(world.port._is_reading)
        world.port.startReading()
        world.finish()

    def test_usual_connection_stays_one(self) -> None:
        """As long as nothing unusual happens to it; a question changes nothing."""
        world = _World(Features(), _STREAMS[0], lean=True)
        self.addCleanup(world.close)
        for step in (
            ("client", "send", 2),
            ("mux", "advance", 3),
            ("client", "send", 60),
            ("server", "send", 500),
            ("mux", "advance", 200),
            ("mux", "look", 0),
        ):
            world.step(*step)
        self.assertEqual(world.kinds, {LeanConnection})
        world.finish()
        self.assertEqual(world.log.records[0].reason, "done")
