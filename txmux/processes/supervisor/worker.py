"""The supervisor's side of a worker."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.access.across_processes import LimitsLayout, SharedLimits
from txmux.control.broadcast import ANSWER_TIMEOUT, SilentError
from txmux.control.overrides import ServiceState
from txmux.control.service_files import pack_files
from txmux.net.channel import messages
from txmux.net.channel.channel import (
    AnswerTimeoutError,
    Channel,
    ChannelError,
    PeerGoneError,
    attach,
)
from txmux.net.channel.message import Message
from txmux.net.watched import FilesInUse
from txmux.processes import liveness
from txmux.processes.liveness import HangDetector, activity_of, is_halted
from txmux.processes.oom import how_killed
from txmux.processes.supervisor.starter import BackOff, Starter
from txmux.processes.worker.sandbox import Sandbox
from txmux.telemetry.attention import CANNOT_START
from txmux.telemetry.counting.counters import OWN, Counters
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.folding import FoldedLog
from txmux.telemetry.formatting import plural

_LONGEST_OUTAGE = 0.5
"""The longest delay before a restart, in seconds, while no worker serves."""

_PROMPT = 1.0
"""Seconds that a healthy worker has for a request that it answers at once."""
_AGAIN = 0.5
"""Seconds until a retiring worker is asked again whether it can end."""
_MOST_UNANSWERED = 10
"""Turns of its loop in which a worker may leave a request for its state without an answer."""

_access = Logger(namespace="txmux.access")


def _closed(result: Any, end: ExitStack) -> Any:
    end.close()
    return result


class _WorkerSupervisor(Protocol):
    limits: SharedLimits
    counters: Counters
    folded_log: FoldedLog
    starter: Starter
    is_changing: bool
    state: ServiceState

    def sandbox(self) -> Sandbox: ...
    def start_message(self, worker: Worker, /) -> dict[str, Any]: ...
    def connect_to_opener(self) -> socket.socket | None: ...
    def is_served(self) -> bool: ...
    def lacks_helper(self) -> bool: ...
    def ready(self, worker: Worker, /) -> None: ...
    def retired(self, worker: Worker, /) -> None: ...
    def leave_answered(self) -> None: ...
    def ended(self, worker: Worker, /) -> int: ...
    def start_failed(self, worker: Worker, message: str, /) -> None: ...
    def replace(self, worker: Worker, /) -> None: ...
    def replace_hung(self, worker: Worker, why: str, /) -> bool: ...
    def report_waiting_clients(self, number: int, backend: str, /, *, waiting: bool) -> None: ...


class Worker:
    """A worker process, restarted when it ends by accident.

    Args:
        number: Counted from 1.
        is_first: Whether the service stops if the process cannot start.

    Attributes:
        is_adopted: Whether an earlier service has started it, in whose limits it counts.
        logs_end: Whether this process logs what ends with it.
        is_confined: Whether it is in the sandbox, once it serves.
        sockets: Those on which it listens, by the keys of their addresses.
        prepared: Those on which it would after a commit.
        files: Those that it has, by user; ``None`` before it gets all with its rules.
        is_leaving: Whether it is about to end, and cannot serve again.
        preparing: Held while it catches up, since it can prepare only one set of rules at a time.
        lost: The number of connections that ended with its last process.
        has_served: Whether it was ever ready; before that, it is not restarted if it cannot start.
    """

    _log = Logger()
    is_adopted = False
    logs_end = True

    def __init__(
        self, supervisor: _WorkerSupervisor, number: int, reactor: Any, *, is_first: bool = True
    ) -> None:
        self._supervisor = supervisor
        self.number = number
        self._reactor = reactor
        self._back_off = BackOff()
        self._channel: Channel | None = None
        self._restart: IDelayedCall | None = None
        self.sink: Callable[[dict[str, Any]], object] | None = None
        self._stopped: Deferred[None] | None = None
        self.has_served = not is_first
        self.preparing = DeferredLock()
        self._retirement: object | None = None
        self._waiting: list[Deferred[Any]] = []
        self._until_silent: list[Deferred[Any]] = []
        self.sockets: Mapping[str, socket.socket] = {}
        self.prepared: Mapping[str, socket.socket] = {}
        self.files: Mapping[str, FilesInUse] | None = None
        self._limits = LimitsLayout(0)
        self._can_listen = False
        self._how_ended = ""
        self.ready = self.is_leaving = self.is_confined = self._was_started = False
        self.version = self.pid = self._given_pid = 0
        self.failed_starts = 0
        self._prepare_for_look()

    def _prepare_for_look(self) -> None:
        """Forget what an earlier process has done."""
        self._silence = HangDetector()
        self.awaits_answer = self._has_answered = self._hung = self._is_killed = False
        self._looks_with_turn = self._held_up = self._tasks = self.lost = 0
        self._unanswered_since: int | None = None

    @property
    def can_return(self) -> bool:
        is_there = self._channel is not None and self._channel.is_open and not self.is_leaving
        return is_there and self._can_listen

    @property
    def is_retiring(self) -> bool:
        return self._retirement is not None

    @property
    def column(self) -> ProcessCounters | None:
        return self._supervisor.counters.columns.get(self.number)

    @property
    def connections(self) -> int:
        return self._supervisor.counters.live_in(self.column)

    @property
    def _lost_connections(self) -> str:
        return f", {plural(self.lost, 'connection')} lost" if self.lost else ""

    def to_be_adopted(self, drain_timeout: float) -> Mapping[str, Any]:
        """Return what another supervisor has to know of it: one of the `workers` of `SERVE`; `drain_timeout` is that of its rules."""
        knows = [message.signature for message in messages.MESSAGES if message.receiver == "worker"]
        counts = 0 if self.column is None else self.column.inode
        row = {"pid": self.pid, "counts": counts, "knows": knows, "drain_timeout": drain_timeout}
        return {**row, "confined": self.is_confined}

    def seconds_left(self, drain_timeout: float) -> float:
        return drain_timeout

    def attach(self, end: socket.socket) -> Deferred[Any]:
        """Let another supervisor take it over; it is an error if it cannot, but none if it is late."""
        self._given_pid = self.pid
        attaching = self.ask(messages.ATTACH, seconds=_PROMPT, descriptors=[end.fileno()])
        return attaching.addErrback(lambda failure: failure.trap(AnswerTimeoutError) and None)

    def give_away(self) -> None:
        """Leave the process to a supervisor that has adopted it; one that was not ready then is killed, unless clients have moved to it."""
        if self.pid != self._given_pid and not self.connections:
            self._end()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        channel, self._channel = self._channel, None
        self.pid = 0
        if channel is not None:
            channel.finish()
        for waiting in self._waiting:
            waiting.cancel()
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def retire(self) -> None:
        """Stop accepting, and end after the last connection; no other worker is started for it."""
        self._retirement = retirement = object()
        self.sockets, self._can_listen = {}, False  # until `ask_to_prepare`
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._channel is None:
            self._supervisor.retired(self)
        elif not self.ready:
            self._end()  # it has no clients yet
        else:
            leaving = Deferred.fromCoroutine(self._let_leave(retirement))
            leaving.addErrback(lambda failure: failure.trap(ChannelError))  # the starter reports it

    async def _let_leave(self, retirement: object) -> None:
        while self._retirement is retirement:
            await self.ask(messages.RETIRE, seconds=None)
            if self._retirement is not retirement:
                return
            if not self._supervisor.is_changing:
                self.is_leaving = True
                self.is_leaving = await self.ask(messages.LEAVE)
                self._supervisor.leave_answered()
                if self.is_leaving:
                    return
            # It has got connections of others, or a reload may need it.
            await self.pause(_AGAIN)

    def pause(self, seconds: float) -> Deferred[Any]:
        """Wait for these seconds; a `PeerGoneError` if the process ends before."""
        pausing: Deferred[Any] = deferLater(self._reactor, seconds)
        self._wait_until_it_ends(pausing)
        return pausing.addErrback(_process_ended)

    def ask_while_active(self, message: Message, **values: Any) -> Deferred[Any]:
        """Send a request whose answer may take as long as the worker does something: a `SilentError` when it would be reported."""
        asking = self.ask(message, seconds=None, **values)
        self._until_silent = [asking, *(other for other in self._until_silent if not other.called)]
        return asking.addErrback(_silent)

    def _wait_until_it_ends(self, waiting: Deferred[Any]) -> None:
        self._waiting = [waiting, *(earlier for earlier in self._waiting if not earlier.called)]

    def serve_again(self) -> None:
        self._retirement = None

    def start(self) -> None:
        is_again, self._was_started = self._was_started, True
        self._restart = None
        self._problem = ""
        self._prepare_for_look()
        self._started_at = self._reactor.seconds()
        self._is_watched = True
        channel = self._channel = Channel(self.handlers, lambda: self._lost(channel), self._reactor)
        counters, number = self._supervisor.counters, self.number
        try:
            column, life = counters.column(number), counters.life
            self._fork(channel, is_again=is_again)
        except (MemoryError, OSError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "there is no memory left"
            self._cannot_start(channel, str(why))
            return
        if column.descriptor is not None:
            counting = channel.ask(
                messages.COUNT_IN, descriptors=[column.descriptor, life], **column.layout.as_json()
            )
            counting.addErrback(lambda _: None)  # it is logged

    def _fork(self, channel: Channel, *, is_again: bool) -> None:
        supervisor = self._supervisor
        own, other = socket.socketpair()
        with ExitStack() as closing:
            closing.enter_context(other)
            attach(self._reactor, channel, own)
            forked = supervisor.starter.fork(self.number, other.fileno(), supervisor.sandbox())
            forked.addBoth(_closed, closing.pop_all())
        forked.addCallbacks(
            lambda pid: self._has_pid(channel, pid, is_again=is_again),
            lambda failure: self._cannot_start(channel, failure.getErrorMessage()),
        )

    def _has_pid(self, channel: Channel, pid: int, *, is_again: bool) -> None:
        if self._channel is channel:
            if is_again:
                self._supervisor.counters.column(OWN).process.restarted()
                if CANNOT_START in self._how_ended:  # another end was recorded at once
                    self._record_end(self._how_ended)
            self.pid = pid
            if self._hung or (self._retirement is not None and not self.ready):
                self._end()  # this was due before its ID was known
            elif self._stopped is None:
                self._have_it_start(channel)

    def _cannot_start(self, channel: Channel, why: str) -> None:
        if self._channel is not channel:
            return
        if self._retirement is not None or self._stopped is not None:
            self.process_ended(None)
            return
        self._channel = None
        self.failed_starts += self._supervisor.starter.is_there
        channel.close()
        self._missing(f"{CANNOT_START}: {why}", is_hopeless=True)

    def _lost(self, channel: Channel) -> None:
        # Without the starter, nothing else reports the end of the process.
        if self._channel is channel and self.pid and not self._is_watched:
            self._end()  # the process may have closed just the channel
            self.process_ended(None)

    def starter_ended(self) -> None:
        """Watch the channel from now on: the starter will not report the end of the process."""
        self._is_watched = False
        channel = self._channel
        if channel is not None and not channel.is_open:
            self._lost(channel)

    def _have_it_start(self, channel: Channel) -> None:
        try:
            asking = self._ask_to_start(channel, self._supervisor.start_message(self))
        except Exception as problem:  # noqa: BLE001 - the process would wait for ever
            self._problem = str(problem) or type(problem).__name__
            self._end()
        else:
            asking.addCallbacks(self._is_ready, self._has_failed)

    def _ask_to_start(self, channel: Channel, message: dict[str, Any]) -> Deferred[Any]:
        self._limits = self._supervisor.limits.layout
        with self._supervisor.connect_to_opener() or nullcontext() as opener:
            if opener is not None:
                message["descriptors"].append(opener.fileno())
            return channel.ask(messages.START, opener=opener is not None, **message)

    def send(self, message: Message, **values: Any) -> None:
        if self._channel is not None:
            self._channel.send(message, **values)

    def ask(
        self, message: Message, *, seconds: float | None = 30.0, **values: Any
    ) -> Deferred[Any]:
        if self._channel is None:
            gone: Deferred[Any] = fail(PeerGoneError())
            return gone
        return self._channel.ask(message, seconds=seconds, **values)

    def ask_to_prepare(
        self, sockets: Mapping[str, socket.socket], limits: LimitsLayout, **values: Any
    ) -> Deferred[Any]:
        """Send other rules, with the sockets that the worker lacks: all might exceed its limit of descriptors."""
        values["limits"] = limits.changes(self._limits)
        self._limits = limits
        lacking = {
            key: opened for key, opened in sockets.items() if self.sockets.get(key) is not opened
        }
        descriptors = [opened.fileno() for opened in lacking.values()]
        self._can_listen, self.prepared = True, sockets
        return self.ask_to_work(
            messages.PREPARE, sockets=[*lacking], descriptors=descriptors, **values
        )

    def leave_behind(self) -> None:
        """Stop waiting for it. Once it resumes, it catches up with the rules that it was asked to prepare."""
        self.send(messages.ABANDON)
        self.sockets = {}  # so that it has to
        self._log.warn(
            "worker {number} is halted (SIGSTOP); the reload goes on without it, and ends when it has the rules, or another one in its place",
            number=self.number,
        )

    def send_files(self, in_use: Mapping[str, FilesInUse]) -> Deferred[Any]:
        """Send what is in use of files, as far as it has other ones; one that has not started yet gets all. Fires when it has them, or ends."""
        had = self.files
        if had is None or had == in_use:
            return succeed(None)
        self.files = in_use
        changed = {user: its for user, its in in_use.items() if had.get(user) != its}
        gone = [*(had.keys() - in_use.keys())]
        sending = self.ask(
            messages.FILES, seconds=ANSWER_TIMEOUT, files=pack_files(changed), gone=gone
        )
        return sending.addErrback(lambda why: why.trap(ChannelError))

    def ask_to_work(self, message: Message, **values: Any) -> Deferred[Any]:
        """Send a request whose answer may take as long as the worker lives; a `PeerGoneError` if it ends, or hangs."""
        working = self.ask(message, seconds=None, **values)
        if working.called:
            return working
        self._tasks += 1
        silence = self._silence

        def done(result: Any) -> Any:
            if self._silence is silence:  # it is the same process
                self._tasks -= 1
            return result

        self._wait_until_it_ends(working)
        working.addErrback(lambda why: _process_ended(why) if why.check(CancelledError) else why)
        return working.addBoth(done)

    def give_up(self, keys: Collection[str], removed: Sequence[str] = ()) -> Deferred[None]:
        """Make it accept the clients that wait at these addresses, and close the ports; a worker that hangs is not waited for.

        At the addresses of `removed`, others are refused from then on.
        """
        if not keys:
            return succeed(None)
        self.sockets = {key: opened for key, opened in self.sockets.items() if key not in keys}
        given_up = self.ask(messages.GIVE_UP, seconds=_PROMPT, keys=[*keys], removed=[*removed])
        return given_up.addErrback(lambda failure: failure.trap(ChannelError) and None)

    def stop(self, longest_wait: int = 0) -> Deferred[None]:
        """Let its connections finish, and wait for its end; see `Serving.drain`."""
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        self.send(messages.STOP, longest_wait=longest_wait)
        if self._stopped is None:
            self._stopped = Deferred()
            if self._channel is None:
                self._supervisor.retired(self)
                self._stopped.callback(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)  # called again if the service stops after an upgrade
        return stopped

    @property
    def is_late(self) -> bool:
        return self._channel is not None and self._channel.is_late

    @property
    def answers(self) -> bool:
        """Whether its loop has turned a moment ago, or it is about to: it does not wait."""
        return self._silence.waited <= 1

    @property
    def is_starting(self) -> bool:
        """Whether it will serve in a while: the last start has failed at most once."""
        fails = self.failed_starts > 1 or self._supervisor.starter.is_failing
        return not (self.ready or fails or self.hangs)

    @property
    def hangs(self) -> str:
        """Why it hangs, a part of a sentence; empty if it lives."""
        works = self._tasks > 0 and not self.is_halted
        return self._silence.why(at_work=not self.ready or works)

    @property
    def is_halted(self) -> bool:
        # It may have gone on since the last look.
        return self._silence.is_halted and is_halted(self.pid)

    @property
    def is_silent(self) -> bool:
        """Whether it waits in one call, or has left a request unanswered though its loop turns."""
        since = self._unanswered_since
        is_mute = since is not None and self._looks_with_turn - since >= _MOST_UNANSWERED
        return self.ready and (is_mute or self._silence.is_suspect)

    def report_answered(self, *, answered: bool) -> None:
        """Record whether it has answered a request for its state."""
        if answered:
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = self._looks_with_turn

    def look(self) -> None:
        """Called each second; a process that hangs is replaced."""
        channel = self._channel
        if channel is None or not self.pid or self._hung:
            return
        has_answered, self._has_answered = self._has_answered, False
        self._looks_with_turn += has_answered
        self._silence.observe(
            activity_of(self.pid),
            has_turned=has_answered or channel.is_held_up,  # then no ping reaches it
            is_cut_off=not channel.is_open,
        )
        if self.is_silent:
            for asking in self._until_silent:
                asking.cancel()
        if why := self.hangs:
            self._be_replaced(why)
        elif not self.awaits_answer:
            self.awaits_answer, self._held_up = True, 0
            channel.ask(messages.PING).addCallbacks(
                lambda _: self._answered(channel), lambda _: None
            )
        elif channel.is_held_up:
            self._report_held_up()

    def _report_held_up(self) -> None:
        """Any process of this user can bring that about, so that it must not end connections."""
        self._held_up += 1
        if self._held_up == liveness.MOST_SILENT:
            self._log.error(
                "nothing could be sent to worker {number} for {seconds} s: as many descriptors of this user as one process may have open "
                "are on their way to other processes, which do not take them; raise LimitNOFILE=",
                number=self.number,
                seconds=self._held_up,
            )

    def _be_replaced(self, why: str) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        if self._stopped is not None or self._retirement is not None:
            self.kill_hung(why, "")
        elif not self.ready:
            self.kill_hung(why, ", and another one is started at once")
        elif self._supervisor.replace_hung(self, why):
            self._supervisor.counters.column(OWN).process.restarted()
            self._record_end(why)

    def _record_end(self, why: str) -> None:
        self._supervisor.state.ended_workers.append((time.monotonic(), self.number, why))

    def kill_hung(self, why: str, more: str) -> None:
        self._log.error(
            "worker {number} {why}; it is killed{more}", number=self.number, why=why, more=more
        )
        self._how_ended, self._hung = why, True
        self._end()

    def _answered(self, channel: Channel) -> None:
        if self._channel is channel:
            self.awaits_answer, self._has_answered = False, True

    def kill(self) -> None:
        if self._channel is not None:
            self._log.warn("worker {number} does not end; it is killed", number=self.number)
            self._is_killed = True
            self._end()

    def _end(self) -> None:
        if self.pid:  # 0 as soon as the end of the process is known
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def process_ended(self, status: int | None) -> None:
        """Restart the process, unless it was stopped or retired; `status` is that of `os.waitpid`, if known."""
        self.pid = 0
        if self._channel is not None:
            # The last lines may be unread; handle them while the worker still has a channel.
            try:
                self._channel.finish()
            except Exception:  # noqa: BLE001 - the worker must be replaced in any case
                self._log.failure("worker {number}: its last messages", number=self.number)
        self._channel = self.files = None
        for waiting in self._waiting:
            waiting.cancel()
        if not self.ready:
            self.failed_starts += 1
        self.ready = self.is_confined = False
        self.lost = self._supervisor.ended(self)
        if self._retirement is not None or self._stopped is not None:
            if self.lost and not self._is_killed:  # else it has been said
                how = (
                    self._how_ended if self._hung else how_killed(status)
                ) + self._lost_connections
                if self.logs_end:
                    self._log.error("worker {number} {how}", number=self.number, how=how)
                self._record_end(how)
            self._supervisor.retired(self)
            if self._stopped is not None:
                self._stopped.callback(None)
            return
        if self._hung:
            self._record_end(self._how_ended + self._lost_connections)
            self.start()
            return
        early = "" if self.has_served else " before it had served"
        how = f"cannot start: {self._problem}" if self._problem else f"{how_killed(status)}{early}"
        self._missing(how, is_hopeless=status is not None and os.WIFEXITED(status))

    def _missing(self, how: str, *, is_hopeless: bool) -> None:
        """Restart the process later; if it never served, fail the start or the reload."""
        name, before = f"worker {self.number}", self._how_ended
        self._how_ended = how
        # Without the helper, the next process could not open its files, either.
        is_stuck = self._problem and self._supervisor.lacks_helper()
        if is_hopeless and (is_stuck or not self.has_served):
            self._supervisor.start_failed(self, f"{name} {how}")
            return
        if CANNOT_START not in how:
            self._record_end(how + self._lost_connections)
        delay = self._back_off.delay(self._reactor.seconds() - self._started_at)
        if not self._supervisor.is_served():
            delay = min(delay, _LONGEST_OUTAGE)
        # While the starter starts, each attempt fails in the same way.
        if how != before or self._supervisor.starter.is_there:
            self._log.error(
                "{name} {how}; another one is started {when}",
                name=name,
                how=how,
                when=f"in {delay:g} s" if delay else "at once",
            )
        self._restart = self._reactor.callLater(delay, self.start)

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        return {
            messages.LOG: partial(self._supervisor.folded_log.write, self.number),
            messages.ACCESS: lambda line: _access.info("{line}", line=line),
            messages.EVENT: self._happened,
            messages.BAD_ENDS: partial(self._supervisor.state.recent.add, self.number),
            messages.WAITING: partial(self._supervisor.report_waiting_clients, self.number),
            messages.REPLACE: lambda: self._supervisor.replace(self),
        }

    def _is_ready(self, is_confined: object) -> None:
        self.ready = self.has_served = True
        self.failed_starts, self._how_ended = 0, ""
        self.is_confined = is_confined is True
        self._supervisor.ready(self)

    def _has_failed(self, failure: Failure) -> None:
        if not failure.check(PeerGoneError):  # otherwise the exit status says more
            self._problem = failure.getErrorMessage()

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None:
        """Send its events to `sink`, or no longer."""
        self.sink = sink
        self.send(messages.LISTEN, on=sink is not None)

    def _happened(self, event: dict[str, Any]) -> None:
        if self.sink is not None:
            self.sink(event)


def _process_ended(_: Failure) -> NoReturn:
    raise PeerGoneError


def _silent(failure: Failure) -> NoReturn:
    failure.trap(CancelledError)
    raise SilentError
