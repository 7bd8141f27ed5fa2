"""A process that is started outside of the sandbox, by the helper, but belongs to this one as those that it starts itself."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from txmux.errors import MuxError
from txmux.processes.pidfd import send_signal

if TYPE_CHECKING:
    import socket

    from twisted.internet.protocol import ProcessProtocol

    from txmux.processes.privilege.opener import Opener

__all__ = ["Outside"]

_CHUNK = 65536


class Outside:
    """Has the helper start this program again.

    Args:
        reactor: Waits for what it says.
        opener: Asks the helper.
    """

    def __init__(self, reactor: Any, opener: Opener) -> None:
        self._reactor = reactor
        self._opener = opener

    def start(self, protocol: ProcessProtocol, inherited: dict[str, socket.socket | int]) -> None:
        """Start it.

        Args:
            protocol: Is told what it writes to its standard error stream, and that it has ended.
            inherited: The descriptors that it inherits, by the environment variables that tell it of them.

        Raises:
            OSError: It cannot be started.
        """
        said, stderr = os.pipe()
        try:
            pid, ended = self._opener.start_program(stderr, inherited)
        except (OSError, MuxError) as problem:
            os.close(said)
            if isinstance(problem, MuxError):
                raise OSError(0, str(problem)) from problem
            raise
        finally:
            os.close(stderr)
        os.set_blocking(said, False)
        _Process(self._reactor, self._opener, protocol, pid, (said, ended))


class _Process:
    """What Twisted calls the transport of a process."""

    def __init__(
        self,
        reactor: Any,
        opener: Opener,
        protocol: ProcessProtocol,
        pid: int,
        descriptors: tuple[int, int],
    ) -> None:
        self.pid = pid
        self._opener = opener
        self._protocol = protocol
        self._said, self._ended = descriptors
        self._readers = [
            _Reader(reactor, self._said, self._says),
            _Reader(reactor, self._ended, self._ends),
        ]
        transport: Any = self
        protocol.makeConnection(transport)

    def signalProcess(self, name: str) -> None:
        """Send it a signal.

        Raises:
            ProcessExitedAlready: It has ended.
        """
        try:
            send_signal(self._ended, signal.Signals[f"SIG{name}"])
        except OSError:
            raise ProcessExitedAlready from None

    def _says(self) -> None:
        data = b""
        with suppress(BlockingIOError):
            data = os.read(self._said, _CHUNK)
            if not data:
                self._readers[0].stop()
        if data:
            self._protocol.errReceived(data)

    def _ends(self) -> None:
        if self._readers[0].is_reading:
            self._says()
        for reader in self._readers:
            reader.stop()
        status = self._opener.status(self.pid)
        os.close(self._said)
        os.close(self._ended)
        self._protocol.processEnded(Failure(_ending(status)))


def _ending(status: int | None) -> Exception:
    if status == 0:
        return ProcessDone(0)
    if status is not None and status < 0:
        return ProcessTerminated(signal=-status)
    return ProcessTerminated(exitCode=status)


class _Reader:
    """Waits until a descriptor can be read."""

    def __init__(self, reactor: Any, descriptor: int, can_read: Any) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self.doRead = can_read
        self.is_reading = True
        reactor.addReader(self)

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Name it."""
        return "outside"

    def connectionLost(self, _: object) -> None:
        """Wait no more."""
        self.is_reading = False

    def stop(self) -> None:
        """Wait no more."""
        if self.is_reading:
            self.is_reading = False
            self._reactor.removeReader(self)
