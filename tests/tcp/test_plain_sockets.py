"""Connections on plain sockets and on a transport: whatever happens, nobody can tell them apart."""

import contextlib
import errno
import operator
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, ip_network
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.reactors import PrivateReactor
from tests.net.sockets.scarcity import make_scarce
from tests.support.examples import scaled
from tests.support.mux import ListLog, server_at
from tests.tcp.stages.test_second_hello import CHANGED
from tests.wire.hello_builder import client_hello, records, server_hello, server_name
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.client import io_runtime
from txmux.client.io_runtime import IORuntime
from txmux.control.documents import connection_document
from txmux.net.relay.relay import GRACE
from txmux.net.sockets import client as sockets_client
from txmux.net.sockets.descriptors import Descriptors
from txmux.net.sockets.plainsocket import LeanSocket, reset_on_close, set_options
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Listener, NetworkSet, Rate, Silence
from txmux.tcp import connection as connection_module
from txmux.tcp.listener import MuxFactory
from txmux.tcp.stages import awaiting_retry, connecting, peeking, relaying
from txmux.telemetry.access_log import should_log
from txmux.telemetry.counting.counter_groups import LISTENER, ROUTE, SERVER, WAITING, ListenerTotals
from txmux.telemetry.record import ConnectionRecord
from txmux.wire.proxyprotocol.encode import SIGNATURE, encode_v2
from txmux.wire.proxyprotocol.header import Address, Command, ProxyHeader, Tlv, TlvType

