"""A worker: a process that accepts clients, detects what they speak, and relays."""

import os
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner

from txmux.access.across_processes import SharedLimits
from txmux.access.admission import Admission, Tally
from txmux.backends.names.resolve import NameResolver
from txmux.control.worker_answers import WorkerAnswers
from txmux.errors import MuxError
from txmux.files import use_helper
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, LogForwarder, attach
from txmux.net.channel.message import Message
from txmux.net.sockets.memory import keep_running
from txmux.net.sockets.poller import after_turn
from txmux.net.sockets.timers import use_monotonic_time
from txmux.processes.privilege.account import account_of
from txmux.processes.privilege.opener import Opener
from txmux.processes.privilege.sandbox import Sandbox, SandboxError, confine
from txmux.processes.supervisor.signals import SignalWatch
from txmux.processes.upgrade.transfer import ConnectionTransfer
from txmux.processes.workers.received_rules import (
    Opened,
    Prepare,
    Start,
    close,
    named,
    read,
    sockets_of,
)
from txmux.rules.model import Listener, Rules
from txmux.serving.endpoints import open_ports
from txmux.serving.serving import PreparedServing, Serving
from txmux.telemetry.access_log import open_log
from txmux.telemetry.counting.process_counters import CounterLayout, ProcessCounters
from txmux.telemetry.lines import ServiceLog

_PATIENCE = 5.0
"""Seconds that a file may take to be opened: less than the time after which a hanging worker is replaced."""


