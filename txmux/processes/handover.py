"""Relayed connections go on in another process: the one that has them, and the one that takes them.

Over a channel between the two, a batch at a time::

    old: adopt   what is told of each connection, and its two descriptors
    new:         which of them it can take; it does not touch them yet
    old: go_on   which of them are the new one's, and are forgotten here; the others are resumed here

Only the old process decides who goes on, and tells it in one message. The new one touches a socket only when it has that message. If that
never comes, since either process has ended, the new one closes its descriptors. So no byte is read or written by both, whatever is lost.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.frontend.moving import MovedConnection
from txmux.processes.channel import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from txmux.frontend.connection import MuxProtocol
    from txmux.frontend.listener import MuxFactory
    from txmux.frontend.moving import Sockets
    from txmux.processes.channel import Channel

    _Suspended: TypeAlias = tuple[MuxProtocol, MovedConnection, Sockets]

_BATCH = 100
_HELD = 2**22
"""Bytes held by connections that are enough for a batch; a connection may hold as much as two pipes."""
_PATIENCE = 10.0
"""Seconds that the other process may take for a batch."""

_log = Logger()


async def hand_over(connections: Iterable[MuxProtocol], channels: Sequence[Channel]) -> int:
    """Let other processes go on with all connections that can be moved; the others go on here.

    Args:
        connections: What there are.
        channels: Each leads to a process that adopts; each gets a share.

    Returns:
        The number of those that were moved.
    """
    batches = _batches(list(connections))
    moved = await gatherResults(
        [Deferred.fromCoroutine(_hand_to(channel, batches)) for channel in channels],
        consumeErrors=True,
    )
    return sum(moved)


def _batches(connections: Iterable[MuxProtocol]) -> Iterator[list[_Suspended]]:
    """Suspend connections, so many at a time as go into a message, when somebody is there to take them."""
    batch: list[_Suspended] = []
    held = 0
    for connection in connections:
        suspended = connection.suspend()
        if suspended is None:
            continue
        moved, sockets = suspended
        batch.append((connection, moved, sockets))
        held += len(moved.relay.client.held) + len(moved.relay.server.held)
        if len(batch) == _BATCH or held >= _HELD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


async def _hand_to(channel: Channel, batches: Iterator[list[_Suspended]]) -> int:
    count = 0
    for batch in batches if channel.is_open else ():
        taken = await _offer(channel, batch)
        going = []
        for index, (connection, moved, _) in enumerate(batch):
            if connection.record.reason is not None:
                continue  # it was ended meanwhile
            if index in taken:
                going.append(index)
            else:
                connection.resume(moved)
        # From here on they are the other process's, whatever becomes of it.
        channel.send("go_on", which=going)
        for index in going:
            batch[index][0].let_go()
        count += len(going)
        if not channel.is_open:
            break
    if count:
        await _received(channel)
    return count


async def _offer(channel: Channel, batch: list[_Suspended]) -> set[int]:
    """Give a batch, and learn which of it can be taken."""
    connections = [moved.as_json() for _, moved, _ in batch]
    descriptors = [end.fileno() for _, _, sockets in batch for end in sockets]
    try:
        answer = await channel.ask(
            "adopt", seconds=_PATIENCE, descriptors=descriptors, connections=connections
        )
    except ChannelError as problem:
        _log.warn("connections cannot be handed over, and go on here: {why}", why=problem)
        return set()
    return set(answer["taken"])


async def _received(channel: Channel) -> None:
    """Wait until the other process has had all that was sent: what is still to be sent would end with this one."""
    with suppress(ChannelError):
        await channel.ask("received", seconds=_PATIENCE)


class Adopting:
    """Takes connections that another process hands over.

    Args:
        factory: Gives what serves a listener, by its name.
    """

    def __init__(self, factory: Callable[[str], MuxFactory]) -> None:
        self._factory = factory
        self._offered: dict[int, tuple[MuxFactory, MovedConnection, Sockets]] = {}

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        """What a channel to the other process calls."""
        return {"adopt": self._adopt, "go_on": self._go_on, "received": _nothing}

    def lost(self) -> None:
        """Close what was offered: the other process has ended before it has said who goes on."""
        self._go_on([])

    def _adopt(
        self, connections: Sequence[dict[str, Any]], descriptors: Sequence[int]
    ) -> dict[str, Any]:
        self.lost()
        ends = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if len(ends) != 2 * len(connections):  # as where this process may have no more
            _close(ends)
            return {"taken": []}
        taken = []
        for index, values in enumerate(connections):
            sockets = ends[2 * index], ends[2 * index + 1]
            try:
                moved = MovedConnection.from_json(values)
                factory = self._factory(moved.record.listener)
                factory.engine.check_adopting()
            except (MuxError, AttributeError, KeyError, TypeError, ValueError) as problem:
                _log.info("a connection cannot be taken over: {why}", why=repr(problem))
                _close(sockets)
                continue
            taken.append(index)
            self._offered[index] = factory, moved, sockets
        return {"taken": taken}

    def _go_on(self, which: Sequence[int]) -> None:
        offered, self._offered = self._offered, {}
        for index, (factory, moved, sockets) in offered.items():
            if index in which:
                factory.adopt(moved, sockets)
            else:
                _close(sockets)


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _nothing() -> None:
    """That it is answered is enough."""