_HELLO = records(client_hello(server_name("www.example.com")))
_STREAMS = (
    b"SSH-2.0-client\r\n", b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    b"POST /other HTTP/1.1\r\nHost: other.example.com\r\n\r\n", b"\x00nobody's", _HELLO,
)  # fmt: skip
_ANSWER = b"answer"
_ANSWERS_OF_TLS = (  # to a hello
    records(server_hello(bytes(32))) + b"rest", records(server_hello(bytes(32)), 7),
    records(server_hello()) + CHANGED,  # which asks for another one
    bytes.fromhex("15030300020228"),  # an alert
)  # fmt: skip
_V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n"
_SENT = ProxyHeader(
    Command.PROXY,
    Address(IPv4Address("192.0.2.1"), 51234),
    Address(IPv4Address("198.51.100.7"), 443),
    (Tlv(TlvType.AUTHORITY, b"www.example.com"), Tlv(0xE0, b"own")),
)
_HEADERS = (
    _V1,
    encode_v2(_SENT, checksum=True),
    encode_v2(attrs.evolve(_SENT, tlvs=(Tlv(TlvType.SSL, b"\1"),))),  # which cannot be read
    encode_v2(ProxyHeader()),  # LOCAL
    b"PROXY UNKNOWN\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.256 51234 443\r\n",
)
# A peer is sent little, which its system takes even if it does not read; or much, which stops the multiplexer until it reads all.
# Between these, chance would decide when an end is noticed.
_LITTLE, _MUCH = 300, 3_000_000
_MOST = 2**13  # bytes of steps that send little
_ALL = 2**30
_PATTERN = bytes(range(251)) * (_MUCH // 251 + 1)
# Buffers that do not grow, and segments of which many fit in: large ones, as a loopback device has, would wait for room by timers.
_SEGMENTS = socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1440
_OPTIONS = _SEGMENTS, (socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
_SENT_BUFFER = socket.SOL_SOCKET, socket.SO_SNDBUF, 2**12
_MUX_OPTIONS = _SEGMENTS, (socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18), _SENT_BUFFER
_AT_ONCE = 2**18
_TURNS, _ROUNDS = 6, 4
_PATIENCE, _DELIVERY = 20.0, 0.5  # seconds
_PACKETS, _DESCRIPTORS = Path("/proc/net/softnet_stat"), Path("/proc/self/fd")
_INFO = struct.Struct("=B23xI116xI")  # of `struct tcp_info`: state, unacked, notsent_bytes
_LISTENING, _CLOSED = 10, 7
_CONNECTIONS, _LISTENS = Path("/proc/net/tcp"), "0A"
_PARTS = (
    (relaying, "Relaying"), (relaying, "RelayState"),
    (connection_module, "SocketTransport"), (connection_module, "ProxyClient"),
)  # fmt: skip
_BYTES = {
    (group.kind, group.names.index(name))
    for group in (LISTENER, ROUTE, SERVER)
    for name in ("bytes in", "bytes out")
}
_TIMES = {
    (ROUTE.kind, ROUTE.names.index("last match")),
    (SERVER.kind, SERVER.names.index("last failure")),
}
_DURATIONS = LISTENER.kind, ListenerTotals.duration.at
# Without a stage, only those are counted that still wait when the sweep looks.
_WAITING = {
    (SERVER.kind, at) for at in (SERVER.names.index("asked"), *range(WAITING.start, WAITING.stop))
}


@attrs.frozen
class Features:
    proxy_protocol: Any = "off"
    refusing: int = 0  # servers before the one that listens
    tries: int = 2
    proxied_first: bool = False  # whether the default is a server, too
    silent: str = ""  # the line by which a route takes clients that say nothing
    settings: tuple[tuple[str, Any], ...] = ()
    limits: tuple[tuple[str, Any], ...] = ()
    answer: bytes = _ANSWER
    header: bytes = b""  # of the PROXY protocol, with which clients have to begin


class _Peer:
    """One end of a connection, which does what it is told; what the system does not take of it at once follows."""

    def __init__(self, connected: socket.socket, beginning: bytes, other_end: str = "") -> None:
        connected.setblocking(False)  # noqa: FBT003 - the socket module's signature
        # What it sends must not wait for an answer, which the other end's system may delay.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self.other_end = other_end
        self.beginning = beginning
        self.received = bytearray()
        self.asked = self.sent = self.wanted = 0
        self.last: Callable[[], None] | None = None
        self.end = self.broken = ""

    @property
    def is_open(self) -> bool:
        return self.socket.fileno() >= 0

    def send(self, count: int) -> None:
        self.asked = min(self.asked + count, _MUCH)

    def read(self, most: int) -> None:
        self.wanted = most

    def finish(self, _: int) -> None:
        self.last = self.last or partial(self.socket.shutdown, socket.SHUT_WR)

    def reset(self, _: int) -> None:
        reset_on_close(self.socket)
        self._close()

    def close(self, _: int = 0) -> None:
        self.last = self._close

    def act(self) -> None:
        self._send()
        self._read()
        if self.last is not None and self.sent == self.asked:
            with contextlib.suppress(OSError):
                self.last()
        if self.is_open:
            # The system would wait for up to 40 ms before it confirms what has come.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _send(self) -> None:
        while self.sent < self.asked:
            data = _stream(self.beginning, self.sent, min(self.asked, self.sent + _AT_ONCE))
            try:
                self.sent += self.socket.send(data)
            except BlockingIOError:
                return
            except ConnectionResetError:  # which reading would not tell again
                self.asked, self.broken = self.sent, "ECONNRESET"
            except OSError:
                self.asked = self.sent

    def _read(self) -> None:
        while self.wanted > 0 and not self.end:
            try:
                data = self.socket.recv(min(self.wanted, _AT_ONCE))
            except BlockingIOError:
                self.end = self.broken
                return
            except OSError as problem:
                self.end = errno.errorcode[problem.errno or 0]
                return
            self.received += data
            self.wanted -= len(data)
            self.end = "" if data else self.broken or "finished"

    def _close(self) -> None:
        self.socket.close()
        self.end = self.end or "closed"


class _World:
    """A multiplexer with one client; everything happens when it is told to."""

    def __init__(self, features: Features, stream: bytes, *, fast: bool) -> None:
        self.private = PrivateReactor("epoll")
        self.clock = Clock()
        self.log = ListLog()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)  # noqa: FBT003 - the socket module's signature
        set_options(self.listening, _OPTIONS)
        # Which are kept, so that nobody else gets their ports.
        self.refusing = [socket.socket() for _ in range(features.refusing)]
        for one in self.refusing:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in (*self.refusing, self.listening)]
        settings: dict[str, Any] = {**dict(features.limits), "retries": features.tries}
        settings["proxy_protocol"] = features.proxy_protocol
        backend = Backend("servers", tuple(map(server_at, ports)), **settings)
        self.numbers = {str(port): f"port{number}" for number, port in enumerate(ports)}
        routes = [
            route("ssh", backend, name="ssh"),
            route("http host=www.example.com", backend, name="site", log=False),
            route("http", "close", name="others"),
            route("tls sni=www.example.com", backend, name="tls"),
        ]
        if features.silent:
            routes.append(route(features.silent, backend, name="silent"))
        options = dict(features.settings)
        self.header, self.answer = features.header, features.answer
        if features.header:
            options["accept_proxy_from"] = NetworkSet([ip_network("127.0.0.0/8")])
        if features.proxied_first:
            options["default"] = backend
        plan = ServerSocketPlan(_MUX_OPTIONS)
        with patch.object(ServerSocketPlan, "of", lambda _: plan):
            self.factory = MuxFactory(
                routes, Listener("shared", **options), access_log=self.log, runtime=IORuntime(self)
            )
        self.factory.runtime.descriptors = Descriptors()  # one that fails leaves some reserved
        if not fast:
            self.factory.serve = None  # type: ignore[assignment, method-assign]
        self.ended: list[Any] = []
        factory: Any = self.factory
        self._closed, factory.closed = factory.closed, self._note_end
        # At 127.0.0.1, who tries again to reach another test's server that has gone would come here.
        with socket.create_server(("127.0.78.1", 0)) as opened:
            set_options(opened, _MUX_OPTIONS)
            self.port: Any = self.factory.listen(opened)
            self.where = opened.getsockname()
        self.poller: Any = self.factory.runtime.poller
        self.reads_all = self.is_much_sent = False
        self.client = self._client(stream)
        self.others: list[_Peer] = []
        self.servers: list[_Peer] = []
        self.rows: list[Any] = []
        self.transports: set[object] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(
            self.clock if name in {"callLater", "seconds"} else self.private.reactor, name
        )

    def _client(self, stream: bytes) -> _Peer:
        its = socket.socket()
        set_options(its, _OPTIONS)
        its.connect(self.where)
        return _Peer(its, self.header + stream)

    @property
    def peers(self) -> list[_Peer]:
        return [self.client, *self.others, *self.servers]

    def turn(self) -> None:
        quiet, before, until = 0, None, 0.0
        all_read = all(peer.wanted for peer in self.peers if peer.is_open)
        while quiet < _TURNS or (time.monotonic() < until and not self.is_confirmed(all_read)):
            for peer in self.peers:
                if peer.is_open:
                    peer.act()
            _deliver()
            self.private.turn()
            _deliver()
            with contextlib.suppress(BlockingIOError):
                accepted, name = self.listening.accept()
                self.servers.append(_Peer(accepted, self.answer, "{}:{}".format(*name)))
            quiet, now = quiet + 1, self._progress()
            if now != before:
                quiet, before, until = 0, now, time.monotonic() + _PATIENCE

    def is_confirmed(self, all_read: bool) -> bool:  # noqa: FBT001 - of a helper
        """Tell whether nothing that sockets of this process have sent waits for its confirmation: systems may delay that by 40 ms.

        Where all peers read, nothing waits to be sent, either: after a full window, systems may try again only after 200 ms.
        """
        ports = self.where[1], self.listening.getsockname()[1]
        if any(_unconfirmed(int(one.name), all_read) for one in _DESCRIPTORS.iterdir()):
            return False
        return not (all_read and _closed_with_more(*ports))

    def _progress(self) -> list[Any]:
        relayed = [one.relayed() for one in self.factory.connections]
        return [
            *((peer.sent, len(peer.received), peer.is_open) for peer in self.peers),
            *sorted((one.bytes_in, one.bytes_out) for one in relayed),
        ]

    def step(self, who: str, what: str, number: int) -> None:
        if who == "mux":
            self._ask(what, number)
        else:
            self.reads_all = self.reads_all or number > _LITTLE
            # How much room there is for more when a part of much has been read is the system's affair.
            number = _MUCH if what == "read" and self.reads_all else number
            for peer in [self.client] if who == "client" else self.servers[-1:]:
                if peer.is_open:
                    getattr(peer, what)(number)
        self.turn()
        self.is_much_sent = self.is_much_sent or (what == "send" and number > _LITTLE)
        if what == "reset" and self.is_much_sent:
            # How much of it is under way by then is the system's affair: whether a relay waits for the other peer's end, too.
            self.clock.advance(GRACE)
            self.turn()
        for peer in self.peers:
            peer.wanted = 0

    def _lasted(self, duration: float, second: float) -> float:
        """Return a duration, without `GRACE` if that may be in it."""
        return duration * 10 // second / 10 if self.is_much_sent else duration

    def _ask(self, what: str, number: int) -> None:
        connections: list[Any] = sorted(self.factory.connections, key=_number_of)
        self.transports.update(one.transport for one in connections)
        if what == "advance":
            self.clock.advance(number / 2)
        elif what == "attach":
            for one in connections:
                one.attach_stage()
        elif what == "end":
            self.factory.abort("killed")
        elif what == "another":
            self.others.append(self._client(_STREAMS[number]))
            self.others[-1].send(100)
        else:
            for one in connections:
                one.count_bytes()
                row = connection_document(one)
                counts = [_amount(row[name]) for name in ("bytes_in", "bytes_out")]
                self.rows.append((row["state"], row["idle_ms"], row["route"], counts))

    def finish(self) -> None:
        for client in (self.client, *self.others):
            client.read(_ALL)
        self.turn()
        for client in (self.client, *self.others):
            client.close()
        for _ in range(_ROUNDS):
            self.turn()
            for server in self.servers:
                server.read(_ALL)
                if server.end:
                    server.close()
        for _ in range(5):
            self.clock.advance(100)
            self.turn()
        for server in self.servers:
            server.close()
        self.turn()

    def _note_end(self, ended: Any) -> None:
        self.ended.append(ended)
        self._closed(ended)

    def disagreements(self, *, is_usual: bool) -> list[str]:
        """Compare what was recorded of each client with what the peers themselves have sent and received.

        Args:
            is_usual: Whether nothing happened after which a connection with a server would end otherwise than well.
        """
        clients = [self.client, *self.others]
        ended = sorted(self.ended, key=_number_of)
        wanted = {one.record.id for one in ended if should_log(one.record, one.logged)}
        lines = [record.id for record in self.log.records]
        found = [] if len(ended) == len(clients) else [f"{len(ended)} ends"]
        if sorted(lines) != sorted(wanted):
            found.append(f"lines of {lines}, and not of {wanted}")
        servers = {server.other_end: server for server in self.servers}
        for client, one in zip(clients, ended, strict=False):
            server = servers.get(one.record.server_local)
            why = _disagreement(one.record, client, server, self.header, is_usual=is_usual)
            if why:
                found.append(f"{why}: {one.record}")
        return found

    def story(self) -> dict[str, Any]:
        records = []
        if not self.factory.connections:
            self.factory.drop_idle_timers()
        for record in self.log.records:
            fields = attrs.asdict(record)
            for name in ("bytes_in", "bytes_out"):
                fields[name] = _amount(fields[name])
            fields["duration_ms"] = self._lasted(fields["duration_ms"], 1e3)
            for name in ("time", "id", "client", "local", "server_local"):
                fields[name] = fields[name] is not None
            fields["facts"] = {
                name: name == "proxy_peer" or fact for name, fact in fields["facts"].items()
            }
            records.append(re.sub(r"\d{4,5}", self._number, repr(fields)))
        own = self.factory.runtime.counters._own.items()
        counted = {
            (re.sub(r"\d{4,5}", self._number, name), number): (
                _amount(cell)
                if (name.split("\n")[0], number) in _BYTES
                else self._lasted(cell, 1e6)
                if (name.split("\n")[0], number) == _DURATIONS
                else cell
            )
            for name, cells in own
            for number, cell in enumerate(cells)
            if cell and (name.split("\n")[0], number) not in _TIMES | _WAITING
        }
        killed = any(record.reason == "killed" for record in self.log.records)
        counted = {of: cell for of, cell in counted.items() if cell}
        peers = []
        for one in self.peers:
            # A reset discards what is on its way, as an operator's end does.
            known = 2 if killed or one.end == "ECONNRESET" else 3
            peers.append((_told(bytes(one.received), self.header)[:known], one.end))
        return {
            "records": sorted(records), "peers": peers, "counted": counted, "rows": self.rows,
            "left": [
                len(self.factory.connections),
                *(tally.count for tally in self.factory.configuration.admission.tallies),
                *(upstream.pool.connections for upstream in self.factory.upstreams.all()),
            ],
            "reserved": self.factory.runtime.descriptors.reserved,
            "calls": len(self.clock.getDelayedCalls()),
        }  # fmt: skip

    def _number(self, found: re.Match[str]) -> str:
        return self.numbers.get(found[0], found[0])

    def close(self) -> None:
        self.port.stopListening()
        self.turn()
        for one in (*(peer.socket for peer in self.peers), self.listening, *self.refusing):
            one.close()
        self.private.close()