class WorkerProcess:
    """Serves clients for its supervisor, until that stops it or has ended; `problem` is why it cannot."""

    _log = Logger()

    def __init__(
        self,
        number: int,
        reactor: Any,
        *,
        is_confined: bool = False,
        problem: MuxError | None = None,
    ) -> None:
        self._problem = problem
        self._number = number
        self._is_confined = is_confined
        self._reactor = reactor
        self._serving: Serving | None = None
        self._transfer: ConnectionTransfer | None = None
        self._limits: SharedLimits | None = None
        self._counters = ProcessCounters()
        self._names = NameResolver(reactor, is_active=False)
        self._prepared: PreparedServing | None = None
        self._stopping = self._drained = False
        self.status = 0
        handlers: dict[Message, Callable[..., object]] = {
            messages.COUNT_IN: self._count_in,
            messages.COUNT_MORE: self._count_more,
            messages.NAMES: self._names.take_results,
            messages.START: self._start,
            messages.STOP: self.stop,
            messages.PING: lambda: None,
        }
        self.channel = Channel(handlers, self._on_supervisor_lost, reactor)

    def _count_in(self, descriptors: Sequence[int], **fields: Any) -> None:
        """Use the supervisor's memory for counters, from the start.

        `life` stays open while this process may count.
        """
        try:
            memory, life = descriptors
            self._counters = ProcessCounters(read(CounterLayout, fields), memory)
        except (MuxError, ValueError) as problem:
            for descriptor in descriptors:
                os.close(descriptor)
            self._log.error(
                "the numbers of this process are missing in the metrics: {why}", why=problem
            )
            raise
        weakref.finalize(self._counters, os.close, life)
        del self.channel.handlers[messages.COUNT_IN]

    def _count_more(self, places: dict[str, int], cells: int, gone: Sequence[str] = ()) -> None:
        """Use the counters of other rules, and drop those of removed ones."""
        more = read(CounterLayout, {"places": places, "cells": cells})
        known = self._counters.layout
        for key in gone:
            known.places.pop(key, None)
        known.places.update(more.places)
        known.cells = more.cells
        self._counters.use()

    async def _start(self, descriptors: Sequence[int], **fields: Any) -> bool:
        """Serve; see `Opened` and `Start`. Return whether this process is in the sandbox."""
        del self.channel.handlers[messages.START]
        try:
            await self._serve(*_received(descriptors, fields))
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # once the supervisor has the answer
            raise
        return self._is_confined

    def begin(self, serving: Serving, transfer: ConnectionTransfer) -> None:
        self._serving, self._transfer = serving, transfer
        ports = serving.listening_ports
        self.channel.handlers.update(
            {
                messages.END_ALL: serving.end_all,
                messages.REOPEN: serving.reopen_log,
                messages.CHECK: serving.upstreams.apply_check,
                messages.SERVERS: serving.upstreams.as_json,
                messages.RECALL: serving.restore,
                messages.CHALLENGES: serving.answer_challenges,
                messages.CERTIFICATES: serving.terminations.look_again,
                messages.CERTIFICATES_SHOWN: serving.terminations.shown,
                messages.EXPECT: serving.upstreams.known.expect,
                messages.PREPARE: self._prepare,
                messages.COMMIT: self._commit,
                messages.ABANDON: self._abandon,
                messages.END_REMOVED: serving.end_removed,
                messages.STATUS: serving.status,
                messages.MISSING: serving.missing,
                messages.RETIRE: self._retire,
                messages.LEAVE: self._leave,
                messages.GIVE_UP: ports.give_up,
                messages.TAKE_DATAGRAMS: ports.take_datagrams,
                messages.LEAVE_DATAGRAMS: ports.leave_datagrams,
                messages.AWAIT_FLOWS: ports.await_flows,
                messages.FLOWS_ARE_HERE: ports.flows_are_here,
                messages.FLOWS_MOVED: ports.arrived,
                messages.FLOWS_LEFT: lambda: [*ports.left()],
                **transfer.handlers,
                **WorkerAnswers(serving).handlers,
                messages.LISTEN: self._listen,
            }
        )

    def _listen(self, *, on: bool) -> None:
        def tell(event: dict[str, Any]) -> None:
            self.channel.send(messages.EVENT, event=event)

        if self._serving is not None:
            WorkerAnswers(self._serving).listen(tell if on else None)

    async def _serve(self, start: Start, opened: Opened) -> None:
        if opened.opener is not None:
            use_helper(Opener(opened.opener, _PATIENCE).open_file)
        rules, limits = start.rules, opened.limits
        self._limits = limits
        self._names.take_results(start.state.get("names", {}))  # before changes arrive
        try:
            if self._problem is not None:
                raise self._problem
            admission = self._admission(rules)
            account = account_of(rules)
            access_log = open_log(
                rules.settings,
                after_turn(self._reactor),
                account.owner if account else None,
                self._reactor,
            )
            serving = self._serving = Serving(
                rules,
                access_log,
                self._reactor,
                names=self._names,
                accepting=False,  # until the supervisor sends `accept`
                shared=True,
                loop_detector=limits.loop_detector,
                counters=self._counters,
            )
            serving.upstreams.known.on_waiting = lambda backend, waiting: self.channel.send(
                messages.WAITING, backend=backend, waiting=waiting
            )
            serving.upstreams.known.tally = self._held
            serving.runtime.bad_ends.report = lambda rows: self.channel.ask(
                messages.BAD_ENDS, rows=rows
            )
            # Later messages are newer than the start message, however long opening the ports takes.
            serving.ban(start.state.get("banned", ()))
            self.channel.handlers[messages.BAN] = serving.ban
            serving.version = start.version
            serving.admission = admission
            ports = await open_ports(self._reactor, rules.listeners)
            serving.listen_all(rules, opened.sockets, ports, admission)
            if account is not None:
                account.become()
        finally:
            close(opened.sockets.values())  # each was duplicated
        serving.restore(start.state)
        self.begin(serving, ConnectionTransfer(serving, self._reactor))

    def _admission(self, rules: Rules) -> Callable[[Listener], Admission]:
        assert self._limits is not None  # noqa: S101 - it serves
        most = rules.settings.max_connections
        return self._limits.admissions(self._number, self._reactor.seconds, most)

    def _held(self, backend: str, limit: int) -> Tally:
        assert self._limits is not None  # noqa: S101 - as above
        return self._limits.held(backend, limit, self._number)

    async def _prepare(self, descriptors: Sequence[int], **fields: Any) -> None:
        serving, opened = self._serving, sockets_of(descriptors)
        assert serving is not None  # noqa: S101 - not called before
        sockets: dict[str, socket.socket] = {}
        try:
            other = read(Prepare, fields)
            known = serving.listening_ports.get
            sockets = named(other.sockets, opened, other.rules, known)
            self._abandon()
            if other.version:
                serving.version = other.version - other.rules_changed
            self._prepared = await self._prepare_serving(serving, other, sockets)
        except Exception:
            close([*opened, *sockets.values()])
            raise

    async def _prepare_serving(
        self, serving: Serving, other: Prepare, sockets: dict[str, socket.socket]
    ) -> PreparedServing:
        limits = self._limits
        assert limits is not None  # noqa: S101 - it serves
        if other.limits != limits.layout:
            limits.use(other.limits)
        rules = other.rules
        prepared = serving.prepare(
            rules, sockets, self._admission(rules), rules_changed=other.rules_changed
        )
        try:
            prepared.ports = await open_ports(
                self._reactor, rules.listeners, serving.listening_ports.get
            )
        except Exception:
            serving.abandon(prepared)
            raise
        return prepared

    def _commit(self, *, listening: bool = True) -> int:
        """Serve under the rules that were prepared, or retire if not `listening`.

        Returns the number of connections that keep older rules.
        """
        assert self._serving is not None  # noqa: S101 - not called before
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            if listening and self._transfer is not None:
                self._transfer.release_slots()
            # Clients that arrive while this process ends are for another one.
            self._serving.commit(prepared, listening=listening and not self._stopping)
            close(prepared.sockets.values())
        return len(self._serving.older())

    def _abandon(self) -> None:
        if self._prepared is not None and self._serving is not None:
            prepared, self._prepared = self._prepared, None
            self._serving.abandon(prepared)
            close(prepared.sockets.values())

    def _retire(self) -> Deferred[None]:
        """Stop accepting; answer when the connections have ended, however long they take; see `Serving.retire`."""
        assert self._serving is not None  # noqa: S101 - not called before
        return self._serving.retire().addCallback(lambda _: None)

    def _leave(self) -> bool:
        """End the process, unless there are connections, or some on their way; return whether it ends."""
        assert self._serving is not None  # noqa: S101 - not called before
        assert self._transfer is not None  # noqa: S101 - as above
        is_over = not self._serving.connections() and not self._transfer.is_busy
        if is_over:
            self.stop()
        return is_over

    def be_replaced(self) -> None:
        """Request a replacement, to which the connections move; without a supervisor, stop."""
        if self.channel.is_open and self._serving is not None:
            self.channel.ask(messages.REPLACE).addErrback(lambda _: self.stop())
        else:
            self.stop()

    def stop(self, longest_wait: int = 0) -> None:
        """End after the last connection; see `Serving.drain`."""
        if not self._stopping:
            self._stopping = True
            Deferred.fromCoroutine(self._drain(longest_wait))
        elif self._serving is not None and not longest_wait:
            self._serving.wait_no_longer()

    async def _drain(self, longest_wait: int) -> None:
        if self._serving is not None:
            self._serving.listening_ports.keep_flows()
            self._serving.listening_ports.pause()
            if self._transfer is not None:
                await self._transfer.close()
            await self._serving.drain(longest_wait)
        self._over()

    def _over(self) -> None:
        self._drained = True
        if self.channel.is_open:
            self.channel.close()
        else:
            self._reactor.stop()

    def _on_supervisor_lost(self) -> None:
        if self._drained:
            self._reactor.stop()
        elif not self._stopping:
            self._log.warn(
                "the supervisor process has ended; worker {number} accepts no more clients, and ends after its last connection",
                number=self._number,
            )
            Deferred.fromCoroutine(self._outlive())

    async def _outlive(self) -> None:
        """Serve connections to their end, however long they take: nobody has asked for theirs."""
        if self._serving is not None and self._transfer is not None:
            self._serving.listening_ports.keep_flows()
            self._serving.listening_ports.pause()
            await self._transfer.close()
            await self._serving.retire()
        self.stop()


def run(number: int, end: socket.socket, *, reactor: str, sandbox: Sandbox) -> int:
    """Run a worker to its end, with the reactor of this module; return the exit status."""
    problem = None
    is_confined = False
    try:
        # Before anything can start a thread, which would stay unconfined.
        is_confined = confine(sandbox)
    except SandboxError as error:
        problem = error
    import_module(reactor).install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    any_reactor: Any = installed
    use_monotonic_time(any_reactor)
    keep_running(any_reactor)
    worker = WorkerProcess(number, any_reactor, is_confined=is_confined, problem=problem)
    alone: Any = ServiceLog(sys.stderr, any_reactor)
    attach(any_reactor, worker.channel, end)  # for what has been logged before
    globalLogBeginner.beginLoggingTo(
        [LogForwarder(worker.channel, alone)], redirectStandardIO=False
    )
    # systemd sends SIGTERM to every process of a service.
    SignalWatch(any_reactor, worker.be_replaced, signal.SIGTERM).start()
    any_reactor.run(installSignalHandlers=False)
    return worker.status


def _received(descriptors: Sequence[int], fields: Mapping[str, Any]) -> tuple[Start, Opened]:
    try:
        start = read(Start, fields)
    except Exception:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return start, Opened.by(start, descriptors)
