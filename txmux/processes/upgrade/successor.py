"""A new process of the same program, which is started to go on with what this one does."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

from txmux.errors import MuxError
from txmux.net.channel.channel import Channel, ChannelError, GoneError, attach
from txmux.processes.privilege.privilege import KEY, READS_BY
from txmux.processes.workers.ending import how_ended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IProcessTransport
    from twisted.python.failure import Failure


ENDS = "TXMUX_PREDECESSOR"
"""The environment variable that tells the new process which of its descriptors leads to the old one."""

VERSION = 1
"""Of what the two processes tell each other. Who does not know a field leaves it out, so this changes only if that is not enough."""

_STDERR, _CHANNEL, _HELPER = 2, 3, 4
_ENDING = 5.0  # seconds that it has to end, when it has closed the channel
_SAID = 2**16  # bytes of what it says that are kept


class UpgradeError(MuxError):
    """The new process did not take over, and the old one goes on."""


class Successor(ProcessProtocol):
    """A new process, from its start until it serves.

    What it writes to its standard error stream until it has read its rules is kept, to be told if it ends. Then it takes that of
    this process, and tells by the channel why it cannot serve.

    Args:
        reactor: Starts it.
        command: The program and its arguments; as this process was started if not given.

    Attributes:
        channel: Leads to it.
        leaves: Whether it has said that it ends because it is to: it stops, or another process serves in its place.
    """

    transport: IProcessTransport | None = None
    leaves = False

    def __init__(self, reactor: Any, command: Sequence[str] = ()) -> None:
        self._reactor = reactor
        self._command = list(command or sys.orig_argv)
        self._output = b""
        self._ended: Deferred[str] = Deferred()
        self.channel = Channel({"leave": self._leave}, lambda: None, reactor)

    async def begin(
        self, sockets: Mapping[str, socket.socket], state: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        """Start the process, hand it what it begins with, and wait until it could serve.

        Args:
            sockets: Those that listen, by the keys of their places.
            state: What is known of servers, and the like.
            seconds: How long it may take.

        Returns:
            What it tells of itself.

        Raises:
            UpgradeError: It could not, and has ended.
        """
        own, other = socket.socketpair()
        with own, other:
            attach(self._reactor, self.channel, own)
            try:
                self._spawn(other.fileno(), sockets.get(KEY))
            except OSError as problem:
                self.channel.close()
                raise UpgradeError(f"{self._command[0]}: {problem.strerror}") from problem
        late = self._reactor.callLater(seconds, self.end)
        try:
            answer: dict[str, Any] = await self.channel.ask(
                "begin",
                descriptors=[_STDERR, *(opened.fileno() for opened in sockets.values())],
                version=VERSION,
                sockets=[*sockets],
                state=state,
            )
        except ChannelError as problem:
            is_gone = isinstance(problem, GoneError)
            kill = self._reactor.callLater(_ENDING if is_gone else 0, self.end)
            how = await self._ended
            if kill.active():
                kill.cancel()
            why = how if is_gone else str(problem)
            if late.called:
                why = f"was not ready within {seconds:g} s"
            raise UpgradeError(
                "\n".join(filter(None, [f"the new process {why}", self.output]))
            ) from problem
        finally:
            if late.active():
                late.cancel()
        return answer

    def _spawn(self, descriptor: int, helper: socket.socket | None) -> None:
        descriptors: dict[int, int | str] = {1: 1, 2: "r", _CHANNEL: descriptor}
        environment = {**os.environ, ENDS: str(_CHANNEL)}
        if helper is not None:
            descriptors[_HELPER] = helper.fileno()
            environment[READS_BY] = str(_HELPER)
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

    def end(self) -> None:
        """End it, whatever it is doing, if it has been started."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def ended(self) -> Deferred[str]:
        return self._ended

    @property
    def pid(self) -> int:
        """Its process ID."""
        assert self.transport is not None  # noqa: S101 - nobody asks before
        return int(self.transport.pid)

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace").strip()

    def errReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[-_SAID:]

    def processEnded(self, reason: Failure) -> None:
        """Record how it ended."""
        self.channel.close()
        ended: Any = reason.value
        self._ended.callback(how_ended(ended.status))
