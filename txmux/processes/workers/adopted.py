"""The supervisor's side of a worker of the service that this one has replaced."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from typing_extensions import override

from txmux.control.gauges import COUNT
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, PeerGoneError, attach
from txmux.net.channel.message import Message
from txmux.processes.workers.worker import Worker
from txmux.telemetry.counting.process_counters import ProcessCounters

if TYPE_CHECKING:
    from txmux.processes.workers.worker import _WorkerSupervisor

CONTRACT = frozenset({messages.ATTACH, messages.RETIRE, messages.HAND_OVER, messages.STOP})
"""What a worker of any version is sent: none of these ever changes."""

_IF_KNOWN = frozenset(
    {
        messages.PING, messages.OPENER, messages.END_ALL, messages.REOPEN, messages.END_REMOVED, messages.WOULD_STAY,
        messages.STATUS, messages.CHECK, messages.NAMES, messages.APPLY_OVERRIDES, messages.BAN, messages.FEED,
        messages.CONNECTIONS, messages.EXPLAIN_CONNECTION, messages.CLOSE, messages.CLOSE_SERVER, messages.CLIENTS,
        messages.LISTEN, messages.GIVE_UP, messages.FLOWS_LEFT, COUNT,
    }
)  # fmt: skip
"""What it is sent beside if it knows the same: its rules and the places of its counters stay those of its own service."""

_OF_CONNECTIONS = frozenset(
    {
        "generations", "descriptors", "refusing", "newest", "flooded", "ports", "lost_lines", "lost_in_all", "written_logs",
    }
)  # fmt: skip
"""Gauges of its connections; others are of its rules, and of files that only these name."""


class AdoptedWorker(Worker):
    """A worker that an upgrade has left to this process: it moves its connections, and ends after the last one.

    It is a child of its own starter, so its end is seen by its channel.

    Args:
        end: Of a channel to it.
        row: What is to be known of it, by `Worker.to_be_adopted`.
    """

    is_adopted = True

    def __init__(
        self,
        supervisor: _WorkerSupervisor,
        number: int,
        reactor: Any,
        end: socket.socket,
        row: Mapping[str, Any],
    ) -> None:
        super().__init__(supervisor, number, reactor, is_first=False)
        self._row, self.pid, self.drain_timeout = row, row["pid"], row["drain_timeout"]
        self._retirement = object()
        self._is_watched = False
        self._takes = CONTRACT | {one for one in _IF_KNOWN if one.signature in row["knows"]}
        self._column = supervisor.counters.adopt_process(row["counts"])
        self._counts = (self._column or ProcessCounters()).process
        channel = self._channel = Channel(self.handlers, lambda: self._lost(channel), reactor)
        attach(reactor, channel, end)
        self.ready = True

    @property
    @override
    def can_return(self) -> bool:
        return False

    @property
    @override
    def column(self) -> ProcessCounters | None:
        return self._column

    @override
    def to_be_adopted(self, drain_timeout: float) -> Mapping[str, Any]:
        return self._row

    @override
    def retire(self) -> None:
        self.ask(messages.RETIRE, seconds=None).addErrback(lambda _: None)

    @override
    def send(self, message: Message, **values: Any) -> None:
        if message in self._takes:
            super().send(message, **values)

    @override
    def ask(
        self, message: Message, *, seconds: float | None = 30.0, **values: Any
    ) -> Deferred[Any]:
        if message not in self._takes:
            not_for_it: Deferred[Any] = fail(PeerGoneError())
            return not_for_it
        asking = super().ask(message, seconds=seconds, **values)
        return asking.addCallback(_of_connections) if message is COUNT else asking

    @override
    def look(self) -> None:
        if messages.PING in self._takes:
            super().look()

    @override
    def _lost(self, channel: Channel) -> None:
        if self._channel is channel:
            self.process_ended(None)


def _of_connections(gauges: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gauges.items() if name in _OF_CONNECTIONS}
