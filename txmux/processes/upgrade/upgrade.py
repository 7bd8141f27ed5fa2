"""Replaces this process with a new one of the same program: the old process's part.

old: starts the new one with the listening sockets, and keeps serving
new: reads the rules, opens what else it needs, and reports that it is ready
old: holds requests of the API, sends its last state, and gives its workers to the new one
new: adopts them as workers that retire, accepts clients, and reports when the connections have moved
old: reports that, and ends                                       until here, the old one keeps serving if anything fails
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.classes import define
from txmux.control.report import Report
from txmux.errors import MuxError, cause_of
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, PeerGoneError, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.net.turns import in_thread
from txmux.processes.liveness import (
    MOST_SILENT,
    HangDetector,
    activity_of_family,
    is_halted,
    is_worker,
    workers_of,
)
from txmux.processes.oom import how_killed
from txmux.processes.supervisor.privilege import OPENER, READS_BY
from txmux.processes.supervisor.resources import Resources
from txmux.processes.upgrade import ENDS
from txmux.processes.upgrade.worker_transfers import (
    LONGEST,
    GivingError,
    Moved,
    WorkerTransfers,
    close,
    settled,
)
from txmux.serving.state import TransferState
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.steps import CommittedSteps

LIMITS = "TXMUX_LIMITS"
"""The environment variable with the descriptor of the memory of the limits. A version that does not know it leaves it to its own successor, to
which it means nothing."""

VERSION = 3
"""Version of the messages between the two. Unknown fields are ignored, so it changes only if that is not enough."""
BY_CONNECTION = 2
"""The version whose processes adopt no workers, but connections of workers that stay in the old process."""

_STDERR, _CHANNEL, _HELPER, _LIMITS = 2, 3, 4, 5
_READY = 60.0
"""Seconds that the new process has to get ready to serve; and longer while it, or a process of its own, does something."""
_LOOK = 1.0  # seconds between two looks at what it does, afterwards
_ENDING = 5.0  # seconds for its end, after it has closed the channel
_STOPS = 10.0  # seconds for its report, when this process stops
_SAID = 2**16  # the last bytes of its output that are stored


class _HangsError(ChannelError):
    """The new process does nothing; the text says for how long, a part of a sentence."""


class UpgradeError(MuxError):
    """The new process did not take over; the old one keeps serving."""


class Successor(ProcessProtocol):
    """A new process, from its start until it serves.

    Its standard error output is collected until it has read its rules, and reported if it ends. From then on it writes to the
    stream of this process, and reports over the channel why it cannot serve.

    Args:
        command: The program and its arguments; those of this process by default.

    Attributes:
        pid: The ID of the process, also after its end.
        version: The version of its messages, once it is ready.
        limits: What is where in the memory of the limits then, for `SharedLimits.follow`.
        takers: How many of its workers take connections, if it adopts no workers.
        counts: The descriptors and fields of its counters, for `Counters.adopt`.
    """

    transport: IProcessTransport | None = None
    pid = version = takers = 0

    def __init__(self, reactor: Any, command: Sequence[str] = ()) -> None:
        self._reactor = reactor
        self._command = list(command or sys.orig_argv)
        self._output = b""
        self.limits: Mapping[str, Any] = {}
        self._ended: Deferred[str] = Deferred()
        self.counts: tuple[Sequence[int], Mapping[str, Any]] = (), {}
        handlers: dict[Message, Callable[..., object]] = {
            messages.COUNT_BACK: self._count_back,
            messages.LEAVE_OUT: lambda: None,
        }
        self.channel = Channel(handlers, lambda: None, reactor)

    async def begin(
        self, sockets: Mapping[str, socket.socket], state: dict[str, Any], limits: int | None = None
    ) -> None:
        """Start the process, send it sockets and state, and wait until it is ready; after an `UpgradeError` it has ended.

        `limits` is the memory of the limits, which both processes use from then on.
        """
        try:
            own, other = socket.socketpair()
            with own, other:
                attach(self._reactor, self.channel, own)
                self._spawn(other.fileno(), sockets.get(OPENER), limits)
        except OSError as problem:  # descriptors may have run out
            self.channel.close()
            raise UpgradeError(f"{self._command[0]}: {problem.strerror}") from problem
        values: dict[str, Any] = {"version": VERSION, "sockets": [*sockets], "state": state}
        given = [_STDERR, *(opened.fileno() for opened in sockets.values())]
        beginning = self.ask_to_work(messages.BEGIN, _READY, descriptors=given, **values)
        try:
            answer: dict[str, Any] = await beginning
        except ChannelError as problem:
            is_gone = isinstance(problem, PeerGoneError)
            if not is_gone:
                self.end()
            how = await self._end_soon()
            why = how if is_gone else str(problem)
            if isinstance(problem, _HangsError):
                why = f"was not ready within {_READY:g} s, and {problem}"
            raise UpgradeError(
                "\n".join(filter(None, [f"the new process {why}", self.output]))
            ) from problem
        self.version, self.limits = answer.get("version", 0), answer.get("limits", {})
        if self.version == BY_CONNECTION:
            self.takers = int(answer.get("processes", 0))
        elif self.version != VERSION:
            _log.warn(
                "the new process hands connections over in another way (version {other}, here {version}), so they end in this one",
                other=self.version,
                version=VERSION,
            )

    def ask_to_work(
        self, message: Message, seconds: float, *, most_silent: int = MOST_SILENT, **values: Any
    ) -> Deferred[Any]:
        """Ask for what may take minutes on a small machine: after `seconds`, what counts is what the process and its own ones do.

        The answer fails with a `ChannelError` once they have, since then, done nothing for `most_silent` seconds.
        """
        asking = self.channel.ask(message, **values)
        silence, hangs = HangDetector(), ""

        def look() -> None:
            nonlocal hangs
            silence.observe(activity_of_family(self.pid), has_turned=False)
            hangs = silence.why(at_work=True, most_silent=most_silent)
            if hangs:
                asking.cancel()

        def done(result: Any) -> Any:
            if waiting.active():
                waiting.cancel()
            if looking.running:
                looking.stop()
            return Failure(_HangsError(hangs)) if hangs else result

        looking = LoopingCall(look)
        looking.clock = self._reactor
        waiting = self._reactor.callLater(seconds, looking.start, _LOOK)
        return asking.addBoth(done)

    def pass_ends(self, ends: Sequence[socket.socket], offered: int) -> None:
        if ends:
            descriptors = [end.fileno() for end in ends]
            taking = self.channel.ask(
                messages.ADOPT_CONNECTIONS, descriptors=descriptors, offered=offered
            )
            taking.addErrback(lambda _: None)  # the other ends find their channels closed

    def _spawn(self, descriptor: int, helper: socket.socket | None, limits: int | None) -> None:
        descriptors: dict[int, int | str] = {1: 1, 2: "r", _CHANNEL: descriptor}
        environment = {**os.environ, ENDS: str(_CHANNEL)}
        if helper is not None:
            descriptors[_HELPER] = helper.fileno()
            environment[READS_BY] = str(_HELPER)
        if limits is not None:
            descriptors[_LIMITS] = limits
            environment[LIMITS] = str(_LIMITS)
        with Path(os.devnull).open() as nothing:
            given = {0: nothing.fileno(), **descriptors}
            self._reactor.spawnProcess(
                self, self._command[0], self._command, env=environment, childFDs=given
            )

    def _count_back(self, descriptors: Sequence[int], **fields: Any) -> None:
        close_all(self.counts[0])  # versions before 3 send them after each reload, too
        self.counts = descriptors, fields

    async def stop(self) -> None:
        """Shut it down; it does not serve yet."""
        self.send_signal(signal.SIGTERM)
        await self._end_soon()

    async def _end_soon(self) -> str:
        kill = self._reactor.callLater(_ENDING, self.end)
        how = await self.ended()
        if kill.active():
            kill.cancel()
        return how

    def end(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> bool:
        """Send it a signal; return whether it still is there."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(number)
                return True
        return False

    def ended(self) -> Deferred[str]:
        """Wait for its end, and return how it ended; each call has a Deferred of its own."""
        ended: Deferred[str] = Deferred()

        def end(how: str) -> str:
            ended.callback(how)
            return how

        self._ended.addCallback(end)
        return ended

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace").strip()

    def connectionMade(self) -> None:
        started: Any = self.transport
        self.pid = started.pid  # which the transport forgets when the process has ended

    def errReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[-_SAID:]

    def processEnded(self, reason: Failure) -> None:
        self.channel.close()
        ended: Any = reason.value
        self._ended.callback(how_killed(ended.status))


