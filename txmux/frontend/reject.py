"""Turning a client away with an answer in its own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from txmux.frontend.answers import answer_to
from txmux.frontend.closing import refuse
from txmux.interfaces import Peeked
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txmux.frontend.connection import MuxProtocol
    from txmux.observe.record import EndReason
    from txmux.relay.interface import AbortReason

__all__ = ["Rejecting", "turn_away"]

_PATIENCE = 3.0  # seconds
_MOST = 256 * 1024  # bytes

_NOT_ALLOWED = frozenset({"denied", "no-route", "silent"})


def turn_away(
    connection: MuxProtocol,
    how: Refusal,
    reason: EndReason,
    said: bytes,
    *,
    client_finished: bool,
) -> None:
    """Refuse a client in any of the ways there are.

    Args:
        connection: The client's.
        how: Which way.
        reason: Why, for the log; the answer of `Refusal.REJECT` hangs on it, too.
        said: What the client has said, if anything.
        client_finished: Whether it will say no more.
    """
    if how is Refusal.REJECT and said:
        Rejecting(connection, reason, said, client_finished=client_finished).start()
    else:
        refuse(connection, how, reason)


class Rejecting:
    """A stage: the client is told that it is led nowhere, and the connection is closed once it has heard.

    To close a socket with unread bytes in it is to send a reset, which destroys what the client has not read yet. So
    what it still sends is read, until it closes its side, but neither for long nor without end.

    Args:
        connection: The client's.
        reason: As for `turn_away`.
        said: What the client has said, at least one byte.
        client_finished: Whether it will say no more.
    """

    def __init__(
        self, connection: MuxProtocol, reason: EndReason, said: bytes, *, client_finished: bool
    ) -> None:
        self._connection = connection
        self._reason = reason
        self._said: Peeked | None = Peeked(said)
        self._finished = client_finished
        self._read = len(said)
        self._answered = 0
        self._closing = False
        self._deadline = connection.factory.clock.callLater(_PATIENCE, self._close)

    def start(self) -> None:
        """Answer."""
        connection = self._connection
        connection.settle()
        connection.enter(self)
        if not self._finished:
            connection.transport.resumeProducing()
        self._answer()

    def _answer(self) -> None:
        assert self._said is not None  # noqa: S101 - it goes only once there is an answer
        answer = answer_to(self._said, unavailable=self._reason not in _NOT_ALLOWED)
        fresh = answer.data[self._answered :]
        if fresh:
            self._answered = len(answer.data)
            self._connection.record.bytes_out += len(fresh)
            self._connection.transport.write(fresh)
        if self._finished or (answer.complete and not answer.data):
            self._close()
        elif answer.complete:
            self._said = None
            self._finish_writing()

    def _finish_writing(self) -> None:
        transport = self._connection.transport
        if ISSLTransport.providedBy(transport):
            self._close()  # TLS reads on by itself until the other side's goodbye
        else:
            transport.loseWriteConnection()

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._deadline.active():
            self._deadline.cancel()
        # The client may not even have taken the answer.
        transport = self._connection.transport
        self._deadline = self._connection.factory.clock.callLater(
            _PATIENCE, transport.abortConnection
        )
        transport.loseConnection()

    def data(self, data: bytes) -> None:
        """Read what the answer hangs on; afterwards only take it."""
        self._connection.record.bytes_in += len(data)
        self._read += len(data)
        if self._read > _MOST:
            self._close()
        elif self._said is not None and not self._closing:
            self._said = Peeked(self._said.data + data, self._said)
            self._answer()

    def finished(self) -> None:
        """Close as well."""
        self._finished = True
        self._close()

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """This was what we waited for."""
        if self._deadline.active():
            self._deadline.cancel()
        self._connection.over(self._reason)

    def abort(self, reason: AbortReason) -> None:  # noqa: ARG002
        """Wait no longer."""
        self._connection.transport.abortConnection()
