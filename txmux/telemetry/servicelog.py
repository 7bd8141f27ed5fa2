"""The service's own log, which must never stop the service."""

from __future__ import annotations

from typing import IO, Any

from twisted.logger import Logger

from txmux.telemetry.lines import LineWriter

_AGAIN = 0.1  # seconds between two tries to write what is held
_LAST = 1.0  # seconds that a slow reader has at the end

_log = Logger()


class ServiceLog:
    """What log observers of Twisted's write to, in place of a file, which would wait for whoever reads.

    Args:
        file: Is written to no more while this is in use.
        reactor: Tries again while something is held.
    """

    encoding = "utf-8"

    def __init__(self, file: IO[str], reactor: Any) -> None:
        file.flush()
        self._file = file  # which closes its descriptor when it goes
        self._reactor = reactor
        self._is_waiting = False
        self._writer = LineWriter(file.fileno(), lambda _why: None, _tell)
        reactor.addSystemEventTrigger("after", "shutdown", self._writer.finish, _LAST)

    def write(self, text: str) -> None:
        """Write one event."""
        self._writer.write([text.encode(errors="replace")])
        if self._writer.is_holding and not self._is_waiting:
            self._is_waiting = True
            self._reactor.callFromThread(self._wait)  # whatever thread this is

    def flush(self) -> None:
        """Does nothing: each line is written as soon as possible."""

    def _wait(self) -> None:
        self._reactor.callLater(_AGAIN, self._try)

    def _try(self) -> None:
        if self._writer.flush():
            self._is_waiting = False
        else:
            self._wait()


def _tell(lost: int) -> None:
    _log.warn("nobody took the lines of this log for a while; {count} are lost", count=lost)
