"""The supervisor's side of a worker of the service that this one has replaced."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, fail
from typing_extensions import override

from txmux.control.gauges import COUNT
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, PeerGoneError, attach
from txmux.net.channel.message import Message
from txmux.processes.supervisor.worker import Worker

if TYPE_CHECKING:
    from txmux.processes.supervisor.worker import _WorkerSupervisor
    from txmux.telemetry.counting.process_counters import ProcessCounters

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


CUT_OFF = 2.0
"""Seconds in which a process ends that has closed its channel, unless something is wrong with it."""


class _ProcessEnd(FileDescriptor):
    """Calls a function when a process that is no child of this one has ended; an `OSError` if the system cannot tell."""

    def __init__(self, pid: int, ended: Callable[[], object], reactor: Any) -> None:
        super().__init__(reactor)
        self._held, self._ended = os.pidfd_open(pid), ended
        self.startReading()

    @override
    def fileno(self) -> int:
        return self._held

    def doRead(self) -> None:
        self.close()
        self._ended()

    def kill(self) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self._held, signal.SIGKILL)

    def close(self) -> None:
        if self._held >= 0:
            self.stopReading()
            os.close(self._held)
            self._held = -1


class AdoptedWorker(Worker):
    """A worker that an upgrade has left to this process: it moves its connections, and ends after the last one.

    It is a child of its own starter, so this process watches it itself. Until the upgrade is final, it is the old process that judges it.

    Args:
        end: Of a channel to it.
        row: What is to be known of it, by `Worker.to_be_adopted`.
    """

    is_adopted = True
    logs_end = False  # until the upgrade is final

    def __init__(
        self,
        supervisor: _WorkerSupervisor,
        number: int,
        reactor: Any,
        end: socket.socket,
        row: Mapping[str, Any],
    ) -> None:
        super().__init__(supervisor, number, reactor, is_first=False)
        self._row, self.drain_timeout = row, row["drain_timeout"]
        self.pid = self._given_pid = row["pid"]  # see `give_away`
        self._retirement = object()
        self._is_watched = False
        self._until: float | None = row.get("until")  # on the clock that all processes share
        self._takes = CONTRACT | {one for one in _IF_KNOWN if one.signature in row["knows"]}
        self._column = supervisor.counters.adopt_process(row["counts"])
        channel = self._channel = Channel(self.handlers, lambda: self._lost(channel), reactor)
        attach(reactor, channel, end)
        self.ready = True
        self.is_confined = row.get("confined", False)  # versions before do not say so
        self._end_of_process: _ProcessEnd | None = None
        with suppress(OSError):  # it has ended just now, or the kernel is old
            ended = partial(self.process_ended, None)
            self._end_of_process = _ProcessEnd(self.pid, ended, reactor)

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
        return {**self._row, "until": self._until}

    @override
    def seconds_left(self, drain_timeout: float) -> float:
        until = self._until
        return self.drain_timeout if until is None else max(0.0, until - time.monotonic())

    @override
    def stop(self, longest_wait: int = 0) -> Deferred[None]:
        if self._until is None:  # asked again, it keeps its first end
            self._until = time.monotonic() + self.drain_timeout
        return super().stop(longest_wait)

    @property
    def is_cut_off(self) -> bool:
        return self._channel is not None and not self._channel.is_open

    def keep(self) -> None:
        """Judge it here from now on: the upgrade is final."""
        self.logs_end = True
        if self.is_cut_off:
            self._reactor.callLater(CUT_OFF, self._kill_cut_off)

    def _kill_cut_off(self) -> None:
        if self.is_cut_off and not self._hung:
            self.kill_hung("has closed its channel, and lives on", "")

    @override
    def _end(self) -> None:
        if self._end_of_process is not None:
            self._end_of_process.kill()  # its ID may be that of another one by now
        else:
            super()._end()

    @override
    def give_away(self) -> None:
        super().give_away()
        self._close_end()

    @override
    def process_ended(self, status: int | None) -> None:
        self._close_end()
        super().process_ended(status)

    def _close_end(self) -> None:
        if self._end_of_process is not None:
            self._end_of_process.close()

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
        if messages.PING in self._takes and not self.is_cut_off:
            super().look()

    @override
    def _lost(self, channel: Channel) -> None:
        if self._channel is not channel:
            return
        if self._end_of_process is None:
            self.process_ended(None)
        elif self.logs_end:
            self._reactor.callLater(CUT_OFF, self._kill_cut_off)


def _of_connections(gauges: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gauges.items() if name in _OF_CONNECTIONS}