def _number_of(connection: Any) -> int:
    return int(connection.record.id[9:], 16)


def _disagreement(
    record: ConnectionRecord, client: _Peer, server: _Peer | None, header: bytes, *, is_usual: bool
) -> str:
    if server is None:
        return "there was no server" if record.reason == "done" or record.server_local else ""
    sent = client.sent - len(header)
    taken, given = len(_body(bytes(server.received))), len(client.received)
    if is_usual and record.reason != "done":
        return "it did not end well"
    is_right = taken <= record.bytes_in <= sent and given <= record.bytes_out <= server.sent
    is_whole = record.reason == "done" and "reset" not in record.facts
    if is_whole and client.end == server.end == "finished":
        is_right &= (taken, given) == (sent, server.sent)
    return "" if is_right else f"{sent} {taken} {server.sent} {given}"


def _deliver() -> None:
    """Let the kernel deliver what is on its way, which it does later where other programs keep the CPU busy."""
    # The twelfth number of a CPU is how many packets wait there, of any program.
    until = time.monotonic() + _DELIVERY
    while time.monotonic() < until:
        waiting = [line.split()[11] for line in _PACKETS.read_text().splitlines()]
        if not any(int(count, 16) for count in waiting):
            return
        os.sched_yield()


def _closed_with_more(mux: int, server: int) -> bool:
    """Tell whether peers have closed of which the system still has something to send, as no descriptor tells any longer."""
    rows = [line.split() for line in _CONNECTIONS.read_text().splitlines()[1:]]
    of_peers = [it for it in rows if it[2][-4:] == f"{mux:04X}" or it[1][-4:] == f"{server:04X}"]
    return any(int(row[4].partition(":")[0], 16) for row in of_peers if row[3] != _LISTENS)


