"""Handing a client's connection to a protocol of this process, without a second socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

    from txmux.frontend.connection import MuxProtocol
    from txmux.observe.record import ConnectionRecord, EndReason
    from txmux.relay.ends import IRelayTransport
    from txmux.relay.interface import AbortReason
    from txmux.rules.model import InProcess

__all__ = ["HandedOver"]


_log = Logger()  # of the module: an event must not keep a connection's objects alive


class HandedOver:
    """A stage: a protocol of this process has the connection, and all timeouts are its own."""

    def __init__(self, connection: MuxProtocol, outcome: InProcess) -> None:
        self._connection = connection
        self._outcome = outcome
        self._ended_by_us: EndReason | None = None
        self._protocol: Any = None

    def start(self, pending: bytes, *, client_finished: bool) -> None:
        """Give the connection over, with the bytes that came before."""
        connection = self._connection
        connection.enter(self)
        self._run(self._make_protocol)
        if pending:
            self._run(self._deliver, pending)
        if client_finished:
            self.finished()

    def data(self, data: bytes) -> None:
        """Pass bytes on."""
        self._connection.record.bytes_in += len(data)
        self._run(self._deliver, data)

    def finished(self) -> None:
        """Pass a half-close on to a protocol that knows of such; for any other the connection is over."""
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._run(self._protocol.readConnectionLost)
        else:
            self._connection.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        """Tell the protocol that its connection is gone."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self._run(protocol.connectionLost, reason)
        self._connection.over(self._ended_by_us or _reason_for(reason))

    def abort(self, reason: AbortReason) -> None:
        """End the connection."""
        self._end(reason)

    def _make_protocol(self) -> None:
        connection = self._connection
        protocol: Any = self._outcome.factory.buildProtocol(connection.transport.getPeer())
        if protocol is None:
            self._end("denied")
            return
        self._protocol = protocol
        protocol.makeConnection(_CountingTransport(connection.transport, connection.record))

    def _deliver(self, data: bytes) -> None:
        if self._protocol is not None and not getattr(
            self._connection.transport, "disconnecting", False
        ):
            self._protocol.dataReceived(data)

    def _run(self, what: Callable[..., object], *args: object) -> None:
        """Call into the protocol; its errors end its own connection and no other."""
        try:
            what(*args)
        except Exception:  # noqa: BLE001 - whatever it is, it is that protocol's
            _log.failure("{backend} raised; its connection is ended", backend=self._outcome.name)
            self._end("error")

    def _end(self, reason: EndReason) -> None:
        self._ended_by_us = self._ended_by_us or reason
        self._connection.transport.abortConnection()


def _reason_for(reason: Failure) -> EndReason:
    if reason.check(error.ConnectionDone):
        return "done"
    # Only the protocol itself can have aborted it, if we have not.
    return "server-reset" if reason.check(error.ConnectionAborted) else "client-reset"


class _CountingTransport:
    """The client's transport as the protocol sees it: counts what is written, and is otherwise the same."""

    def __init__(self, transport: IRelayTransport, record: ConnectionRecord) -> None:
        self._transport = transport
        self._record = record
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write and count."""
        self._record.bytes_out += len(data)
        self._transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write and count."""
        self.write(b"".join(data))
