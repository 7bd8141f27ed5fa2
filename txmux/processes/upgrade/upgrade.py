"""Replaces this process with a new one of the same program: the old process's part.

old: starts the new one with the listening sockets, and keeps serving
new: reads the rules, opens what else it needs, and reports that it is ready
old: leaves new clients in the queues
new: accepts clients                                              until here, the old one keeps serving if anything fails
old: hands over its connections, and ends when the others have ended
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.admin.endpoint import AdminEndpoints
from txmux.classes import define
from txmux.control.report import Report
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, PeerGoneError, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.net.turns import in_thread
from txmux.processes.liveness import MOST_SILENT, HangDetector, activity_of_family
from txmux.processes.oom import how_killed
from txmux.processes.privilege.privilege import OPENER, READS_BY
from txmux.processes.upgrade import ENDS
from txmux.processes.upgrade.worker_transfers import WorkerTransfers
from txmux.processes.workers.moving import WorkerHandover, could_move, staying, total
from txmux.serving.state import TransferState
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.steps import CommittedSteps

LIMITS = "TXMUX_LIMITS"
"""The environment variable with the descriptor of the memory of the limits, which a process of another version leaves alone."""

VERSION = 2
"""Version of the messages between the two. Unknown fields are ignored, so it changes only if that is not enough."""

_STDERR, _CHANNEL, _HELPER, _LIMITS = 2, 3, 4, 5
_READY = 60.0
"""Seconds that the new process has to get ready to serve; and longer while it, or a process of its own, does something."""
_LOOK = 1.0  # seconds between two looks at what it does, afterwards
_ENDING = 5.0  # seconds for its end, after it has closed the channel
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
        counting: The descriptors and fields of its counters, for `Counters.adopt`.
        limits: What is where in the memory of the limits, for `SharedLimits.follow`; empty if it is as before.
        leaves: Whether it has announced its exit, since it was stopped, or replaced in turn.
        takers: How many of its workers take connections.
    """

    transport: IProcessTransport | None = None
    leaves = False
    takers = 0
    counting: tuple[list[int], dict[str, Any]] | None = None

    def __init__(self, reactor: Any, command: Sequence[str] = ()) -> None:
        self._reactor = reactor
        self._command = list(command or sys.orig_argv)
        self._output = b""
        self.limits: Mapping[str, Any] = {}
        self._ended: Deferred[str] = Deferred()
        handlers: dict[Message, Callable[..., object]] = {
            messages.EXITS: self._leave,
            messages.COUNT_BACK: self._count_back,
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
        beginning = self.ask_to_work(
            messages.BEGIN,
            _READY,
            descriptors=[_STDERR, *(opened.fileno() for opened in sockets.values())],
            version=VERSION,
            sockets=[*sockets],
            state=state,
        )
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
        if answer.get("version") == VERSION:
            self.takers = int(answer.get("processes", 0))
        else:
            _log.warn(
                "the new process hands connections over in another way (version {other}, here {version}), so they end in this one",
                other=answer.get("version"),
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

    def take(self, ends: Sequence[socket.socket], offered: int) -> None:
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
            self._reactor.spawnProcess(
                self,
                self._command[0],
                self._command,
                env=environment,
                childFDs={0: nothing.fileno(), **descriptors},
            )

    def _leave(self, *, on: bool = True) -> None:
        self.leaves = on

    def _count_back(
        self, descriptors: list[int], limits: Mapping[str, Any] | None = None, **fields: Any
    ) -> None:
        self.limits = limits or {}
        # After each reload it sends them again.
        if self.counting is not None:
            close_all(self.counting[0])
        self.counting = descriptors, fields

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
    def pid(self) -> int:
        assert self.transport is not None  # noqa: S101 - not called before
        return int(self.transport.pid)

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace").strip()

    def errReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[-_SAID:]

    def processEnded(self, reason: Failure) -> None:
        self.channel.close()
        ended: Any = reason.value
        self._ended.callback(how_killed(ended.status))


_COUNTS = 5.0
"""Seconds that it may take to read the counters, and longer while it works."""
_ACCEPTS, _IDLE = 2.0, 3
"""The same to accept clients, and the seconds without work after that; no process accepts any meanwhile."""
_LONGEST = 60.0
"""Seconds that the report waits for connections to move."""
_STILL = 10.0
"""The same, while none does."""

_log = Logger()


@define(eq=False, slots=False)
class Upgrade:
    """One attempt to upgrade; see the steps above. `on_committed` is called when the new process serves."""

    _transfers: WorkerTransfers
    _endpoints: AdminEndpoints
    _reactor: Any
    _command: Sequence[str] = ()
    _on_committed: Callable[[], object] = lambda: None

    is_committed = _given_up = False
    _pid, _seconds = 0, 0.0

    def __attrs_post_init__(self) -> None:
        self.successor = Successor(self._reactor, self._command)
        self.handovers: list[WorkerHandover] = []
        self.steps = CommittedSteps("the new process serves")

    async def run(
        self,
        sockets: Mapping[str, socket.socket],
        state: Callable[..., Awaitable[TransferState]],
        counters: Counters | None = None,
        limits: int | None = None,
    ) -> None:
        """Let a new process serve, and move connections to it, until all have moved that can, or none has for some seconds.

        The others are offered again afterwards. `state` is called now, and again just before this process stops accepting. After
        an `UpgradeError`, this process keeps serving.
        """
        successor = self.successor
        await self.start(sockets, state, limits)
        try:
            if counters is not None:
                await self._count_on(counters)
            # Before the commit: afterwards this process may end at any moment, and the workers continue without it.
            self._hand_over()
            # A change that is made from now on would be missing in the state.
            self._endpoints.hold_requests()
            last_state = await state(again=True)  # while workers still accept, since it takes long
            await self._transfers.pause()
            self._hand_over()  # workers that have become ready since may have clients, too
            left_out = await successor.ask_to_work(
                messages.SERVE, _ACCEPTS, most_silent=_IDLE, state=last_state
            )
        except BaseException as problem:
            successor.end()
            await self._accept_again()
            await successor.ended()
            if isinstance(problem, ChannelError):
                why = str(problem)
                if not isinstance(problem, _HangsError):
                    why = f"cannot serve: {why}"
                raise UpgradeError(f"the new process {why}") from problem
            raise
        self.is_committed = True
        self._pid, began = successor.pid, time.monotonic()
        run, wait = self.steps.run, self.steps.wait
        run("refuse requests here", self._endpoints.be_replaced)
        run("leave what changes to the new process", self._on_committed)
        if left_out:  # another version may not report it
            run("close removed endpoints", self._endpoints.leave_out, left_out)
            await wait("close removed listeners", lambda: self._transfers.leave_out(left_out))
        await wait("hand connections over", self._settle)
        run("end the hand-over", successor.channel.send, messages.HANDED_OVER)
        self._seconds = time.monotonic() - began

    async def start(
        self,
        sockets: Mapping[str, socket.socket],
        state: Callable[..., Awaitable[TransferState]],
        limits: int | None = None,
    ) -> None:
        """Start the new process, and wait until it is ready; this one serves until it asks it to."""
        first_state = await state()
        if self._given_up:
            raise UpgradeError("the service is shutting down")
        await self.successor.begin(sockets, first_state, limits)

    def _hand_over(self) -> None:
        successor = self.successor
        self.handovers += self._transfers.hand_over(
            successor, lambda: successor.takers > 0 and successor.channel.is_open, self.handovers
        )

    async def _settle(self) -> None:
        all_done = DeferredList([handover.done for handover in self.handovers])
        done: Deferred[Any] = DeferredList(
            [all_done, self.successor.ended()], fireOnOneCallback=True
        )
        moved, end = -1, self._reactor.seconds() + _LONGEST
        while not done.called and self._reactor.seconds() < end:
            have = sum(handover.moved for handover in self.handovers)
            if have == moved and all(handover.rounds for handover in self.handovers):
                return
            moved = have
            pause: Deferred[Any] = deferLater(self._reactor, _STILL)
            await DeferredList([done, pause], fireOnOneCallback=True, consumeErrors=True)
            pause.cancel()

    async def _accept_again(self) -> None:
        self._endpoints.accept()
        try:
            await self._transfers.accept()
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
        self._given_up = True
        if not self.is_committed:
            self.successor.end()

    def report(self, drain_timeout: float) -> Report:
        moved = sum(handover.moved for handover in self.handovers)
        left = total(handover.stays for handover in self.handovers)
        text, until = staying(left, drain_timeout)
        changes = (
            f"process {self._pid} serves from now on; "
            f"connections handed over: {moved}, in {1000 * self._seconds:.0f} ms{text}"
        )
        if not all(handover.done.called for handover in self.handovers):
            changes += "; those not taken are offered again until then"
        ended = [handover.ended for handover in self.handovers if handover.ended]
        changes = "; ".join([changes, *ended, *self.steps.troubles])
        is_complete = not (ended or could_move(left))
        details = {"moved": moved, "stays": left, "until": until, "complete": is_complete}
        return Report(ok=True, changes=changes, details=details)