def _unconfirmed(descriptor: int, all_read: bool) -> int:  # noqa: FBT001 - of a helper
    try:
        its = socket.socket(fileno=descriptor)
    except OSError:  # it is no socket
        return 0
    info = b""
    with contextlib.suppress(OSError):  # it is none of TCP
        info = its.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    its.detach()
    state, packets, unsent = _INFO.unpack(info or bytes(_INFO.size))
    waiting: int = packets + unsent if all_read and state != _CLOSED else packets
    return 0 if state == _LISTENING else waiting


def _packets_to(peer: socket.socket) -> int:
    """Return how many packets with bytes or an end a socket has received (``tcpi_segs_in``)."""
    info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int.from_bytes(info[140:], sys.byteorder)


def _stream(beginning: bytes, start: int, end: int) -> bytes:
    first = beginning[start:end]
    return first + _PATTERN[start + len(first) : end]


def _amount(count: int) -> int | str:
    return count if count % _MUCH <= _MOST else "some"


def _body(received: bytes) -> bytes:
    """Return what came after a PROXY header, if there is one; of a server that has read a part of it, nothing."""
    if received.startswith(SIGNATURE):
        return received[16 + int.from_bytes(received[14:16], "big") :]
    if received.startswith(b"PROXY"):
        return received[received.find(b"\n") + 1 or len(received) :]
    if SIGNATURE.startswith(received) or (len(received) > 1 and b"PROXY".startswith(received)):
        return b""
    return received


