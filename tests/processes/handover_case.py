"""Connections that go from one listener to another; both are in one process, with a channel between them."""

import socket
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from tests.support.kit import Peer, change_constants, connect, reactor
from tests.support.messages import BY_KIND
from tests.support.mux import MuxTestCase, server_at
from tests.support.proc import count_descriptors
from txmux.access.admission import Tally
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, attach
from txmux.net.channel.message import Message
from txmux.net.sockets.poller import is_available
from txmux.processes.worker import handover
from txmux.processes.worker.handover import Adopting, Round, Taker, opened
from txmux.rules.embedding import route
from txmux.rules.model import Backend
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.listener import MuxFactory

SKIP = None if is_available() else "these need Linux"


def descriptors() -> int:
    return count_descriptors("socket:")


class Handover:
    """Hands connections of a test over, from `old` to `new`.

    Attributes:
        prepare: Called with each listener to which connections go.
    """

    def __init__(self, test: MuxTestCase) -> None:
        self._test = test
        change_constants(test, handover, _SHARES=1)  # so that a batch has as many as there are
        self.awaited = Tally()
        self.prepare: Callable[[MuxFactory], object] = lambda _: None

    async def relayed(
        self, count: int = 1, *, of_server: int = 0, **settings: Any
    ) -> list[tuple[Peer, Peer]]:
        """Have connections relayed, to a backend with these settings, and give the peers of each.

        Args:
            count: How many.
            of_server: The most for the server.
            settings: Of the backend.
        """
        limited = attrs.evolve(server_at(self._test.backend_port()), max_connections=of_server)
        self.routes = [route("ssh", Backend("backend", (limited,), **settings), name="ssh")]
        port = self._test.mux(self.routes)
        peers = []
        for number in range(count):
            client = await connect(self._test, port)
            client.send(b"SSH-2.0-a\r\n")
            server = await self._test.backend.peer(number)
            await server.has(11)
            peers.append((client, server))
        self.old = self._test.factory
        self.new = self.another()
        self.sockets = descriptors()
        return peers

    def another(self) -> Any:
        settings, test = self.old.configuration.settings, self._test
        made = MuxFactory(self.routes, settings, access_log=test.log, reactor=test.time)
        self.prepare(made)
        test.made.append(made)
        return made

    def channel_to(
        self, handlers: dict[Message, Callable[..., object]], lost: Callable[[], object]
    ) -> Channel:
        one, other = socket.socketpair()
        time: Any = self._test.time
        here = Channel({}, lambda: None, time)
        self.there = Channel(handlers, lost, reactor)
        attach(reactor, self.there, other)
        attach(reactor, here, one)
        ended: Deferred[None] = Deferred()
        here._on_closed = lambda: ended.callback(None)

        def end() -> Deferred[None]:
            here.close()
            return ended

        self._test.addCleanup(end)
        return here

    def adopted_by(self, adopting: Adopting, **changed: Callable[..., object]) -> Channel:
        """Return a channel to a process that adopts, with some handlers replaced."""
        channel = self.channel_to(
            {**adopting.handlers, **{BY_KIND[kind]: does for kind, does in changed.items()}},
            adopting.channel_lost,
        )
        adopting.channel = self.there
        adopting.open()
        return channel

    def adopting(self, **changed: Callable[..., object]) -> Channel:
        """Return a channel to a process that adopts, with some handlers replaced."""
        adopting = self.adopts = Adopting(lambda _: self.new, awaited=self.awaited)
        self.does = {message.kind: does for message, does in adopting.handlers.items()}
        return self.adopted_by(adopting, **changed)

    def before_adopting(self, action: Callable[[dict[str, Any]], object]) -> None:
        """Call `action` with each ``adopt`` message before it is handled."""
        adopt = self.does["adopt"]

        def adopted(**values: Any) -> object:
            action(values)
            return adopt(**values)

        self.there.handlers[messages.ADOPT] = adopted

    async def end_all(self, peers: Iterable[tuple[Peer, Peer]]) -> None:
        for client, server in peers:
            if client.lost is None:
                client.close()
            await server.is_lost()

    async def hand(self, *channels: Channel) -> int:
        return await self.hand_these(self.old.connections, *channels)

    async def hand_these(self, connections: Iterable[MuxProtocol], *channels: Channel) -> int:
        self.kept = [Taker() for _ in channels]
        for taker, channel in zip(self.kept, channels, strict=True):
            taker.channel = channel
            channel.handlers.update(taker.handlers)
            if not channel.is_open:
                taker.channel_lost()
        time: Any = self._test.time
        moving = Round(list(connections), await opened(self.kept, time))
        await moving.run()
        self.stays = moving.stays
        return moving.moved
