"""A worker: a process that accepts clients, detects what they speak, and relays."""

import os
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger, globalLogBeginner

from txmux.access.across_processes import SharedLimits
from txmux.access.admission import Admission
from txmux.backends.names.resolve import NameResolver
from txmux.control.service_files import unpack_files
from txmux.control.worker_answers import WorkerAnswers
from txmux.errors import MuxError
from txmux.files import use_helper
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, LogForwarder, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.net.sockets.memory import keep_running
from txmux.net.sockets.timers import use_monotonic_time
from txmux.net.turns import Turns, first_late
from txmux.net.watched import RECEIVED
from txmux.processes.account import account_of
from txmux.processes.opener import Opener
from txmux.processes.supervisor.signals import SignalWatch, is_stopping
from txmux.processes.worker.received_rules import Start, close, named, read_replacement, sockets_of
from txmux.processes.worker.sandbox import Sandbox, SandboxError, confine
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.rules.difference import digest as digest_of
from txmux.rules.model import Listener, Rules
from txmux.rules.named_files import check_disks
from txmux.serving.endpoints import open_ports
from txmux.serving.serving import PreparedServing, Serving, open_access_log
from txmux.telemetry.counting.process_counters import CounterLayout, ProcessCounters
from txmux.telemetry.lines import LOST_LINES, ServiceLog

_PATIENCE = 5.0
"""Seconds that the helper may take to open a file: less than the time after which a hanging worker is replaced."""

_CHANGES = (
    messages.APPLY_OVERRIDES,
    messages.BAN,
    messages.CHECK,
    messages.FEED,
    messages.PART,
    messages.RECALL,
)
"""Those of the state in `START`. They are not sent again: what arrives while a thread opens files, or ports, is kept until then."""


def _is_in_start(**_: object) -> None:
    pass


