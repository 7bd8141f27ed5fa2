"""Hands clients over to another process that wait for a server: each with its socket, and what it has sent.

As for relayed connections, only the old process decides which of them move, in one message after the new one has them::

    old: adopt_waiting     the fields of each (`MuxProtocol.suspend_waiting`), and its socket
    new:                   which of them it can take; it does not touch them yet
    old: go_on_waiting     which of them are the new one's; the others wait here again
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.net.channel.channel import Channel, ChannelError
from txmux.processes.upgrade.handover import received
from txmux.processes.workers.messages import sockets_of
from txmux.tcp.connection import MuxProtocol

if TYPE_CHECKING:
    from txmux.net.sockets.transport import SocketTransport
    from txmux.processes.upgrade.handover import Adopting
    from txmux.tcp.lean import Stream
    from txmux.tcp.listener import MuxFactory

_BATCH = 50  # their bytes are up to a `peek_limit` each
_PATIENCE = 10.0  # seconds that the other process may take for a batch

_log = Logger()


async def hand_over_waiting(connections: Iterable[Stream], channels: Sequence[Channel]) -> int:
    """Move the clients that wait for a server to other processes, which get a share each; return how many were."""
    # A usual connection that waits is none any more.
    waiting = [
        one for one in connections if isinstance(one, MuxProtocol) and one.state == "connecting"
    ]
    waiting.sort(key=lambda one: one.accepted_at)
    moved = 0
    for number, start in enumerate(range(0, len(waiting), _BATCH)):
        batch = waiting[start : start + _BATCH]
        moved += await _hand_over(batch, number, channels[number % len(channels)])
    if moved:
        for channel in channels:
            await received(channel)
    return moved


async def _hand_over(batch: Sequence[MuxProtocol], number: int, channel: Channel) -> int:
    offered = [(one, fields) for one in batch if (fields := one.suspend_waiting()) is not None]
    if not offered:
        return 0
    taken: set[int] = set()
    try:
        answer = await channel.ask(
            "adopt_waiting",
            seconds=_PATIENCE,
            descriptors=[cast("SocketTransport", one.transport).fileno() for one, _ in offered],
            batch=number,
            connections=[fields for _, fields in offered],
        )
        taken = set(answer["taken"]) if channel.is_open else taken
    except (ChannelError, KeyError, TypeError) as problem:  # of a version that knows none
        _log.info("clients that wait for a server stay in this process: {why}", why=problem)
    going = []
    for index, (connection, _) in enumerate(offered):
        if connection.record.reason is not None:
            continue  # it was ended meanwhile
        if index in taken:
            going.append(index)
            connection.count_elsewhere()
        else:
            connection.resume_waiting()
    channel.send("go_on_waiting", batch=number, which=going)
    for index in going:
        offered[index][0].let_go_waiting()
    return len(going)


class AdoptedWaiting:
    """Takes clients over that wait for a server."""

    def __init__(self, factory: Callable[[str], MuxFactory], adopting: Adopting) -> None:
        self._factory = factory
        self._adopting = adopting
        self._offered: dict[
            int, dict[int, tuple[MuxFactory, Mapping[str, Any], socket.socket]]
        ] = {}

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        return {"adopt_waiting": self._adopt, "go_on_waiting": self._go_on}

    def _adopt(
        self, batch: int, connections: Sequence[Mapping[str, Any]], descriptors: Sequence[int]
    ) -> dict[str, Any]:
        offered = self._offered[batch] = {}
        for index, (fields, client) in enumerate(
            zip(connections, sockets_of(descriptors), strict=False)
        ):
            try:
                factory = self._factory(fields["record"]["listener"])
                factory.runtime.check_adopting()
                factory.upstreams.find(fields["record"]["backend"])
            except (MuxError, LookupError, TypeError) as problem:
                _log.info("a client that waits cannot be taken over: {why}", why=repr(problem))
                client.close()
                continue
            if self._adopting.is_closed:
                client.close()
            else:
                offered[index] = factory, fields, client
        return {"taken": [*offered]}

    def _go_on(self, batch: int, which: Sequence[int]) -> None:
        for index, (factory, fields, client) in self._offered.pop(batch, {}).items():
            if index not in which:
                client.close()
                continue
            try:
                factory.adopt_waiting(fields, client)
            except Exception:  # noqa: BLE001 - its failure must not affect the next one
                _log.failure("a client that waits cannot be adopted, and is closed")
                factory.configuration.admission.none_come()
                client.close()

    def channel_lost(self) -> None:
        """Close what was offered: the other process has ended before its decision."""
        for batch in [*self._offered]:
            self._go_on(batch, [])