_COUNTS = 5.0
"""Seconds that it may take to read the counters, and longer while it works."""
_ACCEPTS, _IDLE = 2.0, 3
"""The same to accept clients, and the seconds without work after that: requests of the API are not answered meanwhile."""

_log = Logger()


@define(eq=False, slots=False)
class Upgrade:
    """One attempt to upgrade; see the steps above."""

    _transfers: WorkerTransfers
    _resources: Resources
    _reactor: Any
    _command: Sequence[str] = ()

    is_committed = _given_up = False
    _settling: Deferred[Any] | None = None
    _new_workers: Sequence[int] = ()
    _pid, _seconds = 0, 0.0
    _moved = Moved(0, {})

    def __attrs_post_init__(self) -> None:
        self.successor = Successor(self._reactor, self._command)
        self.steps = CommittedSteps("the new process serves")

    @property
    def gives_workers(self) -> bool:
        return self.successor.version == VERSION

    async def run(
        self,
        state: Callable[..., Awaitable[TransferState]],
        counters: Counters | None = None,
        limits: int | None = None,
    ) -> None:
        """Let a new process serve, and wait until all connections have moved to it that can, or none has for some seconds.

        The others are offered again afterwards. `state` is called now, and again just before the new process accepts. After an
        `UpgradeError`, this process keeps serving.
        """
        successor, endpoints = self.successor, self._resources.endpoints
        await self.start(state, limits)
        try:
            if counters is not None:
                await self._count_on(counters)
            # A change that is made from now on would be missing in the state.
            endpoints.hold_requests()
            last_state = await state(again=True)
            began = time.monotonic()
            self._new_workers = workers_of(successor.pid)
            left_out = await self._have_it_serve(last_state)
            # The other one answers them by now.
            self.steps.run("refuse requests here", endpoints.be_replaced)
            if self.gives_workers:
                self._moved = await self._settled()
        except BaseException as problem:
            self._settling = None
            successor.end()
            await successor.ended()  # what it has said to workers comes first
            descriptors, fields = successor.counts
            if counters is not None and descriptors:
                counters.adopt(descriptors, **fields)
            self._stop_new_workers()
            await self._accept_again()
            if isinstance(problem, ChannelError):
                why = str(problem)
                if not isinstance(problem, _HangsError):
                    why = f"cannot serve: {why}"
                raise UpgradeError(f"the new process {why}") from problem
            if isinstance(problem, OSError):  # descriptors may have run out
                raise UpgradeError(cause_of(problem)) from problem
            if isinstance(problem, GivingError | CancelledError):
                raise UpgradeError(str(problem) or "the service is shutting down") from problem
            raise
        self.is_committed = True
        self._pid = successor.pid
        if not self.gives_workers:
            await self.steps.wait("hand connections over", lambda: self._hand_over(left_out or ()))
        self._seconds = time.monotonic() - began

    async def start(
        self, state: Callable[..., Awaitable[TransferState]], limits: int | None = None
    ) -> None:
        """Start the new process, and wait until it is ready; this one serves until it asks it to."""
        first_state = await state()
        if self._given_up:
            raise UpgradeError("the service is shutting down")
        # Only now: a removed listener's socket may have been closed meanwhile, and a missing file's made again.
        with self._resources.handed_over() as sockets:
            await self.successor.begin(sockets, first_state, limits)

    async def _have_it_serve(self, state: TransferState) -> Sequence[str] | None:
        """Return the keys of sockets that its rules lack."""
        rows, ends, files = await self._transfers.give() if self.gives_workers else ([], [], [])
        try:
            asking = self.successor.ask_to_work(
                messages.SERVE,
                _ACCEPTS,
                most_silent=_IDLE,
                descriptors=[*(end.fileno() for end in ends), *files],
                state={**state, "ended": self._transfers.ended_workers()},
                workers=rows,
            )
        finally:
            close(ends)
        left_out: Sequence[str] | None = await asking
        return left_out

    async def _settled(self) -> Moved:
        self._settling = self.successor.ask_to_work(messages.SETTLE, 2 * LONGEST)
        told = await self._settling
        await deferLater(self._reactor, 0)
        if not self.successor.channel.is_open:  # it was killed after that
            raise PeerGoneError
        return Moved(**told)

    async def _hand_over(self, left_out: Sequence[str]) -> None:
        """Hand over to a process that adopts no workers."""
        successor, sockets = self.successor, self._resources.sockets
        removed = sockets.ended_by_removal(left_out)
        handovers = await self._transfers.hand_over(successor, left_out, removed)
        sockets.remove_files(left_out)
        # Clients would wait here that the other one no longer accepts.
        sockets.close(keep_files=True)
        self._moved = await settled(handovers, successor.ended(), self._reactor)
        successor.channel.send(messages.HANDED_OVER)

    async def _accept_again(self) -> None:
        """Be the process that serves again, whatever of that the other one has done."""
        resources, transfers = self._resources, self._transfers
        resources.endpoints.accept()
        resources.write_pidfile(must=False)  # it may name the other one
        if self._given_up:  # the service is shutting down
            resources.remove_pidfile()
            # When its main process ends, systemd ends what is left of a service, with the clients that have time to finish.
            resources.notifier.stopping(is_new_main=True)
            return
        resources.notifier.ready("serving", is_new_main=True)
        try:
            await transfers.take_back()
        except ChannelError as problem:  # a process that does not answer is replaced
            _log.warn("a worker does not accept clients yet: {why}", why=problem)

    async def _count_on(self, counters: Counters) -> None:
        try:
            for program in counters.programs():
                fields, descriptors = await in_thread(program.handed_over)
                await self.successor.ask_to_work(
                    messages.COUNT_ON, _COUNTS, descriptors=descriptors, **fields
                )
        except (ChannelError, OSError) as problem:
            _log.warn("the new process does not continue all counters: {why}", why=problem)

    def give_up(self) -> None:
        """End the new process; one that accepts clients already stops, and gives these their time, as this one does."""
        self._given_up = True
        if self._settling is not None and not self.is_committed:
            # By a message: if all processes have a signal, another one would end clients at once.
            self.successor.channel.send(messages.END)
            self._settling.addTimeout(_STOPS, self._reactor)
        elif not self.is_committed:
            self.successor.end()

    def hurry(self) -> None:
        """After `give_up`: wait for the new process no longer."""
        if self._settling is not None:
            self._settling.cancel()

    def _stop_new_workers(self) -> None:
        # Without their supervisor, nothing lists or bans the clients that they have, nor ever ends these.
        workers = [*filter(is_worker, self._new_workers)]
        _send(signal.SIGTERM, workers)
        # A halted one does not take the signal, and may be why the new process could not serve.
        if halted := [*filter(is_halted, workers)]:
            self._reactor.callLater(MOST_SILENT, _kill_halted, halted)

    def report(self) -> Report:
        left, troubles = self._transfers.seconds_left, self.steps.troubles
        return self._moved.report(self._pid, self._seconds, left, troubles)


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(OSError):  # it has just ended
            os.kill(pid, number)


def _kill_halted(workers: Sequence[int]) -> None:
    _send(signal.SIGKILL, filter(is_halted, filter(is_worker, workers)))