class WorkerProcess:
    """Serves clients until the supervisor stops it, or has ended; a `problem` is reported to the supervisor instead."""

    _log = Logger()
    _limits: SharedLimits  # from `START` on, as the next one
    _column: int

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
        self._counters = ProcessCounters()
        self._names = NameResolver(reactor, is_active=False)
        self._prepared: PreparedServing | None = None
        self._preparing = DeferredLock()
        self._attempt: object = None  # the last one to prepare, unless it was given up
        self._stopping = self._drained = False
        self._waited_for: set[str] = set()
        self.status = 0
        handlers: dict[Message, Callable[..., object]] = {
            messages.COUNT_IN: self._count_in,
            messages.COUNT_MORE: self._count_more,
            messages.FILES: _use_files,
            messages.NAMES: self._names.take_results,
            messages.START: self._start,
            messages.STOP: self.stop,
            messages.PING: lambda: None,
            **dict.fromkeys(_CHANGES, _is_in_start),
        }
        self._channels: list[Channel] = []
        self._channels.append(self._channel_by(handlers))

    @property
    def channel(self) -> Channel:
        return self._channels[-1]

    def _channel_by(self, handlers: dict[Message, Callable[..., object]]) -> Channel:
        channel = Channel(handlers, lambda: self._on_supervisor_lost(channel), self._reactor)
        return channel

    def _attach(self, serving: Serving, descriptors: Sequence[int]) -> None:
        """Let another supervisor take this process over, by `RETIRE`; if that one ends before this one's own, the own one counts again."""
        (end,) = sockets_of(descriptors)

        def retire() -> Deferred[Any]:
            self._channels.remove(channel)
            self._channels.append(channel)
            self._tell_who_waits()
            LOST_LINES.totals.clear()  # the next supervisor has them from the one before
            return serving.retire()

        channel = self._channel_by({**self.channel.handlers, messages.RETIRE: retire})
        attach(self._reactor, channel, end)  # first: descriptors may have run out
        self._channels.insert(0, channel)

    def _tell_who_waits(self) -> None:
        for backend in self._waited_for:
            self.channel.send(messages.WAITING, backend=backend, waiting=True)

    def _note_waiting(self, backend: str, waiting: bool) -> None:  # noqa: FBT001 - of a callback
        (self._waited_for.add if waiting else self._waited_for.discard)(backend)
        self.channel.send(messages.WAITING, backend=backend, waiting=waiting)

    def _count_in(self, descriptors: Sequence[int], places: dict[str, int], cells: int) -> None:
        try:
            memory, life = descriptors  # `life` stays open while this process may count
            self._counters = ProcessCounters(CounterLayout(places, cells), memory)
        except (MuxError, ValueError) as problem:
            close_all(descriptors)
            self._log.error(
                "the numbers of this process are missing in the metrics: {why}", why=problem
            )
            raise
        weakref.finalize(self._counters, os.close, life)
        del self.channel.handlers[messages.COUNT_IN]

    def _count_more(self, places: dict[str, int], cells: int, gone: Sequence[str]) -> None:
        layout = self._counters.layout
        for key in gone:
            layout.places.pop(key, None)
        layout.places.update(places)
        layout.cells = cells
        self._counters.remap()

    async def _start(self, descriptors: Sequence[int], **fields: Any) -> bool:
        del self.channel.handlers[messages.START]
        try:
            await self._serve(Start.read(descriptors, **fields))
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # after the answer
            raise
        return self._is_confined

    def begin(self, serving: Serving, transfer: ConnectionTransfer) -> None:
        self._serving, self._transfer = serving, transfer
        ports, answers = serving.listening_ports, WorkerAnswers(serving)

        def tell(event: dict[str, Any]) -> None:
            self.channel.send(messages.EVENT, event=event)

        self.channel.handlers.update(
            {
                messages.END_ALL: serving.end_all,
                messages.REOPEN: serving.reopen_log,
                messages.SERVERS: serving.upstreams.as_json,
                messages.RECALL: serving.restore,
                messages.CHECK: serving.upstreams.apply_check,
                messages.PART: serving.receive,
                messages.EXPECT: serving.upstreams.known.expect,
                messages.PREPARE: partial(self._prepare, serving),
                messages.COMMIT: partial(self._commit, serving, transfer),
                messages.ABANDON: partial(self._abandon, serving),
                messages.END_REMOVED: serving.end_removed_now,
                messages.STATUS: serving.status,
                messages.MISSING: serving.missing,
                messages.ATTACH: partial(self._attach, serving),
                messages.OPENER: _open_by,
                messages.RETIRE: serving.retire,
                messages.LEAVE: partial(self._leave, serving, transfer),
                messages.GIVE_UP: ports.give_up,
                messages.TAKE_DATAGRAMS: ports.take_datagrams,
                messages.LEAVE_DATAGRAMS: ports.leave_datagrams,
                messages.AWAIT_FLOWS: ports.await_flows,
                messages.FLOWS_ARE_HERE: ports.flows_are_here,
                messages.FLOWS_MOVED: ports.arrived,
                messages.FLOWS_LEFT: lambda: [*ports.left()],
                **transfer.handlers,
                **{
                    message: transfer.of_moving(handle) if message in messages.OF_MOVING else handle
                    for message, handle in answers.handlers.items()
                },
                messages.LISTEN: lambda on: answers.listen(tell if on else None),
            }
        )

    async def _serve(self, start: Start) -> None:
        if start.opener is not None:
            _use_opener(start.opener)
        rules, self._limits, self._column = start.rules, start.limits, start.column
        self._names.take_results(start.state.get("names", {}))  # before changes arrive
        try:
            if self._problem is not None:
                raise self._problem
            RECEIVED.update(unpack_files(start.state.pop("files", {})))
            handlers, kept = self.channel.handlers, list[tuple[Message, dict[str, Any]]]()
            for kind in _CHANGES:
                handlers[kind] = lambda kind=kind, **fields: kept.append((kind, fields))
            await first_late(partial(check_disks, by_worker=True), rules)
            admission = self._admission(rules)
            account = account_of(rules)
            owner, may_lack = account.owner if account else None, start.may_lack
            access_log = open_access_log(
                rules.settings, self._reactor, owner, is_quiet=True, may_lack=may_lack
            )
            serving = self._serving = Serving(
                rules,
                access_log,
                self._reactor,
                names=self._names,
                accepting=False,  # until the supervisor sends `accept`
                shared=True,
                loop_detector=self._limits.loop_detector,
                counters=self._counters,
                may_lack=start.may_lack,
            )
            serving.upstreams.known.on_waiting = self._note_waiting
            serving.upstreams.known.tally = lambda backend, limit: self._limits.held(
                backend, limit, self._column
            )
            serving.runtime.bad_ends.report = lambda rows: self.channel.ask(
                messages.BAD_ENDS, rows=rows
            )
            serving.ban(start.state.get("banned", ()))
            serving.upstreams.restore(start.state.pop("servers", ()))
            serving.version = start.version
            serving.admission = admission
            lacking = serving.unopened if start.may_lack else None
            ports = await open_ports(self._reactor, rules.listeners, lacking=lacking)
            serving.listen_all(rules, start.sockets, ports, admission)
            if account is not None:
                account.become()
        finally:
            close(start.sockets.values())  # each was duplicated
        serving.restore(start.state)
        awaited = self._limits.awaited(self._column)
        self.begin(serving, ConnectionTransfer(serving, self._reactor, awaited))
        for kind, fields in kept:
            self.channel.handle(kind, handlers[kind], fields)

    def _admission(self, rules: Rules) -> Callable[[Listener], Admission]:
        most = rules.settings.max_connections
        return self._limits.admissions(self._column, self._reactor.seconds, most)

    async def _prepare(  # noqa: PLR0913 - the fields of the message
        self,
        serving: Serving,
        descriptors: Sequence[int],
        rules: str,
        limits: Mapping[str, Any],
        sockets: Sequence[str],
        *,
        rules_changed: bool,
        version: int,
        base: int,
        digest: str,
    ) -> bool:
        """Get ready for other rules, while clients are served; return false if those that this process has are others than was thought."""
        with ExitStack() as undo:
            opened, had = sockets_of(descriptors), serving.listening_ports.keys()
            undo.callback(close, opened)
            # First, since the next changes are those from this layout on.
            self._limits.remap_changed(**limits)
            attempt = self._attempt = object()
            # One that was given up, since it took long, still has its steps to take.
            await self._preparing.acquire()
            undo.callback(self._preparing.release)
            self._abandon(serving, attempt)
            if base and base != serving.version:
                return False
            turns = Turns()
            received = read_replacement(rules, serving.rules, serving.table)
            other = (replacement := await turns.run(received)).rules

            def is_open(key: str) -> bool:
                # A port may have been closed since: then this process does not listen after the commit, either.
                return key in had or self._stopping

            if digest_of(other) != digest:
                return False
            by_key = named(sockets, opened, other, is_open)
            undo.callback(lambda: close(by_key.values()))  # there may be duplicates by then
            serving.version = version - rules_changed
            steps = serving.prepare_in_steps(
                replacement, by_key, self._admission(other), rules_changed=rules_changed
            )
            prepared = await turns.run(steps)
            undo.callback(serving.abandon, prepared)
            prepared.ports = await open_ports(self._reactor, other.listeners, is_open)
            if self._attempt is not attempt:
                raise MuxError("it was given up")
            undo.pop_all()
        self._preparing.release()
        self._prepared = prepared
        return True

    def _commit(
        self,
        serving: Serving,
        transfer: ConnectionTransfer,
        *,
        listening: bool,
        removed: Sequence[str],
    ) -> int:
        """Use the prepared rules, and listen if `listening`; return the number of connections that keep older rules."""
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            if listening:
                transfer.share_slots()
            # While this process ends, another one accepts clients.
            serving.commit(prepared, listening=listening and not self._stopping, removed=removed)
            close(prepared.sockets.values())
        return len(serving.older())

    def _abandon(self, serving: Serving, attempt: object = None) -> None:
        self._attempt = attempt
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            serving.abandon(prepared)
            close(prepared.sockets.values())

    def _leave(self, serving: Serving, transfer: ConnectionTransfer) -> bool:
        """End the process, unless it has connections, or some are moving; return whether it ends."""
        is_over = not serving.connections() and not transfer.is_busy
        if is_over:
            self.stop()
        return is_over

    def be_replaced(self) -> None:
        """Ask the supervisor for a replacement, to which the connections move; without a supervisor, stop."""
        if self.channel.is_open and self._serving is not None:
            self.channel.ask(messages.REPLACE).addErrback(lambda _: self.stop())
        else:
            self.stop()

    def stop(self, longest_wait: int = 0) -> None:
        """End after the last connection; see `Serving.drain`."""
        if not self._stopping:
            self._stopping = True
            self._run_to_end(self._drain(longest_wait), self._over)
        elif self._serving is not None and not longest_wait:
            self._serving.stop_waiting()

    async def _drain(self, longest_wait: int) -> None:
        if self._serving is not None:
            self._serving.listening_ports.keep_flows()
            self._serving.listening_ports.pause()
            if self._transfer is None:
                await self._serving.drain(longest_wait)
            else:
                until = self._reactor.seconds() + self._serving.rules.settings.drain_timeout
                await self._transfer.close()
                await self._serving.drain(longest_wait, self._transfer.may_move_later)
                left = until - self._reactor.seconds()
                await self._transfer.until_slots_are_free(max(0.0, left))

    def _run_to_end(self, ending: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
        # Whatever fails: otherwise this process would stay for good.
        done = Deferred.fromCoroutine(ending)
        done.addErrback(partial(self._log.failure, "it could not end in order"))
        done.addCallback(lambda _: then())

    def _over(self) -> None:
        self._drained = True
        if not self.channel.is_open:
            self._exit()
        for channel in [*self._channels]:
            channel.close()

    def _exit(self) -> None:
        # That the channel is lost may be what has made it end.
        if not is_stopping(self._reactor):
            self._reactor.stop()

    def _on_supervisor_lost(self, channel: Channel) -> None:
        if len(self._channels) > 1:
            self._channels.remove(channel)
            self._tell_who_waits()
        elif self._drained:
            self._exit()
        elif not self._stopping:
            serving = self._serving
            if serving and (serving.listening_ports.accepting or serving.connections()):
                self._log.warn(
                    "the supervisor process has ended; worker {number} accepts no more clients, and ends after its last connection",
                    number=self._number,
                )
            self._run_to_end(self._outlive(), self.stop)

    async def _outlive(self) -> None:
        # No time limit: no operator has ended these connections.
        if self._serving is not None and self._transfer is not None:
            self._serving.listening_ports.keep_flows()
            self._serving.listening_ports.pause()
            await self._transfer.close()
            await self._serving.retire()


def _use_files(files: Mapping[str, Any], gone: Sequence[str]) -> None:
    for user in gone:
        RECEIVED.pop(user, None)
    RECEIVED.update(unpack_files(files))


def _open_by(descriptors: Sequence[int]) -> None:
    _use_opener(*sockets_of(descriptors))


def _use_opener(connection: socket.socket) -> None:
    use_helper(Opener(connection, _PATIENCE).open_file)


def run(
    number: int, end: socket.socket, *, reactor: str, sandbox: Sandbox, listener_to: socket.socket
) -> int:
    """Run a worker with the reactor of the module `reactor`; return the exit status."""
    problem = None
    is_confined = False
    RECEIVED.are_all = True
    try:
        # First, since a thread started before would stay unconfined.
        is_confined = confine(sandbox, listener_to)
    except SandboxError as error:
        problem = error
    finally:
        listener_to.close()
    import_module(reactor).install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    any_reactor: Any = installed
    use_monotonic_time(any_reactor)
    keep_running(any_reactor)
    worker = WorkerProcess(number, any_reactor, is_confined=is_confined, problem=problem)
    alone: Any = ServiceLog(sys.stderr, any_reactor)
    attach(any_reactor, worker.channel, end)  # `beginLoggingTo` sends earlier events at once
    globalLogBeginner.beginLoggingTo(
        [LogForwarder(lambda: worker.channel, alone)], redirectStandardIO=False
    )
    # systemd sends SIGTERM to every process of a service.
    SignalWatch(any_reactor, worker.be_replaced, signal.SIGTERM).start()
    any_reactor.run(installSignalHandlers=False)
    return worker.status