def _told(received: bytes, before: bytes) -> tuple[bytes, bool, int | str]:
    """Return the beginning of what came, whether all of it is what somebody sent after a client's header, and how much it is.

    The ports of a PROXY header of the multiplexer's are left out.
    """
    body = _body(received)
    if received.startswith(SIGNATURE):
        received = received[:24] + received[28:]
    received = re.sub(rb"^(PROXY TCP4 \S+ \S+) [\d ]+", rb"\1", received)
    start, end = len(before), len(before) + len(body)
    right = any(body == _stream(one, 0, len(body)) for one in (_ANSWER, *_ANSWERS_OF_TLS)) or any(
        body == _stream(before + one, start, end) for one in _STREAMS
    )
    return received[:80], right, _amount(len(body))


_SIZES = st.sampled_from([1, 2, 4, 16, 100, _LITTLE, _MUCH, _MUCH])
_WHO = st.sampled_from(["client", "server"])
_STEP = st.one_of(
    st.tuples(_WHO, st.sampled_from(["send", "read"]), _SIZES),
    st.tuples(_WHO, st.just("finish"), st.just(0)),
    st.tuples(_WHO, st.sampled_from(["finish", "reset", "close"]), st.just(0)),
    st.tuples(st.just("mux"), st.just("advance"), st.sampled_from([1, 2, 3, 7, 20, 200])),
    st.tuples(st.just("mux"), st.sampled_from(["look", "look", "attach", "end"]), st.just(0)),
    st.tuples(st.just("mux"), st.just("another"), st.sampled_from(range(len(_STREAMS)))),
)
_USUAL = {*product(("client", "server"), ("send", "read")), ("mux", "look"), ("mux", "attach")}
_STEPS = st.builds(
    operator.add,
    st.sampled_from([[], [("client", "send", 100)], [("client", "send", 100)]]),  # which is routed
    st.one_of(st.lists(_STEP, max_size=12), st.lists(_STEP, min_size=6, max_size=12)),
)
_ANSWERED = [("client", "send", 16), ("server", "send", 16), ("client", "reset", 0)]


