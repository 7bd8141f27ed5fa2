"""Two thousand connections, of every way to end, leave nothing behind."""

from __future__ import annotations

import collections
import gc
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tests.support.kit import MuxTestCase, backend_at, change_constants
from tests.support.peers import Peer, PeerFactory, connect, make_stalled_port, reactor
from txmux.backends import upstream
from txmux.net.relay.relay import Relay
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.rules.embedding import outcome, route
from txmux.tcp import sweep
from txmux.tcp.connection import MuxProtocol

_PATIENCE = 60.0  # seconds
CONNECTIONS = 2_000
AT_ONCE = 200
_WAYS = (
    (b"Be", 2, "close"), (b"B-", 0, "finish"), (b"Be", 2, "reset"), (b"Ee", 2, "close"),
    *((first, 0, "reset") for first in (b"", b"B", b"Be", b"H")),
    *((first, 0, "") for first in (b"", b"X", b"Bc", b"Br", b"Ec", b"Er", b"N", b"H", b"I-", b"M-")),
    (b"Ji", 0, "finish"),  # the server does not answer a client that has finished
)  # fmt: skip
"""What clients say, how many bytes they wait for, and how they end then; unless others do."""


class _Server(Peer):
    open: ClassVar[set[_Server]] = set()

    def connectionMade(self) -> None:
        self.open.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.open.discard(self)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        act = {b"e": lambda: self.send(data), b"c": self.close, b"r": self.reset}
        act.get(data[1:2], lambda: None)()

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        if self.received[1:2] != b"i":
            self.close()


@pytest.mark.by_turns(each=True)
class LeakTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.backend = PeerFactory(_Server)
        self.backend.peers = collections.deque(maxlen=1)  # type: ignore[assignment]
        inside = PeerFactory(_Server)
        inside.peers = self.backend.peers
        port = self.backend_port()
        # Only clients that say nothing, and those of the stalled port, are in a hurry.
        change_constants(self, upstream, HALF_CLOSE=0.05)
        change_constants(self, sweep, _PERIOD=0.05)
        patient: dict[str, Any] = {"connect_timeout": 600}
        self.silent_port = self.mux(detect_timeout=0.1, reactor=reactor)
        self.silent_factory = self.factory
        routes = [
            route("payload text=E", outcome(inside), name="in process"),
            route("payload text=N", backend_at(1, **patient), name="refused"),
            route("payload text=H", backend_at(make_stalled_port(self), connect_timeout=0.1)),
            route("payload text=I", backend_at(port, idle_timeout=0.05, **patient)),
            route("payload text=J", backend_at(port, **patient)),
            route("payload text=M", backend_at(port, max_duration=0.05, **patient)),
            route("payload text=B", backend_at(port, proxy_protocol="off", **patient)),
        ]
        self.port = self.mux(routes, detect_timeout=600, reactor=reactor)

    async def come(self, first: bytes, count: int, end: str) -> None:
        peer = Peer()
        self.peers.append(peer)
        await connect(self, self.port if first else self.silent_port, peer=peer)
        if first:
            peer.send(first)
        await peer.has(count)
        if end:
            getattr(peer, end)()

    async def run_batch(self, ways: Iterable[tuple[bytes, int, str]]) -> None:
        self.peers: list[Peer] = []
        await gatherResults([Deferred.fromCoroutine(self.come(*way)) for way in ways])
        for peer in self.peers:
            await peer.is_lost()
        while self.factory.connections or self.silent_factory.connections:
            await self.turn()
        for server in [*_Server.open]:  # who answered no half-close does not notice the end either
            server.close()
        while _Server.open:
            await self.turn()
        await self.turn()  # what has ended is freed with its turn

    async def test_nothing_is_left(self) -> None:
        """After all of them there are as many descriptors, timers and objects as before."""
        await self.run_batch(_WAYS)
        before = self.left()
        done = len(_WAYS)
        while done < CONNECTIONS:
            numbers = range(done, done + AT_ONCE)
            await self.run_batch(_WAYS[number % len(_WAYS)] for number in numbers)
            done += AT_ONCE
        self.assertEqual(len(self.records), done)
        await self.assert_no_more(before)
        counted = collections.Counter(record.reason for record in self.records)
        others = (
            "client-gone client-reset server-reset silent no-route connect-refused max-duration"
        )
        timeouts = {f"{name}-timeout" for name in ("connect", "idle", "half-close")}
        self.assertEqual({*counted}, {"done", *others.split(), *timeouts})

    async def assert_no_more(self, before: dict[str, int]) -> None:
        """Compare with what there was before; an earlier test may have left something that is gone by now, and what ends now something for a while."""
        until = reactor.seconds() + _PATIENCE
        while reactor.seconds() < until:
            now = self.left()
            more = {name: now[name] - before[name] for name in now if now[name] > before[name]}
            if not more:
                return
            await self.turn()
        self.assertEqual(more, {})

    def left(self) -> dict[str, int]:
        DESCRIPTORS.close_cached()  # pipes that are kept for the next connection
        for factory in (self.factory, self.silent_factory):
            factory.drop_idle_timers()  # so are those
        self.backend.peers.clear()  # the last of which may be one in this process, with its connection
        gc.collect()
        kinds = collections.Counter(type(thing) for thing in gc.get_objects())
        return {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "timers": len(reactor.getDelayedCalls()), "readers": len(reactor.getReaders()),
            "writers": len(reactor.getWriters()), "connections": kinds[MuxProtocol],
            "relays": kinds[Relay],
        }  # fmt: skip
