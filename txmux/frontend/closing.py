"""The last stage of a connection that leads nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.frontend.connection import MuxProtocol
    from txmux.observe.record import EndReason
    from txmux.relay.interface import AbortReason

__all__ = ["Closing", "refuse"]

_GOODBYE = 5.0  # seconds


class Closing:
    """The client is led nowhere and its connection is being closed."""

    def __init__(self, connection: MuxProtocol, reason: EndReason) -> None:
        self._connection = connection
        self._reason = reason
        self._deadline: IDelayedCall | None = None

    def wait(self) -> None:
        """Wait for the client to go, but not for ever."""
        clock = self._connection.factory.clock
        self._deadline = clock.callLater(_GOODBYE, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self._connection.transport.abortConnection()

    def data(self, data: bytes) -> None:
        """Count what nobody will read."""
        self._connection.record.bytes_in += len(data)

    def finished(self) -> None:
        """Nothing more is to be done about it."""

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """This was what we waited for."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._connection.over(self._reason)

    def abort(self, reason: AbortReason) -> None:  # noqa: ARG002
        """Wait no longer."""
        self._connection.transport.abortConnection()


def refuse(connection: MuxProtocol, how: Refusal, reason: EndReason) -> None:
    """Close a client's connection, which will be logged with this reason."""
    connection.settle()
    closing = Closing(connection, reason)
    connection.enter(closing)
    if how is Refusal.RESET:
        connection.transport.abortConnection()
        return
    connection.transport.loseConnection()
    if connection.stage is closing and ISSLTransport.providedBy(connection.transport):
        # TLS waits for the other side's goodbye.
        closing.wait()