def _few(*pairs: tuple[str, Any]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    return st.lists(st.sampled_from(pairs), max_size=2, unique_by=lambda pair: pair[0]).map(tuple)


_FEATURES = st.builds(
    Features,
    answer=st.sampled_from([_ANSWER] * 4 + [*_ANSWERS_OF_TLS]),
    proxy_protocol=st.sampled_from(["off", "off", "v1", "v2"]),
    refusing=st.sampled_from([0, 0, 1, 2]),
    tries=st.integers(0, 2),
    proxied_first=st.booleans(),
    silent=st.sampled_from(["", "", "silent", *(f"silent after={n}ms" for n in (900, 2500, 9000))]),
    settings=_few(
        ("detect_timeout", 3.0), ("detect_timeout", 1.0), ("peek_limit", 8),
        ("max_connections_per_source", 1), ("max_undecided_per_source", 1),
        ("max_connections", 1), ("connection_rate_per_source", Rate(0.1, 2)), ("log", "errors"),
        ("silent", (Silence(Backend("other", (server_at(9),)), after=1.0),)),
        ("first", "server"), ("mptcp", True), ("proxy_timeout", 1.5), ("proxy_timeout", 8.0),
    ),
    limits=_few(("idle_timeout", 10.0), ("max_duration", 9.0)),
    header=st.sampled_from([b"", b"", *_HEADERS]),
)  # fmt: skip


class PlainSocketsTest(SynchronousTestCase):
    def world(self, features: Features = Features(), stream: bytes = _STREAMS[0]) -> _World:
        world = _World(features, stream, fast=True)
        self.addCleanup(world.close)
        return world

    def told(self, features: Features, stream: bytes, steps: Any, *, fast: bool) -> dict[str, Any]:
        world = _World(features, stream, fast=fast)
        try:
            for step in steps:
                world.step(*step)
            world.finish()
            # What follows a hello waits for a server's answer, which may never come.
            is_usual = stream != _HELLO and all(step[:2] in _USUAL for step in steps)
            self.assertEqual(world.disagreements(is_usual=is_usual), [])
            return world.story()
        finally:
            world.close()

    @example(
        Features(settings=(("detect_timeout", 0.5),)), _STREAMS[1],
        [("client", "send", 2), ("mux", "advance", 1), ("mux", "look", 0)],
    )  # fmt: skip
    @example(
        Features(settings=(("max_connections", 1), ("connection_rate_per_source", Rate(0.1, 2)))), _STREAMS[1],
        [("mux", "another", 0)],
    )  # fmt: skip
    @example(  # the idle time begins when the server is connected
        Features(
            header=_V1, settings=(("detect_timeout", 9.0), ("proxy_timeout", 9.0)), limits=(("idle_timeout", 10.0),)
        ),
        _STREAMS[0],
        [
            *[("mux", "advance", 1)] * 3, ("client", "send", 100), *[("mux", "advance", 7)] * 2,
            *[("mux", "advance", 1), ("mux", "look", 0)] * 5,
        ],
    )  # fmt: skip
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("mux", "advance", 1)])
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("server", "close", 0), ("mux", "advance", 1)])
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("server", "reset", 0)])
    @example(
        Features(answer=_ANSWERS_OF_TLS[0]), _HELLO,
        [("client", "send", 1000), ("server", "send", 16), ("server", "reset", 0)],
    )  # fmt: skip
    @example(
        Features(answer=_ANSWERS_OF_TLS[2]), _HELLO,
        [("client", "send", 1000), ("server", "send", 60), ("server", "finish", 0)],
    )  # fmt: skip
    @example(
        Features(proxy_protocol="v2", proxied_first=True, header=b"\r\n\r\n\x00\r\nQUIT\n!\x00\x00\x00"), _STREAMS[0],
        [
            ("client", "send", 100), ("server", "send", 16), ("mux", "advance", 2),
            ("client", "send", 100), ("server", "send", 4), ("client", "send", _MUCH), ("server", "finish", 0),
        ],
    )  # fmt: skip
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("server", "send", 16), ("mux", "look", 0)])
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("mux", "attach", 0), ("server", "close", 0)])
    @example(Features(), _STREAMS[0], [*_ANSWERED, ("mux", "end", 0)])
    @settings(deadline=None, max_examples=scaled(300))
    @given(features=_FEATURES, stream=st.sampled_from(_STREAMS), steps=_STEPS)
    def test_nobody_can_tell(self, features: Features, stream: bytes, steps: Any) -> None:
        """Both have the same bytes, ends, lines, counters and rows, and leave nothing behind."""
        usual = self.told(features, stream, steps, fast=True)
        self.assertEqual(usual, self.told(features, stream, steps, fast=False))
        self.assertEqual((sum(usual["left"]), usual["reserved"], usual["calls"]), (0, 0, 0))
        self.assertTrue(all(right for (_, right, *_), _ in usual["peers"]))

    def test_server_that_is_the_connection_itself_is_refused(self) -> None:
        """Nothing is sent there: the client would get its own bytes back."""
        world = self.world(Features(refusing=1, tries=0), _STREAMS[0])
        closed = next(int(port) for port, number in world.numbers.items() if number == "port0")

        def bound(*of: int) -> socket.socket:
            its = LeanSocket(*of)
            its.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            its.bind(("127.0.0.1", closed))
            return its

        self.patch(sockets_client, "open_socket", bound)
        world.step("client", "send", 16)
        world.finish()
        (record,) = world.log.records
        self.assertEqual((record.reason, record.bytes_out), ("connect-refused", 0))
        self.assertEqual(world.client.received, b"")

    def test_options_of_a_servers_address_are_for_long_streams(self) -> None:
        """Such as its congestion control, which costs more than the whole of a short one."""
        priority = socket.SOL_SOCKET, socket.SO_PRIORITY
        for step in (("mux", "advance", 4), ("client", "send", _MUCH)):
            world = self.world()
            [upstream] = world.factory.upstreams.all()
            member = upstream.pool.members[0]
            member._options = (*member.options, (*priority, 5))
            world.step("client", "send", 16)
            connection: Any
            [connection] = world.factory.connections
            with socket.socket(fileno=os.dup(connection.server.fileno())) as server:
                self.assertEqual(server.getsockopt(*priority), 0)
                world.step(*step)
                self.assertEqual(server.getsockopt(*priority), 5)
            world.finish()

    def test_last_bytes_leave_with_the_end(self) -> None:
        """In one packet, with and without a stage."""
        for step in (("mux", "look", 0), ("mux", "attach", 0)):
            world = self.world()
            world.step("client", "send", 16)
            world.step(*step)
            [server] = world.servers
            before = _packets_to(server.socket)
            world.client.finish(0)
            world.step("client", "send", 16)
            self.assertEqual(_packets_to(server.socket) - before, 1, step)
            world.finish()

    def test_shortage(self) -> None:
        """A connection that lacks the memory for a stage ends, and nothing of it is left."""
        relayed, refused = Features(), Features(refusing=1)
        parts = [(relayed, *part) for part in (*_PARTS, (io_runtime, "Relay"))]
        parts.append((refused, connecting, "BackendConnector"))
        steps = ("server", "reset", 0), ("mux", "end", 0)
        for (features, module, part), step in product(parts, steps):
            world = self.world(features, _STREAMS[0])
            (upstream,) = world.factory.upstreams.all()
            missing = Mock(side_effect=MemoryError)
            if features.refusing:
                patched = self.patch(module, part, missing)
                world.step("client", "send", 16)
            else:
                world.step("client", "send", 16)
                self.assertEqual(upstream.pool.connections, 1)
                patched = self.patch(module, part, missing)
                world.step(*step)
            patched.restore()
            self.assertEqual([*world.poller.handlers], [world.port.fileno()])
            world.finish()
            story = world.story()
            self.assertEqual([record.reason for record in world.log.records], ["error"])
            self.assertEqual((sum(story["left"]), story["reserved"], story["calls"]), (0, 0, 0))
            self.assertEqual(world.client.end, "ECONNRESET")

    def test_shortage_at_the_answer_to_a_hello(self) -> None:
        """It says nothing about the server, with or without a stage."""
        for before in (("mux", "look", 0), ("mux", "attach", 0)):
            world = self.world(Features(), _HELLO)
            world.step("client", "send", len(_HELLO))
            self.assertEqual([one.state for one in world.factory.connections], ["awaiting-retry"])
            world.step(*before)
            patched = self.patch(awaiting_retry, "asks_again", Mock(side_effect=MemoryError))
            world.step("server", "send", 4)
            patched.restore()
            world.finish()
            self.assertEqual([record.reason for record in world.log.records], ["error"], before)
            self.assertEqual(world.client.end, "ECONNRESET")
            cells, kind = world.story()["counted"], f"{SERVER.kind}\n"
            counted = {SERVER.names[at] for name, at in cells if name.startswith(kind)}
            self.assertEqual(counted & {"connected", "failed reset"}, {"connected"})

    def test_shortage_when_the_server_is_handed_on(self) -> None:
        """From a stage to the next one, which cannot be made: the server's connection ends, too."""
        for features, stream, steps in (
            (Features(refusing=1), _STREAMS[0], [("client", "send", 16)]),
            (Features(refusing=1), _HELLO, [("client", "send", 76)]),
            (Features(), _HELLO, [("client", "send", 76), ("server", "finish", 0)]),
            (Features(), _HELLO, [("client", "send", 76), ("client", "finish", 0)]),
        ):
            world = self.world(features, stream)
            for module, part in ((relaying, "Relaying"), (awaiting_retry, "AwaitingRetry")):
                self.patch(module, part, Mock(side_effect=MemoryError))
            for step in steps:
                world.step(*step)
            self.assertEqual([record.reason for record in world.log.records], ["error"])
            self.assertEqual([*world.poller.handlers], [world.port.fileno()])
            self.assertEqual(sum(world.story()["left"]), 0)

    def test_shortage_at_the_end_of_the_time(self) -> None:
        """Where no sweep looks, too, for which the timer is the only one to end it."""
        for rules in ((), (("mptcp", True),)):
            world = self.world(Features(settings=rules))
            world.turn()
            patched = self.patch(peeking, "CloserLook", Mock(side_effect=MemoryError))
            world.step("mux", "advance", 7)
            world.step("mux", "advance", 3)
            patched.restore()
            self.assertEqual([record.reason for record in world.log.records], ["error"], rules)
            world.finish()
            self.assertEqual(sum(world.story()["left"]), 0)

    def test_unwatched(self) -> None:
        """Without memory of the system for its sockets, a connection ends, and the port waits before it accepts another."""
        for rules, sent, reason in (
            ((), 16, "error"),
            ((("detect_timeout", 1.0),), 0, "error"),
            ((("mptcp", True),), 0, "client-gone"),  # it has a transport from the beginning
        ):
            world = self.world(Features(settings=rules), _STREAMS[0])
            make_scarce(self, world.poller).room = 0
            world.client.send(sent)
            world.turn()
            self.assertEqual([record.reason for record in world.log.records], [reason])
            self.assertFalse(world.port.is_reading, rules)
            world.port.startReading()
            world.finish()

    def test_usual_connection_stays_one(self) -> None:
        """As long as nothing unusual happens to it; neither a question nor a deadline that is near changes anything."""
        world = self.world()
        for step in (
            ("client", "send", 2), ("mux", "advance", 3), ("mux", "advance", 6), ("client", "send", 60),
            ("server", "send", 500), ("mux", "advance", 200), ("mux", "look", 0),
        ):  # fmt: skip
            world.step(*step)
        self.assertEqual(world.transports, {None})
        world.finish()
        self.assertEqual(world.log.records[0].reason, "done")
