"""Replay a server again what its client has asked, and been answered, before it was known whose client it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txmux.interfaces import Exchange
    from txmux.net.relay.ends import IRelayTransport

_SHOWN = 40  # bytes


class RequestRefusedError(MuxError):
    """A server has not answered as the client had been told already."""


class Replay:
    """Listens to a server until it has given all answers, which go no further.

    Args:
        exchanges: What it is asked, and the only answers that will do.
        done: Is called when it has given them.
        failed: Is told why it has not; the connection is broken off then.
    """

    def __init__(
        self,
        transport: IRelayTransport,
        exchanges: Sequence[Exchange],
        done: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._transport = transport
        self._left = list(exchanges)
        self._done = done
        self._failed = failed
        self._received = b""

    def start(self) -> None:
        self._transport.write(self._left[0].request)

    def data(self, data: bytes) -> None:
        """Compare what comes with what has to come, which is nothing more than that."""
        self._received += data
        expected = self._left[0].answer
        if self._received == expected:
            self._received = b""
            del self._left[0]
            if self._left:
                self.start()
            else:
                self._done()
        elif not expected.startswith(self._received):
            self._refuse(f"it answered {self._received[:_SHOWN]!r}")

    def finished(self) -> None:
        self._refuse("it closed the connection")

    def lost(self, reason: Failure) -> None:
        self._failed(reason)

    def _refuse(self, how: str) -> None:
        question = self._left[0]
        why = (
            f"{how} when it was asked {question.request!r}, to which the client had been told {question.answer!r}; "
            "let the server accept that, which for PostgreSQL is 'ssl = on', or match without sni="
        )
        self._failed(Failure(RequestRefusedError(why)))
        self._transport.abortConnection()
